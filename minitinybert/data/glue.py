"""GLUE's tasks and files, and files of one's own.

GLUE's fields are raw: a tab ends a field, a quote is a character like any other. Columns are found by the header's names where there
is a header, else by place (the positions of GLUE's official files).
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError


class Column(NamedTuple):
    """A column by its name in the header, or by its place (0-based, −1 the last) where there is none of that name."""

    name: str
    place: int | None


@dataclass(frozen=True)
class Task:
    name: str
    text_columns: tuple[Column, ...]  # one, or two for pairs
    label_column: Column
    labels: tuple[str, ...] | None  # in order: class i is labels[i]; None: a number (regression)
    metrics: tuple[str, ...]  # the first decides which model is best
    files: Mapping[str, str]  # split -> the file's name without its ending
    header: bool = True
    skip_short_rows: bool = False
    leaderboard: str = ""  # the file's name in a submission

    @property
    def main_metric(self) -> str:
        return self.metrics[0]

    @property
    def dev_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.files if split.startswith("dev"))

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.files if split.startswith("test"))


@dataclass(frozen=True)
class Examples:
    """One file's examples. labels: (n,) int64 classes in the task's order, or float64 numbers; None where the file has none."""

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray | None
    rows: list[int]  # the line of the file each stands on, from 1
    path: Path

    def __len__(self) -> int:
        return len(self.texts)


_SPLITS = {"train": "train", "dev": "dev", "test": "test"}
_MNLI = {
    "train": "train", "dev_matched": "dev_matched", "dev_mismatched": "dev_mismatched",
    "test_matched": "test_matched", "test_mismatched": "test_mismatched",
}  # fmt: skip


def _task(name, texts, label, labels, metrics, board, files=_SPLITS, **more) -> Task:
    return Task(name, tuple(Column(*c) for c in texts), Column(*label), labels, metrics, files, leaderboard=board, **more)


_ENTAILMENT = ("entailment", "not_entailment")
_01 = ("0", "1")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("cola", [("sentence", 3)], ("label", 1), _01, ("matthews_correlation",), "CoLA", header=False),
        _task("sst-2", [("sentence", 0)], ("label", 1), _01, ("accuracy",), "SST-2"),
        _task("mrpc", [("#1 String", 3), ("#2 String", 4)], ("Quality", 0), _01, ("accuracy", "f1"), "MRPC"),
        _task("sts-b", [("sentence1", 7), ("sentence2", 8)], ("score", -1), None, ("pearson", "spearman"), "STS-B"),
        _task("qqp", [("question1", 3), ("question2", 4)], ("is_duplicate", 5), _01, ("accuracy", "f1"), "QQP", skip_short_rows=True),
        _task(
            "mnli",
            [("sentence1", 8), ("sentence2", 9)],
            ("gold_label", -1),
            ("contradiction", "entailment", "neutral"),
            ("accuracy",),
            "MNLI",
            _MNLI,
        ),  # fmt: skip
        _task("qnli", [("question", 1), ("sentence", 2)], ("label", -1), _ENTAILMENT, ("accuracy",), "QNLI"),
        _task("rte", [("sentence1", 1), ("sentence2", 2)], ("label", -1), _ENTAILMENT, ("accuracy",), "RTE"),
        _task("wnli", [("sentence1", 1), ("sentence2", 2)], ("label", -1), _01, ("accuracy",), "WNLI"),
    )
}
_ENDINGS = (".tsv", ".csv", ".jsonl", ".parquet")


# -------------------------------------------------------------------------------------------------------------------- reading


class Table(NamedTuple):
    """A file's rows as they are read: the header (None where there is none) and (line, fields)."""

    path: Path
    header: list[str] | None
    rows: Iterator[tuple[int, list[Any]]]


def read_split(task: Task, directory: Path, split: str) -> Examples:
    """The examples of one split. Labels are None where the file has no such column (GLUE's test files).

    InputError names file and line of a row with too few columns, an unknown label, a number that is none, or bad UTF-8; and says
    what was looked for where there is no file.
    """
    # CoLA's train and dev files have no header; every test file has one.
    table = _open(_find(task, Path(directory), split), header=task.header or split.startswith("test"))
    texts, label = _places(task, table, split)
    columns: list[list[str]] = [[] for _ in texts]
    labels: list[Any] = []
    lines: list[int] = []
    width = max(place for place in (*texts, label or 0)) + 1
    for line, fields in table.rows:
        if len(fields) < width or (label is not None and label < 0 and len(fields) < width + 1):
            if task.skip_short_rows:
                continue
            raise InputError(f"{table.path}, line {line}: {len(fields)} columns, where {task.name} has at least {width}")
        for column, place in zip(columns, texts, strict=True):
            column.append(str(fields[place]))
        if label is not None:
            labels.append(_label(task, fields[label], table.path, line))
        lines.append(line)
    if not lines:
        raise InputError(f"{table.path}: no examples in it")
    kind = np.float64 if task.labels is None else np.int64
    return Examples(columns[0], columns[1] if len(columns) > 1 else None, np.array(labels, kind) if labels else None, lines, table.path)


def _find(task: Task, directory: Path, split: str) -> Path:
    if split not in task.files:
        raise InputError(f"split {split!r}: task {task.name} has {', '.join(task.files)}")
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; --data is the directory of the task's files")
    for ending in _ENDINGS:
        path = directory / (task.files[split] + ending)
        if path.is_file():
            return path
    raise InputError(f"{directory}: no {task.files[split]}{{{','.join(_ENDINGS)}}} in it")


def _open(path: Path, header: bool) -> Table:
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".jsonl":
        return _json_lines(path)
    rows = _csv_rows(path) if path.suffix == ".csv" else ((n, line.split("\t")) for n, line in _lines(path))
    if not header:
        return Table(path, None, rows)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: the file is empty")
    return Table(path, [name.strip() for name in first[1]], rows)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
            if line.strip():
                yield number, line


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line + "\n" for _, line in _lines(path)), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _json_lines(path: Path) -> Table:
    header: list[str] = []

    def rows() -> Iterator[tuple[int, list[Any]]]:
        for number, line in _lines(path):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: a JSON object is needed on every line")
            if not header:
                header.extend(row)
            missing = [name for name in header if name not in row]
            if missing:
                raise InputError(f"{path}, line {number}: no {missing[0]!r}, which the first line has")
            yield number, [row[name] for name in header]

    iterator = rows()
    first = next(iterator, None)
    if first is None:
        raise InputError(f"{path}: the file is empty")

    def all_rows() -> Iterator[tuple[int, list[Any]]]:
        yield first
        yield from iterator

    return Table(path, header, all_rows())


def _parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: pip install pyarrow to read Parquet, or give TSV, CSV or JSONL") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:
        raise InputError(f"{path}: not a Parquet file ({error})") from None
    columns = [column.to_pylist() for column in table.columns]
    return Table(path, list(table.column_names), ((i, list(row)) for i, row in enumerate(zip(*columns, strict=True), 1)))


def _places(task: Task, table: Table, split: str) -> tuple[list[int], int | None]:
    """Where in a row the texts and the label (None: there is no such column) stand."""
    test = split.startswith("test")
    if table.header is None:
        return [column.place for column in task.text_columns], task.label_column.place  # type: ignore[misc]
    texts = [_find_column(column, table, required=True) for column in task.text_columns]
    return texts, _find_column(task.label_column, table, required=not test)  # type: ignore[return-value]


def _find_column(column: Column, table: Table, required: bool) -> int | None:
    header = table.header or []
    if column.name in header:
        return header.index(column.name)
    if required and column.place is not None and table.path.suffix == ".tsv" and len(header) > column.place:
        return column.place
    if required:
        raise InputError(f"{table.path}: no column {column.name!r}; the header has {', '.join(header)}")
    return None


def _label(task: Task, value: Any, path: Path, line: int) -> int | float:
    text = str(value).strip()
    if task.labels is None:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{path}, line {line}: score {text!r} is not a number")
        return number
    if text not in task.labels:
        raise InputError(f"{path}, line {line}: label {text!r}; task {task.name} has {', '.join(task.labels)}")
    return task.labels.index(text)


# --------------------------------------------------------------------------------------------------------------- own data


def custom_task(directory: Path, text_columns: Sequence[str], label_column: str) -> Task:
    """A task on files of one's own, train.* and dev.* (and test.*) as TSV, CSV, JSONL or Parquet with named columns.

    The labels are those of the training file: whole numbers in their order, other text in alphabetical order; numbers with decimals
    make it a regression. InputError where there are fewer than two labels, or one or two text columns are not named.
    """
    if not 1 <= len(text_columns) <= 2:
        raise InputError(f"--text-columns {','.join(text_columns)}: one column, or two for pairs")
    texts = tuple(Column(name, None) for name in text_columns)
    task = Task("custom", texts, Column(label_column, None), (), ("accuracy",), _SPLITS, leaderboard="custom")
    table = _open(_find(task, Path(directory), "train"), header=True)
    place = _find_column(task.label_column, table, required=True)
    values = {str(fields[place]).strip() for _, fields in table.rows if len(fields) > place}  # type: ignore[operator,index]
    if values and all(_is_number(v) for v in values) and not all(v.lstrip("-").isdigit() for v in values):
        return replace(task, labels=None, metrics=("pearson", "spearman"))
    if len(values) < 2:
        raise InputError(f"{table.path}: column {label_column!r} holds {len(values)} different labels; at least two are needed")
    whole = all(v.lstrip("-").isdigit() for v in values)
    return replace(task, labels=tuple(sorted(values, key=int if whole else str)))  # type: ignore[arg-type]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


# ------------------------------------------------------------------------------------------------------------- label orders


def label_order(task: Task, id2label: Mapping[int, str]) -> list[int]:
    """For each of the task's labels, in order, the model's output that says it. Names decide (case apart); LABEL_0 … mean the order.

    InputError where the names are others. An MNLI model from elsewhere often has another order.
    """
    assert task.labels is not None
    names = [id2label[i].lower() for i in sorted(id2label)]
    if all(name == f"label_{i}" for i, name in enumerate(names)):
        return list(range(len(task.labels)))
    if sorted(names) != sorted(label.lower() for label in task.labels):
        raise InputError(f"the model's labels are {', '.join(names)}, those of task {task.name} {', '.join(task.labels)}")
    return [names.index(label.lower()) for label in task.labels]


# -------------------------------------------------------------------------------------------------------------------- writing


def write_examples(path: Path, task: Task, examples: Examples) -> None:
    """A .tsv that `read_split` reads back, in the task's own layout; written beside, then renamed."""
    assert examples.labels is not None
    width = 1 + max(column.place if column.place is not None else i for i, column in enumerate((*task.text_columns, task.label_column)))
    beside = path.with_name(path.name + ".partial")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        for row in _layout_rows(task, examples, max(width, 2)):
            file.write("\t".join(row) + "\n")
    os.replace(beside, path)


def _layout_rows(task: Task, examples: Examples, width: int) -> Iterator[list[str]]:
    places = [c.place if c.place is not None else i for i, c in enumerate(task.text_columns)]
    at = task.label_column.place
    at = len(places) if at is None else at
    width = width + 1 if at < 0 else max(width, at + 1)
    if task.header:
        header = [f"column{i}" for i in range(width)]
        for place, column in zip((*places, at), (*task.text_columns, task.label_column), strict=True):
            header[place] = column.name
        yield header
    for i, text in enumerate(examples.texts):
        row = [str(i)] * width
        for place, value in zip(places, (text, examples.pairs[i] if examples.pairs else ""), strict=False):
            row[place] = " ".join(value.replace("\t", " ").splitlines())
        label = examples.labels[i]  # type: ignore[index]
        row[at] = repr(float(label)) if task.labels is None else task.labels[int(label)]
        yield row


def write_predictions(path: Path, task: Task, predictions: np.ndarray) -> None:
    """GLUE's leaderboard file: index and prediction, label names for classes, STS-B's numbers within 0 … 5."""
    if task.labels is None:
        shown = [f"{min(max(float(p), 0.0), 5.0) if task.name == 'sts-b' else float(p):.3f}" for p in predictions]
    else:
        shown = [task.labels[int(p)] for p in predictions]
    beside = path.with_name(path.name + ".partial")
    beside.write_text("index\tprediction\n" + "".join(f"{i}\t{p}\n" for i, p in enumerate(shown)), encoding="utf-8")
    os.replace(beside, path)
