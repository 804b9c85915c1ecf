"""Standard input, output and error, whatever they are: a terminal or pipe of any encoding, one that
nobody reads any more, or none at all."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


def prepare() -> None:
    """What a stream cannot show is written as Python escapes it (`\\u4e2d`); one that is closed reads
    and writes nothing."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened gets the number, and what libraries print
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (to the end of the process)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hush() -> None:
    """Nothing more is written where nobody reads: else the interpreter complains of it as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):  # in a notebook or a test a stream has no number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
