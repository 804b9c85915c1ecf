"""Lines of text files: one rule for every reader.

A line feed ends a line, and nothing else does: a carriage return before it goes with it, and
Unicode's other separators, form feeds and carriage returns by themselves are text (str.splitlines
and files opened as text have other rules). A byte order mark before the first line is none of it.
Text is UTF-8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError

BLOCK = 1 << 17  # bytes


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of a file.

    InputError for a file that cannot be read, and, with the line's number, for bad UTF-8.
    """
    with opened(path) as file:
        yield from numbered(file, path)


def numbered(file: BinaryIO, path: Path) -> Iterator[tuple[int, str]]:
    """The same of an open file, called `path` in errors."""
    for number, raw in enumerate(file, 1):
        try:
            yield number, _decoded(raw, number == 1)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, number, error.start) from None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file; InputError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _decoded(line: bytes, first: bool) -> str:
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if first else "utf-8")


def read_corpus(path: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """The lines that begin in bytes start … stop − 1 of a file of raw text (None: its end), without
    outer white space; those of adjoining stretches are, together, the file's.

    Memory is bounded whatever is in the file: a line that holds a whole block of the file's (`BLOCK`
    bytes, counted from its start) is cut where the next block has white space first, or where it
    begins. InputError as in `read_lines`.
    """
    for at, line in _pieces(path, max(start - 1, 0) // BLOCK * BLOCK, math.inf if stop is None else stop):
        if at >= start:
            try:
                yield _decoded(line, at == 0).strip()
            except UnicodeDecodeError as error:
                raise _not_utf8(path, *_place(path, at + error.start)) from None


def _pieces(path: Path, start: int, stop: float) -> Iterator[tuple[int, bytes]]:
    """(where it begins, a line without its line feed), from the block on that begins at `start`, of
    those that begin before `stop`. It ends by itself: one that is left in its `with` keeps its block
    until Python 3.10 looks for cycles.

    Where a line is cut depends on the block before, so that one more is read; what comes of it
    begins before `start`, but for what lies behind its last line feed or cut.
    """
    at, held = max(start - BLOCK, 0), b""  # where the line that has not ended yet begins, and its bytes
    long = rest = False  # whether the block before has no line feed; whether the line was cut before `at`
    with opened(path) as file:
        file.seek(at)
        while block := file.read(BLOCK):
            cut = _cut(block) if long else None
            ended = []  # lines, and how long their ends are
            if cut is not None:
                ended, held, block = [(held + block[:cut], 0)], b"", block[cut:]
            long = b"\n" not in block
            *lines, held = (held + block).split(b"\n")
            for line, end in chain(ended, zip(lines, repeat(1))):
                if at >= stop:
                    return
                if line.strip() or not rest:  # white space that a cut left over is no blank line
                    yield at, line
                at, rest = at + len(line) + end, not end
        if (held.strip() or (held and not rest)) and at < stop:
            yield at, held


def _cut(block: bytes) -> int | None:
    """Where a line that goes on into this block is cut: at white space; where there is none, at the
    first character that begins in the block. None where the line ends before."""
    found = re.search(rb"[ \t\n]", block)
    if found is None:
        return next((i for i, byte in enumerate(block[:4]) if byte & 0xC0 != 0x80), len(block[:4]))
    return None if found[0] == b"\n" else found.start()


def _place(path: Path, at: int) -> tuple[int, int]:
    """The number of the line that byte `at` of a file belongs to, and how many bytes of that line
    come before it: looked up only for an error's sake."""
    number, line, seen = 1, 0, 0
    with open(path, "rb") as file:
        while block := file.read(min(at - seen, BLOCK)):
            number += block.count(b"\n")
            line = seen + block.rindex(b"\n") + 1 if b"\n" in block else line
            seen += len(block)
    return number, at - line


def _not_utf8(path: Path, number: int, before: int) -> InputError:
    return InputError(f"{path}, line {number}: not UTF-8 (byte {before + 1}); save the file as UTF-8")


def on_one_line(text: str) -> str:
    """`text` with a space for whatever any reader of lines takes for an end.

    >>> on_one_line("a\\rb\\u2028c\\td")
    'a b c\\td'
    """
    return " ".join(text.splitlines())
