"""Files and directories that appear whole or not at all, and one line for what cannot be written;
JSON, NumPy's arrays and zip archives, read with the sizes that they claim held against the file.

    replacing, building ─▶ written beside ─▶ fsync ─▶ renamed ─▶ fsync of the directory: the name counts

A process that is killed leaves at most what it wrote beside, `.NAME.PID.partial`; the next run that
claims the directory (claims.py) sweeps it away.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

AGAIN = "copy or download it again"
_PARTIAL = re.compile(r"\.(.+)\.\d+\.partial")  # the name of what is written beside; see `_beside`
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, or choose another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a place that may be written to"),
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in a directory beside `path`; takes its place when the block ends well,
    and goes away when it does not. InputError for a file that cannot be written (`writing`).

    A directory, for libraries that write beside themselves, as safetensors does.
    """
    beside = _beside(path)
    new = beside / path.name
    with writing(path, beside):
        try:
            beside.mkdir(exist_ok=True)
            new.touch()
            mode = new.stat().st_mode  # of any new file here; the writer of safetensors makes one that nobody else may read
            yield new
            new.chmod(mode)
            sync(new)
            os.replace(new, path)
            sync(path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def building(directory: Path) -> Iterator[Path]:
    """A new directory beside `directory`, which must not exist; renamed when the block ends well,
    removed when it does not. InputError where it cannot be written."""
    beside = _beside(directory)
    with writing(directory, beside):
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            yield beside
            for place in (*beside.rglob("*"), beside):
                sync(place)
            os.rename(beside, directory)
            sync(directory.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextmanager
def writing(path: Path, beside: Path | None = None) -> Iterator[None]:
    """Whatever a library raises in the block because a file cannot be written becomes an InputError
    of one line, which names the file and the cause. `beside`: where it is written first."""
    try:
        yield
    except InputError as error:  # of a file in a directory that is built beside
        if beside is None or str(beside) not in str(error):
            raise
        raise InputError(str(error).replace(str(beside), str(path))) from None
    except Exception as error:
        from safetensors import SafetensorError

        # safetensors and tokenizers raise an exception of their own, or a bare one
        if _number(error) is None and not isinstance(error, (OSError, SafetensorError)):
            raise
        named = getattr(error, "filename", None)
        if named is None or str(named).startswith(str(beside or path)) or str(named) == str(path.parent):
            raise unwritable(path, error) from None
        raise InputError(f"{named}: cannot be read ({cause(error)})") from None  # what the block copies from


def unwritable(path: Path, error: Exception) -> InputError:
    """One line: which file, why, and what to do where that is plain."""
    advice = _ADVICE.get(_number(error) or 0)
    return InputError(f"{path}: cannot be written ({cause(error)})" + (f"; {advice}" if advice else ""))


def cause(error: Exception) -> str:
    """The system's words for an error, whichever library raised it; the library's own where the
    system has none."""
    number = _number(error)
    return os.strerror(number) if number else " ".join(str(error).split())


def _number(error: Exception) -> int | None:
    """The system's number of an error. Libraries in Rust have it in the text alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def sync(path: Path) -> None:
    """Until the disk holds what was written to a file, or the names in a directory."""
    directory = path.is_dir()
    if directory and (os.name == "nt" or not os.access(path, os.R_OK)):
        return  # one that cannot be opened: on Windows none can
    descriptor = os.open(path, os.O_RDONLY if directory else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not directory or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that syncs no directories
            raise
    finally:
        os.close(descriptor)


def reserve(descriptor: int, size: int) -> None:
    """Room on the disk for `size` bytes of a file that is to be mapped. OSError where there is
    none: a store into a mapped page that finds no room would end the process (SIGBUS)."""
    try:
        os.posix_fallocate(descriptor, 0, size)
        return
    except AttributeError:  # macOS, Windows
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    zeros = memoryview(bytes(1 << 20))
    os.lseek(descriptor, 0, os.SEEK_SET)
    while size:
        size -= os.write(descriptor, zeros[:size])


def sweep(directory: Path, name: str | None = None) -> None:
    """Remove what killed processes wrote beside in `directory` itself, of all files or of the one of
    that name. Only for whoever knows that nobody else writes there."""
    for path in directory.iterdir():
        found = _PARTIAL.fullmatch(path.name)
        if found and name in (None, found[1]):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def is_free(directory: Path) -> bool:
    """Whether there is nothing in the way of a new run's files: no directory, or an empty one."""
    return not directory.exists() or all(path.name == ".lock" for path in directory.iterdir())  # claims.py


def write_json(path: Path, value: Any) -> None:
    """A file of indented JSON, written beside and renamed."""
    with replacing(path) as beside:
        beside.write_text(json_text(value, indent=2) + "\n", encoding="utf-8")


def json_text(value: Any, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """`value` as JSON, which has neither NaN nor infinity: null stands for these, as JavaScript has
    it. InputError where it is nested some hundred times."""
    text = partial(json.dumps, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
    try:
        try:
            return text(value)
        except ValueError:
            return text(_finite(value))
    except RecursionError:  # of a file that was read: nobody nests so by hand
        raise InputError("what is to be written as JSON is nested too deeply; flatten the file that it is from") from None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; InputError where it holds anything else."""
    try:
        parsed = parse_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{path}: holds a JSON {type(parsed).__name__}, where an object {{…}} belongs")
    return parsed


def parse_json(text: str | bytes) -> Any:
    """What JSON from elsewhere holds. ValueError where it is none, is nested too deeply, or escapes
    half a surrogate pair (RFC 8259, section 8.2), which is no character and could not be written
    again: every reader of JSON refuses it here."""
    try:
        parsed = json.loads(text)
        if isinstance(text, bytes) or "\\u" in text:  # bytes that are no UTF-8 come through as halves, too
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[error.start]!a} is half a surrogate pair; write the whole one, or none") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return parsed


def read_array(path: Path, dtype: str) -> np.ndarray:
    """The one-dimensional array of a .npy file, memory-mapped and read-only: nothing is allocated
    for a header that lies. dtype: those that may be in it, as "<u2 <u4".

    InputError where it is no such file, cut short, or of another dtype or shape.
    """
    import numpy as np

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
