"""What a field of a row says, as a text or as a label: one rule for every format.

A TSV's or CSV's fields are strings; those of JSON and Parquet have types of their own.

as a text     a string is itself, the empty one too; bytes are UTF-8; a number is its digits
as a label    the same without outer white space; a whole number is its digits, so that "1", "1.0",
              1 and 1.0 are one label; true and false are True and False, as pandas writes them
no value      null, NaN, what a row lacks. As a label also the empty string, "nan", and `-`, where
              SNLI's annotators did not agree: no gold label
neither       lists, dicts and others of several values, also as text ("['joy', 'fear']"): data of
              several labels a text, each combination of which would become a class

A label that the task knows by name is that label, whatever it looks like.
"""

from __future__ import annotations

import ast
import datetime
import json
import re
from collections.abc import Collection
from decimal import Decimal
from typing import Any

_SINGLE = (str, bytes, bool, int, float, Decimal, datetime.date, datetime.time, datetime.timedelta)
_NO_GOLD = ("", "-", "nan")  # in lower case


def text(value: Any) -> str | None:
    """The field as a text; None where there is no value. ValueError, which says what there is, for
    what is neither."""
    if value is None or value != value:  # NaN alone is not itself
        return None
    if not isinstance(value, _SINGLE):
        raise ValueError(_several(value))
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return str(value)


def label(value: Any, known: Collection[str] = ()) -> str:
    """The field as a label, one of `known` where it is; "" where there is no gold label. ValueError
    as for a text."""
    found = re.sub(r"^(-?[0-9]+)\.0+$", r"\1", (text(value) or "").strip())
    if found in known:
        return found
    if found.startswith(("[", "{", "(")) and (read := _literal(found)) is not None:
        raise ValueError(_several(read))
    return "" if found.lower() in _NO_GOLD else found


def _literal(found: str) -> Any:
    """What a list, dict … that Python or JSON wrote as text holds; None where it is none."""
    for parse in (ast.literal_eval, json.loads):
        try:
            read = parse(found)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return None if isinstance(read, _SINGLE) else read
    return None


def _several(value: Any) -> str:
    shown = repr(value)
    return f"a {type(value).__name__}, {shown if len(shown) <= 60 else shown[:60] + '…'}"
