"""Files and directories that appear whole or not at all; JSON, NumPy's arrays and zip archives,
read with the sizes that they claim held against the file."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError

AGAIN = "copy or download it again"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; takes its place when the block ends well, and goes away
    when it does not."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    beside.touch()
    mode = beside.stat().st_mode  # of any new file here; the writer of safetensors makes one that nobody else may read
    try:
        yield beside
        beside.chmod(mode)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def building(directory: Path) -> Iterator[Path]:
    """A new directory beside `directory`, which must not exist; renamed when the block ends well,
    removed when it does not."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        os.rename(beside, directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """A file of indented JSON, written beside and renamed."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; InputError where it holds anything else."""
    try:
        parsed = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{path}: holds a JSON {type(parsed).__name__}, where an object {{…}} belongs")
    return parsed


def read_array(path: Path, dtype: str) -> np.ndarray:
    """The one-dimensional array of a .npy file, memory-mapped and read-only: nothing is allocated
    for a header that lies. dtype: those that may be in it, as "<u2 <u4".

    InputError where it is no such file, cut short, or of another dtype or shape.
    """
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # NumPy parses the header as Python: whatever a parser and mmap raise
        raise InputError(f"{path}: not an array of NumPy's, or cut short ({error}); {AGAIN}") from None
    if values.ndim != 1 or values.dtype.str not in dtype.split():
        raise InputError(f"{path}: holds {values.dtype.str} of shape {values.shape}, one row of {dtype} is needed; {AGAIN}")
    return values.view(np.ndarray)


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip archive; InputError where it is none, or its entries claim more bytes than the file
    has."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception:  # a damaged directory of entries may end in any error
        raise InputError(f"{path}: cut short or damaged, not a whole zip archive; {AGAIN}") from None
    if sum(info.compress_size for info in archive.infolist()) > path.stat().st_size:
        archive.close()
        raise InputError(f"{path}: its entries claim more bytes than the file has; {AGAIN}")
    return archive


def read_member(archive: zipfile.ZipFile, name: str, most: int, stored: bool = False) -> bytes:
    """The bytes of an archive's entry, of which there may be `most`; its CRC-32 is checked. stored:
    compressed ones are refused too.

    InputError where it is not there, larger, encrypted, compressed by an unusual method, or damaged.
    """
    where = f"{archive.filename}: {name}"
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{where} is not in the archive; {AGAIN}") from None
    if info.file_size > most:
        raise InputError(f"{where} has {info.file_size} bytes, more than the {most} that are read")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where} is encrypted, or compressed by a method that is not read; pack it anew")
    if stored and info.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{where} is compressed, which is not read here; pack it anew without compression")
    try:
        data = archive.read(info)
    except Exception as error:  # zipfile, zlib and struct have their own, and none has one for all
        raise InputError(f"{where} is damaged ({error or type(error).__name__}); {AGAIN}") from None
    if len(data) != info.file_size:
        raise InputError(f"{where} is cut short; {AGAIN}")
    return data


def check_apart(out: Path, *inputs: str | Path) -> None:
    """InputError where `out` is a directory that is read from, and would be written over."""
    for source in inputs:
        if Path(source).exists() and Path(source).resolve() == Path(out).resolve():
            raise InputError(f"--out {out}: is what is read from too; name another directory")
