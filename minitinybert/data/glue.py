"""GLUE's tasks and files, and files of one's own.

Columns are found by their names in the header, GLUE's own or, next, those of the Hugging Face hub's
copy of it. Where the header has neither, or the file no header, a .tsv's columns are found by place
(the positions of GLUE's official files).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import replacing
from ..progress import log
from . import fields
from .parts import ALL, PARTS, Parts, deal
from .tables import ENDINGS, Table, open_table


class Column(NamedTuple):
    """A column by its name in the header, or by its place (0-based, −1 the last) where there is
    none of that name. hub: its name on the Hugging Face hub, where that is another. test: its name
    in GLUE's own test file, where that is another."""

    name: str
    place: int | None
    hub: str = ""
    test: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *filter(None, (self.test, self.hub)))


@dataclass(frozen=True)
class Task:
    name: str
    text_columns: tuple[Column, ...]  # one, or two for pairs
    label_column: Column
    labels: tuple[str, ...] | None  # in order: class i is labels[i]; None: a number (regression)
    metrics: tuple[str, ...]  # the first decides which model is best
    files: Mapping[str, str]  # split -> the file's name without its ending
    header: bool = True
    short_rows: bool = False  # the files have rows that lack columns
    leaderboard: str = ""  # the file's name in a submission
    unlabelled: Literal["refuse", "drop", "ignore"] = "refuse"  # rows without a gold label; ignore: labels are not read
    numbered: bool = False  # a file may say a label's number, from 0, in place of its name
    parts: Parts | None = None  # of one file that holds all splits; None: a file each, or one that is a split as it is
    head: ClassVar[str] = "classifier"  # of a model that answers it
    max_length: ClassVar[int] = 128  # word pieces that a text, or a pair, is cut to where nobody says

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
    """One file's examples. labels: (n,) int64 classes in the task's order, or float64 numbers; None
    where the file has none."""

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
_NLI = ("contradiction", "entailment", "neutral")
_01 = ("0", "1")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("cola", [("sentence", 3)], ("label", 1), _01, ("matthews_correlation",), "CoLA", header=False),
        _task("sst-2", [("sentence", 0)], ("label", 1), _01, ("accuracy",), "SST-2"),
        _task(
            "mrpc",
            [("#1 String", 3, "sentence1"), ("#2 String", 4, "sentence2")],
            ("Quality", 0, "label"),
            _01,
            ("accuracy", "f1"),
            "MRPC",
        ),
        _task("sts-b", [("sentence1", 7), ("sentence2", 8)], ("score", -1, "label"), None, ("pearson", "spearman"), "STS-B"),
        _task(
            "qqp",
            [("question1", 3), ("question2", 4)],
            ("is_duplicate", 5, "label"),
            _01,
            ("accuracy", "f1"),
            "QQP",
            short_rows=True,
        ),
        _task(
            "mnli",
            [("sentence1", 8, "premise"), ("sentence2", 9, "hypothesis")],
            ("gold_label", -1, "label"),
            _NLI,
            ("accuracy",),
            "MNLI",
            _MNLI,
        ),
        _task("qnli", [("question", 1), ("sentence", 2)], ("label", -1), _ENTAILMENT, ("accuracy",), "QNLI"),
        _task("rte", [("sentence1", 1), ("sentence2", 2)], ("label", -1), _ENTAILMENT, ("accuracy",), "RTE"),
        _task("wnli", [("sentence1", 1), ("sentence2", 2)], ("label", -1), _01, ("accuracy",), "WNLI"),
        _task(
            "ax",  # GLUE's diagnostics, which a model of MNLI answers: nothing is trained on them
            [("Premise", 5, "premise", "sentence1"), ("Hypothesis", 6, "hypothesis", "sentence2")],
            ("Label", 7, "label"),
            _NLI,
            ("matthews_correlation",),
            "AX",
            {"dev": "diagnostic-full", "test": "AX"},
        ),
    )
}

# On the hub a class is a number, and this its name.
_HUB_NLI = ("entailment", "neutral", "contradiction")
_HUB_LABELS: dict[str, tuple[str, ...]] = {
    "cola": ("unacceptable", "acceptable"),
    "sst-2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "mnli": _HUB_NLI,
    "ax": _HUB_NLI,
    "qnli": _ENTAILMENT,
    "rte": _ENTAILMENT,
    "wnli": ("not_entailment", "entailment"),
}


# -------------------------------------------------------------------------------------------------------------------- reading


def read_split(task: Task, directory: Path, split: str) -> Examples:
    """The examples of one split: those of its file in `directory`, or, where that is a file, of a
    part of its rows (parts.py), or all of them (ALL, or where labels are ignored).

    Labels are None where a test file has no such column (GLUE's have none) or says −1 in every row,
    as the hub's do. Every row of a test file is an example, since a leaderboard goes by their numbers.

    Rows without a gold label are as task.unlabelled says. What a field is, as a text or as a label:
    fields.py. InputError names file and line of a row with too few or too many columns, an unknown
    label, a number that is none, no text, or bad UTF-8; and says what was looked for where there is
    no file.
    """
    if (path := Path(directory)).is_file():
        return _read_part(task, path, split)
    return _read(task, find_file(task, path, split), split.startswith("test"))


def part_sizes(task: Task, path: Path) -> dict[str, int]:
    """How many rows of one file each part has."""
    whole = _read(task, path, test=False)
    return dict(zip(PARTS, np.bincount(_dealt(task, whole), minlength=len(PARTS)).tolist(), strict=True))


def _dealt(task: Task, whole: Examples) -> np.ndarray:
    assert task.parts is not None and whole.labels is not None
    texts = list(zip(whole.texts, *([] if whole.pairs is None else [whole.pairs]), strict=True))
    return deal(texts, whole.labels, task.parts.seed, whole.path)


def _read_part(task: Task, path: Path, split: str) -> Examples:
    whole = _read(task, path, test=task.unlabelled == "ignore", tell=split == ALL)
    if split == ALL or whole.labels is None:
        return whole
    if split not in PARTS:
        raise InputError(f"split {split!r}: one file has {', '.join((*PARTS, ALL))}")
    if task.parts is None:
        raise InputError(f"{path}: one file, and no model that knows its parts; split {ALL!r} is all of it")
    chosen = np.flatnonzero(_dealt(task, whole) == PARTS.index(split))
    only = lambda values: [values[i] for i in chosen]
    pairs = None if whole.pairs is None else only(whole.pairs)
    return Examples(only(whole.texts), pairs, whole.labels[chosen], only(whole.rows), path)


def _read(task: Task, path: Path, test: bool, tell: bool = True) -> Examples:
    # CoLA's train and dev files have no header; every test file has one.
    table = open_table(path, header=task.header or test, counted=test)
    texts, label = _places(task, table, test)
    rows = list(_whole_rows(task, table, texts, label, test))
    labels = None
    if label is not None and not (test and _all_secret(task, [row[label] for _, row in rows])):
        rows, labels = _labels(task, table, texts, label, rows, tell)
    if not rows:
        raise InputError(f"{table.path}: no examples in it")
    columns = [[text_of(row[place], "the text", table.path, line) for line, row in rows] for place in texts]
    lines = [line for line, _ in rows]
    if tell and not test:  # there, rows are numbers that need an answer, whatever they hold
        _tell_blank(table.path, columns, lines)
    return Examples(columns[0], columns[1] if len(columns) > 1 else None, labels, lines, table.path)


def find_file(task: Task, directory: Path, split: str, endings: Sequence[str] = ENDINGS) -> Path:
    """A split's file, by the name that the task gives it, or else the split's own, and one of
    `endings`."""
    if split not in task.files:
        raise InputError(f"split {split!r}: task {task.name} has {', '.join(task.files)}")
    if not directory.is_dir():
        raise InputError(f"{directory}: no such file or directory; --data is the directory of the task's files, or one file of examples")
    names = dict.fromkeys((task.files[split], split))
    found = [path for name in names for ending in endings if (path := directory / (name + ending)).is_file()]
    if len(found) > 1:
        raise InputError(f"{directory}: holds {' and '.join(path.name for path in found)}; keep the one that is meant")
    if found:
        return found[0]
    raise InputError(f"{directory}: no {' or '.join(names)}{{{','.join(endings)}}} in it")


def _places(task: Task, table: Table, test: bool) -> tuple[list[int], int | None]:
    """Where in a row the texts and the label (None: a test file without) stand."""
    if table.header is None:
        return [_known(column) for column in task.text_columns], _known(task.label_column)
    # A test file's columns stand elsewhere (an index comes first), so that only their names count.
    texts = [_find_column(column, table, by_place=not test) for column in task.text_columns]
    if test and (task.unlabelled == "ignore" or not set(task.label_column.names) & set(table.header)):
        return texts, None
    label = _find_column(task.label_column, table)
    title = table.header[label]
    if title not in task.label_column.names and (math.isfinite(_number(title)) if task.labels is None else title in task.labels):
        raise InputError(f"{table.path}, line 1: an example, where the names of the columns belong; add a line with them")
    return texts, label


def _known(column: Column) -> int:
    assert column.place is not None  # only GLUE's tasks have files without a header
    return column.place


def _find_column(column: Column, table: Table, by_place: bool = True) -> int:
    header = table.header or []
    for name in column.names:
        if name in header:
            return header.index(name)
    if by_place and column.place is not None and table.path.suffix == ".tsv" and len(header) > column.place:
        return column.place % len(header)
    raise InputError(f"{table.path}: no column {' or '.join(map(repr, column.names))}; the header has {', '.join(header)}")


def _whole_rows(task: Task, table: Table, texts: list[int], label: int | None, test: bool = False) -> Iterator[tuple[int, list[Any]]]:
    """Rows as wide as the header. Without labels, columns after the texts do not matter. QQP has
    short rows: what they lack is empty in a test file; elsewhere they are left out."""
    needed = max([*texts, label or 0]) + 1
    width = len(table.header) if table.header is not None else needed
    short = 0
    for line, row in table.rows:
        if len(row) == width or (label is None and len(row) >= needed):
            yield line, row
        elif task.short_rows and len(row) < width:
            short += 1
            if test:
                yield line, row + [""] * (width - len(row))
        else:
            raise InputError(f"{table.path}, line {line}: {len(row)} columns, where {width} belong")
    if short:
        done = "; what they lack is empty" if test else " are left out"
        log(f"warning: {table.path}: {short} rows with fewer than {width} columns{done}")


def text_of(value: Any, what: str, path: Path, line: int) -> str:
    """A field that has to be a string. InputError, which calls it `what`, for anything else."""
    try:
        found = fields.text(value)
    except ValueError as error:
        raise InputError(f"{path}, line {line}: {what} is {error}; a string is needed") from None
    if found is None:
        raise InputError(f"{path}, line {line}: {what} is {value!r}; a string is needed")
    return found


def _tell_blank(path: Path, columns: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
    blank = [line for *texts, line in zip(*columns, lines, strict=True) if not all(text.strip() for text in texts)]
    if blank:
        log(f"warning: {path}: a text is blank in {len(blank)} of {len(lines)} rows, line {blank[0]} the first; it is read as it is")


# ------------------------------------------------------------------------------------------------------------------------ labels

_Rows = list[tuple[int, list[Any]]]


def _all_secret(task: Task, values: Sequence[Any]) -> bool:
    """The hub's test files say −1 in every row."""
    return "-1" not in (task.labels or ()) and all(isinstance(v, (str, int, float)) and fields.label(v) == "-1" for v in values)


def _labels(task: Task, table: Table, texts: list[int], label: int, rows: _Rows, tell: bool) -> tuple[_Rows, np.ndarray]:
    """The rows that have a label, and the labels: (n,) int64 classes in the task's order, or float64
    numbers."""
    numbers = _hub_numbers(task, table, texts, label)
    found = [_label(task, row[label], numbers, table.path, line) for line, row in rows]
    kept = [i for i, y in enumerate(found) if y is not None]
    if tell and len(kept) < len(rows):
        log(f"{table.path}: {len(rows) - len(kept)} of {len(rows)} rows have no gold label and are left out")
    labels = np.array([found[i] for i in kept], np.float64 if task.labels is None else np.int64)
    return [rows[i] for i in kept], labels


def _hub_numbers(task: Task, table: Table, texts: list[int], label: int) -> list[str]:
    """For each of the task's labels the number that means it in this table; none where it is not
    the hub's."""
    names = [column.names[-1] for column in (*task.text_columns, task.label_column)]
    if task.name not in _HUB_LABELS or table.header is None or [table.header[i] for i in (*texts, label)] != names:
        return []
    return [str(number) for number in label_order(task, dict(enumerate(_HUB_LABELS[task.name])))]


def _label(task: Task, value: Any, hub_numbers: Sequence[str], path: Path, line: int) -> int | float | None:
    """None where there is no gold label and such rows are left out. On the hub −1 says so too."""
    text = _label_text(value, path, line, task.labels or ())
    if text in hub_numbers and not isinstance(value, str):  # in a TSV or CSV all is text
        return hub_numbers.index(text)
    if task.labels is not None and text in task.labels:
        return task.labels.index(text)
    if task.labels is not None and task.numbered and re.fullmatch("[0-9]{1,6}", text) and int(text) < len(task.labels):
        return int(text)
    if task.labels is None and math.isfinite(number := _number(text)):
        return number
    missing = text == "" or (text == "-1" and task.labels is not None)
    if missing and task.unlabelled == "drop":
        return None
    shown = "" if value is None else str(value).strip()
    wrong = f"label {shown!r}; task {task.name} has {', '.join(task.labels)}" if task.labels else f"score {shown!r} is not a number"
    raise InputError(f"{path}, line {line}: {wrong}{_OUT if missing else ''}")


_OUT = "; --drop-unlabelled leaves rows without a gold label out"


def _label_text(value: Any, path: Path, line: int, known: Sequence[str] = ()) -> str:
    try:
        return fields.label(value, known)
    except ValueError as error:
        raise InputError(f"{path}, line {line}: the label is {error}; one label a text is needed, not several") from None


def _number(text: str) -> float:
    """NaN for what is none."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


# --------------------------------------------------------------------------------------------------------------- own data

_SHOWN = 30  # labels that are told with their counts


def custom_task(
    directory: Path,
    text_columns: Sequence[str],
    label_column: str,
    labels: Sequence[str] | None = None,
    regression: bool | None = None,
    unlabelled: Literal["refuse", "drop", "ignore"] = "refuse",
    numbered: bool = False,
) -> Task:
    """A task on files of one's own, train.* and dev.* (and test.*) as TSV, CSV, JSONL or Parquet
    with named columns; or on one such file.

    `labels` and `regression` decide where they are given; `numbered`: a file may say their numbers,
    where no label is a number itself. Else the labels are those of the training
    file, which are told: whole numbers in their order, other text in alphabetical order; numbers
    with decimals make it a regression. InputError where there are fewer than two labels, a row has
    none (but for `unlabelled`), numbers with decimals stand among other text, or not one or two text
    columns are named.
    """
    if not 1 <= len(text_columns) <= 2:
        raise InputError(f"--text-columns {','.join(text_columns)}: one column, or two for pairs")
    texts = tuple(Column(name, None) for name in text_columns)
    measures = ("pearson", "spearman")
    task = Task("custom", texts, Column(label_column, None), None, measures, _SPLITS, leaderboard="custom", unlabelled=unlabelled)
    if regression:
        return task
    found = labels or _labels_in(task, Path(directory), regression is None)
    if found is None:
        return task
    numbered = numbered and not any(math.isfinite(_number(label)) for label in found)
    return replace(task, labels=tuple(found), metrics=("accuracy",), numbered=numbered)


def _labels_in(task: Task, directory: Path, may_be_numbers: bool) -> list[str] | None:
    """The training file's labels in order; None where they are numbers with decimals."""
    table = open_table(directory if directory.is_file() else find_file(task, directory, "train"))
    place, name = _find_column(task.label_column, table), task.label_column.name
    lines: dict[str, int] = {}  # where each label stands first
    counts = Counter[str]()
    for line, row in _whole_rows(task, table, [], place):
        text = _label_text(row[place], table.path, line)
        lines.setdefault(text, line)
        counts[text] += 1
    if "" in lines and task.unlabelled != "drop":
        raise InputError(f"{table.path}, line {lines['']}: no label in column {name!r}{_OUT}, --labels says that `-` is one")
    lines.pop("", None)
    whole = all(re.fullmatch("-?[0-9]{1,300}", text) for text in lines)  # what int() takes
    numbers = {text: math.isfinite(_number(text)) for text in lines}
    if may_be_numbers and not whole and any(numbers[text] and not _number(text).is_integer() for text in lines):
        odd = next((text for text in lines if not numbers[text]), None)
        if odd is not None:
            raise InputError(f"{table.path}, line {lines[odd]}: {odd!r} in column {name!r}, which has numbers with decimals elsewhere")
        log(f"{table.path}: column {name!r} holds numbers with decimals, which makes it a regression")
        return None
    if len(lines) < 2:
        raise InputError(f"{table.path}: column {name!r} holds {len(lines)} different labels; at least two are needed")
    found = sorted(lines, key=int) if whole else sorted(lines)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    log(f"{table.path}: {len(found)} labels: {', '.join(f'{text!r} {counts[text]}' for text in found[:_SHOWN])}{more}")
    return found


# ------------------------------------------------------------------------------------------------------------- label orders


def label_order(task: Task, id2label: Mapping[int, str]) -> list[int]:
    """For each of the task's labels, in order, the model's output that says it. Names decide, the
    task's or what the hub calls its numbers: as they are written, else in lower case where no two
    are the same so; LABEL_0 … mean the order.

    InputError where the names are others. An MNLI model from elsewhere often has another order.
    """
    assert task.labels is not None
    names = [id2label[i] for i in sorted(id2label)]
    spellings: tuple[Callable[[str], str], ...] = (str, str.lower)
    for wanted in (task.labels, label_names(task)):
        for spelling in spellings:
            said, asked = [spelling(name) for name in names], [spelling(label) for label in wanted]
            if sorted(said) == sorted(asked) and len(set(asked)) == len(asked):
                return [said.index(label) for label in asked]
    if [name.lower() for name in names] == [f"label_{i}" for i in range(len(task.labels))]:
        return list(range(len(task.labels)))
    raise InputError(
        f"the model's labels are {', '.join(names)}, those of task {task.name} {', '.join(task.labels)}; "
        "name them so under id2label in its config.json"
    )


def label_names(task: Task) -> list[str]:
    """The task's labels in order, as a model names its outputs; what the hub calls them where they
    are numbers. Of a regression "score"."""
    if task.labels is None:
        return ["score"]
    hub = _HUB_LABELS.get(task.name, ())
    return [hub[int(label)] if hub and label.isdigit() else label for label in task.labels]


# -------------------------------------------------------------------------------------------------------------------- writing

ENDS = str.maketrans("\t\n\r", "   ")  # what a raw TSV cannot hold in a field


def write_examples(path: Path, task: Task, examples: Examples) -> None:
    """A .tsv of a training file that `read_split` reads back, in the task's own layout; tabs and
    line ends in texts become spaces."""
    assert examples.labels is not None
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for row in _layout_rows(task, examples):
            file.write("\t".join(row) + "\n")


def _layout_rows(task: Task, examples: Examples) -> Iterator[list[str]]:
    """Texts and label in their places; columns that nobody reads hold the example's number."""
    places = [i if column.place is None else column.place for i, column in enumerate((*task.text_columns, task.label_column))]
    width = max(places) + 1 + (places[-1] < 0)
    if task.header:
        header = [f"column{i}" for i in range(width)]
        for place, column in zip(places, (*task.text_columns, task.label_column), strict=True):
            header[place] = column.name
        yield header
    labels = [repr(float(y)) if task.labels is None else task.labels[int(y)] for y in examples.labels]  # type: ignore[union-attr]
    texts = [examples.texts] if examples.pairs is None else [examples.texts, examples.pairs]
    for i, values in enumerate(zip(*texts, labels, strict=True)):
        row = [str(i)] * width
        for place, value in zip(places, values, strict=True):
            row[place] = value.translate(ENDS)
        yield row


def write_predictions(path: Path, task: Task, predictions: np.ndarray) -> None:
    """GLUE's leaderboard file: index and prediction, label names for classes, STS-B's numbers
    within 0 … 5."""
    if task.labels is None:
        shown = [f"{min(max(float(p), 0.0), 5.0) if task.name == 'sts-b' else float(p):.3f}" for p in predictions]
    else:
        shown = [task.labels[int(p)] for p in predictions]
    with replacing(path) as beside:
        lines = "".join(f"{i}\t{answer}\n" for i, answer in enumerate(shown))
        beside.write_text("index\tprediction\n" + lines, encoding="utf-8", newline="\n")
