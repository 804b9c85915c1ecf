"""What a run says of itself in the first line of its metrics.jsonl, so that it can be looked at
later by its directory alone: which task, on which files, from which teacher.

    training/loop.py: {"step": 20, …, "run": {"what": "distill intermediate", "settings": {…}, **about(…)}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..data.glue import TASKS, Column, Task, custom_task
from ..data.squad import Squad, squad_task
from ..data.tagging import tagging_task
from ..errors import InputError
from .remembered import in_parts, read_parts

_OF_SQUAD = ("doc_stride", "max_query_length", "max_answer_length", "null_threshold", "unanswerable")


def about_task(task: Task, data: str | Path, max_length: int) -> dict[str, Any]:
    """A run on a task: what `task_of` makes the task of again, where its files lie, and how many word
    pieces of a text are read."""
    columns = [[column.name, column.place] for column in (*task.text_columns, task.label_column)]
    more = {name: getattr(task, name) for name in _OF_SQUAD} if isinstance(task, Squad) else {}
    labels = None if task.labels is None else list(task.labels)
    parts = {"parts": asdict(task.parts)} if task.parts and Path(data).is_file() else {}  # of one file
    return {"task": {"name": task.name, "columns": columns, "labels": labels, **more, **parts}, "data": str(data), "max_length": max_length}


def task_of(record: Any, where: str | Path) -> Task:
    """The task of a record; rows without a gold label are left out. InputError, which names `where`
    the record stands, for what `about_task` did not write."""
    try:
        task = _task_of(record, Path())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InputError) as error:
        raise InputError(f"{where}: the run's task is not what training writes there ({error or type(error).__name__})") from None
    task = replace(task, unlabelled="drop")
    return in_parts(task, read_parts(record["parts"], Path(where))) if "parts" in record else task


def _task_of(record: Mapping[str, Any], nowhere: Path) -> Task:
    name, labels = record["name"], record["labels"]
    if name in TASKS:
        return TASKS[name]
    if name == "squad":
        return squad_task(**{setting: _number(record[setting]) for setting in _OF_SQUAD})
    *texts, label = (Column(_text(column), None if place is None else int(place)) for column, place in record["columns"])
    names = None if labels is None else [_text(each) for each in labels]
    if name == "tokens":
        made: Task = tagging_task(nowhere, labels=names or [])
    elif name == "custom":
        made = custom_task(nowhere, [column.name for column in texts], label.name, names, names is None)
    else:
        raise ValueError(f"no task is called {name!r:.60}")
    return replace(made, text_columns=tuple(texts), label_column=label)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no text")
    return value


def _number(value: Any) -> Any:
    if not (value is None or isinstance(value, (bool, int, float))):
        raise ValueError(f"{value!r:.60} is no number")
    return value
