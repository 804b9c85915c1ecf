"""Files and directories that appear whole or not at all, and JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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


def check_apart(out: Path, *inputs: str | Path) -> None:
    """InputError where `out` is a directory that is read from, and would be written over."""
    for source in inputs:
        if Path(source).exists() and Path(source).resolve() == Path(out).resolve():
            raise InputError(f"--out {out}: is what is read from too; name another directory")
