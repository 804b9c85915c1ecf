"""Plain text files, read with errors that name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, without their ends and outer white space. InputError for a missing
    file and bad UTF-8."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield line.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    raise InputError(f"{path}, line {number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
