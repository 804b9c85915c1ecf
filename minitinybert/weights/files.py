"""What all formats share: files that appear whole or not at all, JSON, bfloat16, and a word on what is no weights file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

AGAIN = "copy or download it again"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; takes its place when the block ends well, and goes away when it does not."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def building(directory: Path) -> Iterator[Path]:
    """A new directory beside `directory`, which must not exist; renamed when the block ends well, removed when it does not."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        os.rename(beside, directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; InputError where it holds anything else."""
    try:
        parsed = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{path}: holds a JSON {type(parsed).__name__}, where an object {{…}} belongs")
    return parsed


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16, read as uint16, as float32: its bits are the upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def not_weights(path: Path, kind: str) -> InputError:
    """The error for a file that is not what its name says."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return InputError(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its directory")
    if not start:
        return InputError(f"{path}: the file is empty; {AGAIN}")
    return InputError(f"{path}: not {kind} (it begins with {start[:8]!r}); {AGAIN}")
