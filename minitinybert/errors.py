"""The one exception a user is meant to read, what makes any text fit for one line, and how it names
options: as those of a command, or as the keywords of a function."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

CRASHED = 70  # the exit status of an error that nobody foresaw (EX_SOFTWARE of sysexits.h)
_LONGEST = 1000  # characters of an error: a path, a name and what to do
# Where a function was called, the options of all commands, and which stand without a value.
_OPTIONS: ContextVar[Mapping[str, bool] | None] = ContextVar("_OPTIONS", default=None)
# An option, and what follows it: its value, unless that is one of the words with which a sentence goes on.
NO_VALUES = "and are for go goes has is it keep keeps leaves lower-cases makes need needs of or out prints says takes tells to too was"
_OPTION = re.compile(rf"(?<![\w-])--([a-z][a-z0-9-]*)(?:[ =](?!(?:{'|'.join(NO_VALUES.split())})(?:\W|$))(\S+?)(?=[:,;)]*(?:\s|$)))?")


class InputError(Exception):
    """Bad input: one clear line saying what was wrong, where (file, row, tensor) and what to do.

    Raised at entry points only (files, command-line values, shapes handed to a model); the command
    line prints it on standard error and exits 2. Whatever a file or a library put into the message,
    it is one line: see `one_line`.
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(in_words(str(message))))


@contextmanager
def as_function(options: Mapping[str, bool]) -> Iterator[None]:
    """Within the block errors and log lines are of a function: `lr=` for `--lr`, `max_length=64` for
    `--max-length 64`, `resume=True` for `--resume`. options: {name: whether it has no value}."""
    token = _OPTIONS.set(options)
    try:
        yield
    except InputError as error:  # perhaps from a thread or a process, which cannot know
        raise InputError(error) from None
    finally:
        _OPTIONS.reset(token)


def in_words(text: str) -> str:
    """`text` as it is; where a function was called, with its keywords in the place of options."""
    options = _OPTIONS.get()
    if options is None:
        return text

    def keyword(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if name not in options:  # another program's
            return match[0]
        if options[name]:
            return f"{name.replace('-', '_')}=True" + match[0][len(name) + 2 :]
        equals = "" if text[match.end() : match.end() + 1] == ":" and not value else "="
        return f"{name.replace('-', '_')}{equals}{value or ''}"

    return _OPTION.sub(keyword, text)


def out_of_memory(error: MemoryError) -> str:
    """One line for the user: NumPy and CuPy say how much was asked for."""
    asked = f" ({error})" if str(error) else ""
    return one_line(f"not enough memory{asked}; try a smaller --batch-size or --max-length, or fewer --threads or --processes")


def one_line(text: str) -> str:
    """`text` without line ends, which become spaces. Other characters that steer a terminal, and
    halves of surrogate pairs, are shown as Python writes them; the middle of a long text is left out.
    """
    joined = " ".join(part for part in map(str.strip, text.splitlines()) if part)
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
