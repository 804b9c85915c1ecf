"""What the command line names: a task with its data, texts of a file, a corpus. What is not given is
as a model remembers it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError

_LEARN = ("finetune", "distill", "augment", "ablate")  # commands that learn from a task's data, or make what is learned from


def texts(args: argparse.Namespace) -> Any:
    """Of --file: the text's columns, where it is a table and these are given or remembered; else its
    lines."""
    from ..data.glue import TASKS, custom_task, read_split
    from ..data.tables import ENDINGS
    from .remembered import recall

    if args.file.suffix.lower() not in ENDINGS:
        return _lines(args.file)
    known = recall(args.model)
    columns = _names(args.text_columns) if args.text_columns else known and list(known.text_columns)
    if columns:
        task = custom_task(args.file, columns, "label", regression=True, unlabelled="ignore")
    elif known and known.task in TASKS and _has_columns(args.file, TASKS[known.task]):
        task = replace(TASKS[known.task], unlabelled="ignore")
    else:
        return _lines(args.file)
    return read_split(task, args.file, "all")


def _names(text: str) -> list[str]:
    """Of columns or labels, as the command line has them: a,b."""
    return [name.strip() for name in text.split(",")]


def _has_columns(file: Path, task: Any) -> bool:
    """Whether the first row of a file names all the texts' columns of one of GLUE's tasks."""
    from ..data.tables import open_table

    header = open_table(file).header or []
    return all(set(column.names) & set(header) for column in task.text_columns)


def _lines(file: Path) -> list[str]:
    """The texts of a file (- for standard input), one a line, blank ones too: answer n is line n's."""
    from ..data.text import numbered, read_lines
    from ..progress import log

    lines = [line for _, line in (numbered(sys.stdin.buffer, file) if str(file) == "-" else read_lines(file))]
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if len(blank) == len(lines):
        raise InputError(f"{file}: holds no text")
    if blank:
        log(f"warning: {file}: {len(blank)} of {len(lines)} lines are blank, line {blank[0]} the first; each is answered as an empty text")
    return lines


def text(args: argparse.Namespace) -> Any:
    from ..training.plan import GENERAL_LENGTH
    from .corpus import Text

    length = args.max_length or GENERAL_LENGTH
    return Text(args.corpus, length, args.pairs, not args.static, not args.plain_text, args.shards, args.processes)


def task(args: argparse.Namespace) -> Any:
    """The task of --data: what is not given is as the model, or the teacher, remembers it."""
    from ..data import glue
    from ..progress import log
    from .remembered import in_parts, recall

    model = args.teacher if args.command in ("distill", "ablate") else getattr(args, "model", None)
    known = recall(model) if model else None
    name = (args.task or ("custom" if args.text_columns else known.task if known else "")).lower()
    if not name:
        whose = f"{model} remembers none" if model else "no model remembers one"
        raise InputError(f"--task NAME is needed, or --text-columns and --label-column for data of one's own: {whose}")
    same = known if known and known.task == name else None
    recalled = same is not None and not args.task and not args.text_columns and same.drop_unlabelled  # all or nothing is said again
    unlabelled: Any = "drop" if recalled or getattr(args, "drop_unlabelled", False) else "refuse"
    if name in ("tokens", "squad"):
        if unlabelled == "drop":
            raise InputError(f"--task {name}: --drop-unlabelled is of tasks with one label a text")
        if args.command in ("augment", "ablate"):
            raise InputError(f"--task {name}: {args.command} replaces words, or compares variants, of sentences with one label alone")
        return _tokens_task(args) if name == "tokens" else questions(args)
    if name != "custom" and name not in glue.TASKS:
        raise InputError(f"--task {args.task}: choose one of {', '.join(glue.TASKS)}, tokens, squad, or custom")
    parts = _parts(args, model, same)
    task = _custom_task(args, same, unlabelled) if name == "custom" else replace(glue.TASKS[name], unlabelled=unlabelled)
    if not args.data.is_file():
        return replace(task, parts=parts)
    task = in_parts(task, parts)
    if parts and args.command in _LEARN:
        sizes = ", ".join(f"{n} {part}" for part, n in glue.part_sizes(task, args.data).items())
        log(f"{args.data}: split into {sizes} rows, of each label alike (--split-seed {parts.seed})")
    return task


def _parts(args: argparse.Namespace, model: str | None, known: Any) -> Any:
    """Of --data; None where all of a file is answered."""
    from .remembered import parts_for

    if args.command == "predict":
        return None
    whole = getattr(args, "split", None) == ["all"]
    return parts_for(args.data, known, model, getattr(args, "split_seed", None), args.command in _LEARN, whole)


def _custom_task(args: argparse.Namespace, known: Any, unlabelled: Any) -> Any:
    """Of one's own files. What a model is to answer has that model's labels; else they are the
    training file's."""
    from ..data import glue
    from .classifiers import labels_of

    answers = args.command in ("evaluate", "predict", "export")
    columns = _names(args.text_columns) if args.text_columns else known and known.text_columns
    label_column = args.label_column or (known and known.label_column)
    if not columns or not (label_column or args.command == "predict"):
        raise InputError("--task custom needs --text-columns and --label-column")
    labels = _names(args.labels) if args.labels else labels_of(args.model) if answers else None
    regression = True if args.regression or (answers and labels is None) else None
    return glue.custom_task(args.data, columns, label_column or "label", labels, regression, unlabelled, not args.labels)


def _tokens_task(args: argparse.Namespace) -> Any:
    """Words with a label each; the labels are the training file's, or those of the model that answers
    or teaches."""
    from ..data.tagging import tagging_task
    from .classifiers import labels_of

    labels = _names(args.labels) if args.labels else None
    if args.command != "finetune":
        labels = labels_of(args.teacher if args.command == "distill" else args.model, "tokens")
    return tagging_task(args.data, args.text_columns, args.label_column, labels)


def questions(args: argparse.Namespace) -> Any:
    """Questions on documents. Whether some have no answer is said by the file that is learned from."""
    from ..data.squad import read_questions, squad_task

    learns = args.command in ("finetune", "distill")
    names = ("doc_stride", "max_query_length", "max_answer_length", "null_threshold")
    settings = {name: getattr(args, name) for name in names}
    return squad_task(learns and read_questions(args.data, "train").second, **settings)
