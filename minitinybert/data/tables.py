"""Files of rows, read lazily with line numbers: TSV as GLUE writes it, CSV with quoting, JSON
lines, Parquet.

A TSV's fields are raw: a tab ends a field, a quote is a character like any other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from .. import extras
from ..errors import InputError
from ..files import parse_json
from .text import read_lines

ENDINGS = (".tsv", ".csv", ".jsonl", ".parquet")
_RETURN = "\udc0d"
csv.field_size_limit((1 << 31) - 1)  # a document is a field; without this 131,072 characters are the most


class Table(NamedTuple):
    path: Path
    header: list[str] | None  # None where the file has none
    rows: Iterator[tuple[int, list[Any]]]  # (line, fields); a field of JSON or Parquet has that format's type


def open_table(path: Path, header: bool = True, counted: bool = False) -> Table:
    """The rows of a file, by its ending. `header`: a TSV's or CSV's first row holds the names (JSON
    and Parquet bring theirs). `counted`: rows have numbers elsewhere, so that none may be lost: in
    a TSV white space is a row too.

    InputError for another ending, and here or as rows are read, with file and line: an empty file, bad UTF-8, a row that
    is not of the format; of a TSV or CSV that is counted, an empty line between rows.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path}: not a kind of file that is read: {', '.join(ENDINGS)}")
    if ending == ".parquet":
        return _parquet(path)
    if ending == ".jsonl":
        return _json_lines(path)
    rows = _without_empty(path, _csv_rows(path) if ending == ".csv" else _tsv_rows(path, counted), counted)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: the file is empty")
    if header:
        return Table(path, [name.strip() for name in first[1]], rows)
    return Table(path, None, chain([first], rows))


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
    for number, line in read_lines(path):
        yield number, line.split("\t") if (line if spaces else line.strip()) else []


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """A row's number is that of its last line: a quoted field may hold line ends. An empty line has
    no fields."""
    # A carriage return is text, but ends a row for the csv module: it is shown a character instead that no UTF-8 holds.
    reader = csv.reader((line.replace("\r", _RETURN) + "\n" for _, line in read_lines(path)), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, [field.replace(_RETURN, "\r") for field in fields]
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
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a JSON object is needed on every line")
        yield number, row


def _parquet(path: Path) -> Table:
    try:
        table = read_parquet(path)
        columns = [column.to_pylist() for column in table.columns]
    except InputError:
        raise
    except Exception as error:  # a damaged file may end in any error of pyarrow's, or of the values' types
        raise InputError(f"{path}: not a Parquet file, or damaged ({error})") from None
    return Table(path, list(table.column_names), ((i, list(row)) for i, row in enumerate(zip(*columns, strict=True), 1)))


def read_parquet(path: Path, data: bytes | None = None) -> Any:
    """The table (pyarrow.Table) in a Parquet file, or in `data`, which is of `path`. InputError where
    pyarrow is not installed; whatever pyarrow raises for a damaged file."""
    check_parquet(path)
    import pyarrow.parquet  # here, as it takes half a second to come

    return pyarrow.parquet.ParquetFile(path if data is None else pyarrow.BufferReader(data)).read()


def check_parquet(what: object) -> None:
    """InputError where pyarrow, which reads `what`, is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(f"{what}: Parquet is read by pyarrow, which is not here ({error}); {extras.hint('pyarrow')}") from None
