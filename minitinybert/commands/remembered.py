"""What a model remembers of the data that it learned from, so that nobody has to say it again:
task.json beside its weights.

    finetune --data reviews.csv --text-columns … ─▶ teacher/task.json ─▶ distill task, evaluate, predict --data reviews.csv

The parts of one file are the same for all who come after, and a file that has changed since is told.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..data.glue import Task
from ..data.parts import PARTS, Parts, parts_of
from ..errors import InputError
from ..files import read_json, write_json
from ..progress import log

FILE = "task.json"


@dataclass(frozen=True)
class Remembered:
    """A task's name; of one's own the columns, and whether rows without a gold label are left out; the
    parts of one file, None where train and dev were files of their own."""

    task: str
    text_columns: tuple[str, ...] = ()
    label_column: str = ""
    drop_unlabelled: bool = False
    parts: Parts | None = None


def remembered_of(task: Task) -> Remembered:
    own = task.name == "custom"
    columns = (tuple(column.name for column in task.text_columns), task.label_column.name) if own else ((), "")
    return Remembered(task.name, *columns, task.unlabelled == "drop", task.parts)


def remember(out: Path, known: Remembered | None) -> None:
    """Write out/task.json; None: what another model left there goes."""
    if known is None:
        (out / FILE).unlink(missing_ok=True)
    else:
        write_json(out / FILE, asdict(known))


def recall(model: str | Path) -> Remembered | None:
    """What a model's directory remembers; None where it has nothing. InputError for a file that says
    something else."""
    path = Path(model) / FILE
    if not path.is_file():
        return None
    raw = read_json(path)
    columns, parts = raw.get("text_columns"), raw.get("parts")
    fits = all(isinstance(raw.get(name), kind) for name, kind in (("task", str), ("label_column", str), ("drop_unlabelled", bool)))
    if not fits or not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise InputError(f"{path}: not what a run left there; remove it, and give --task and its columns")
    of_file = None if parts is None else read_parts(parts, path)
    return Remembered(raw["task"], tuple(columns), raw["label_column"], raw["drop_unlabelled"], of_file)


def read_parts(raw: Any, path: Path) -> Parts:
    """From JSON; InputError where it holds no Parts."""
    kinds = {"name": str, "digest": str, "seed": int}
    if not isinstance(raw, dict) or {name: type(value) for name, value in raw.items()} != kinds:
        raise InputError(f"{path}: its parts are not what a run left there; remove it")
    return Parts(**raw)


# ------------------------------------------------------------------------------------------------------------ the parts of a file


def parts_for(data: Path, known: Remembered | None, model: str | None, seed: int | None, learns: bool, whole: bool) -> Parts | None:
    """The parts that a command takes `data` in: those that the model knows; new ones where the
    command learns from it; None where all of a file is asked about, and for a directory.

    seed: of the split, None: not given. learns: the command trains, or makes what is trained on.
    whole: all of the file is asked for. InputError where the file has changed since the model
    learned from it: rows of its dev part may be among those it was trained on; likewise where the
    split would be another, or `data` was augmented from another.
    """
    theirs = known.parts if known else None
    if not data.is_file():
        if seed is not None:
            raise InputError(f"--split-seed {seed}: is of one file, and {data} is a directory with the parts as they are")
        ours = _augmented_from(data)
        if ours and theirs and ours != theirs:
            raise InputError(f"{data}: augmented from other parts than {model} was trained on; augment its file, with its --split-seed")
        return ours
    ours = parts_of(data, seed or 0)
    if theirs and theirs.digest == ours.digest:
        if seed not in (None, theirs.seed):
            raise InputError(f"--split-seed {seed}: {model} was trained on the parts of seed {theirs.seed}, and may know others' dev part")
        return theirs
    if theirs and theirs.name == ours.name and not whole:
        way = "train it anew" if learns else "--split all evaluates all of it as it is"
        raise InputError(f"{data}: has changed since {model} was trained on it, and so would its dev part; give the file as it was ({way})")
    if theirs and not whole:
        log(f"{data}: another file than {theirs.name}, which {model} was trained on{'' if learns else '; all of it is asked about'}")
    return ours if learns else None


def _augmented_from(directory: Path) -> Parts | None:
    """The parts of the file that `augment` made a directory of."""
    path = directory / "augment.json"
    raw = read_json(path).get("plan") if path.is_file() else None
    parts = raw.get("parts") if isinstance(raw, dict) else None
    return None if parts is None else read_parts(parts, path)


def in_parts(task: Task, parts: Parts | None) -> Task:
    """The task on one file."""
    return replace(task, files={name: name for name in PARTS}, parts=parts)
