"""Files of rows, read lazily with line numbers: TSV as GLUE writes it, CSV with quoting, JSON
lines, Parquet.

A TSV's fields are raw: a tab ends a field, a quote is a character like any other.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet

from ..errors import InputError

ENDINGS = (".tsv", ".csv", ".jsonl", ".parquet")


class Table(NamedTuple):
    path: Path
    header: list[str] | None  # None where the file has none
    rows: Iterator[tuple[int, list[Any]]]  # (line, fields); a field of JSON or Parquet has that format's type


def open_table(path: Path, header: bool = True, counted: bool = False) -> Table:
    """The rows of a file, by its ending. `header`: a TSV's or CSV's first row holds the names (JSON
    and Parquet bring theirs). `counted`: rows have numbers elsewhere, so that none may be lost: in
    a TSV white space is a row too.

    InputError, here or as rows are read, with file and line: an empty file, bad UTF-8, a row that
    is not of the format; of a TSV or CSV that is counted, an empty line between rows.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".jsonl":
        return _json_lines(path)
    rows = _without_empty(path, _csv_rows(path) if path.suffix == ".csv" else _tsv_rows(path, counted), counted)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: the file is empty")
    if header:
        return Table(path, [name.strip() for name in first[1]], rows)
    return Table(path, None, chain([first], rows))


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text without its end). Only a line feed ends a line: Unicode's other separators
    occur in GLUE's sentences."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
            yield number, line.rstrip("\r\n")


def _without_empty(path: Path, rows: Iterator[tuple[int, list[str]]], counted: bool) -> Iterator[tuple[int, list[str]]]:
    """Rows that have fields. Nobody can tell whether an empty line between counted ones is a row."""
    empty = 0
    for number, fields in rows:
        if not fields:
            empty = empty or number
        elif empty and counted:
            raise InputError(f"{path}, line {empty}: an empty line between rows that are counted; delete it, or write its row")
        else:
            yield number, fields


def _tsv_rows(path: Path, spaces: bool) -> Iterator[tuple[int, list[str]]]:
    """An empty line has no fields, nor, but for `spaces`, has one of white space."""
    for number, line in lines_of(path):
        yield number, line.split("\t") if (line if spaces else line.strip()) else []


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """A row's number is that of its last line: a quoted field may hold line ends. An empty line has
    no fields."""
    reader = csv.reader((line + "\n" for _, line in lines_of(path)), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _json_lines(path: Path) -> Table:
    """The first object's names are the columns; what another object lacks is None."""
    objects = _objects(path)
    first = next(objects, None)
    if first is None:
        raise InputError(f"{path}: the file is empty")
    header = list(first[1])
    return Table(path, header, ((number, [row.get(name) for name in header]) for number, row in chain([first], objects)))


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines_of(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a JSON object is needed on every line")
        yield number, row


def _parquet(path: Path) -> Table:
    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:
        raise InputError(f"{path}: not a Parquet file ({error})") from None
    columns = [column.to_pylist() for column in table.columns]
    return Table(path, list(table.column_names), ((i, list(row)) for i, row in enumerate(zip(*columns, strict=True), 1)))
