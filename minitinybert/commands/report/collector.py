"""What the runs of a report say of themselves, and what is loaded of them.

Whoever trained may have moved things since: what a run says of its teacher and data is looked for as
it was given, and next beside the run. What is not there is left out, and `notes` says what and why;
what was asked for on the command line and is not there is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.glue import Task
from ...data.parts import parts_of
from ...engine.device import to_host
from ...errors import InputError
from ...machine import Machine
from ...model.bert import Bert
from ...progress import log
from ...training.loop import digest
from ..record import task_of
from ..task import load_teacher
from . import answers, inside
from .answers import Dev
from .runs import Run, Step


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a report besides its runs."""

    teacher: str | None = None  # in place of what the runs say
    data: Path | None = None
    texts: Sequence[str] = ()  # whose attention is shown, before the data's
    sentences: int = 6  # of the data whose attention is shown
    examples: int | None = None  # that are judged at most; None: answers.MOST
    measure: bool = True  # how quick the models are
    seed: int = 0  # of the bootstraps

    def __post_init__(self) -> None:
        if self.sentences + len(self.texts) > inside.MOST_SENTENCES:
            raise InputError(f"report: {self.sentences + len(self.texts)} sentences; a page has room for {inside.MOST_SENTENCES}")


@dataclass
class Subject:
    """A step of a run that left a model."""

    run: Run
    step: Step
    task: Task | None
    data: Path | None
    teacher: str | None
    max_length: int

    @property
    def name(self) -> str:
        """As lines and choices name it."""
        return self.run.name if len(self.run.steps) == 1 else f"{self.run.name}, {self.step.name}"

    @property
    def is_last(self) -> bool:
        return self.step is self.run.last

    @property
    def answers(self) -> bool:
        """Whether the step taught the model to answer its task."""
        return self.task is not None and self.is_last and self.step.name in ("fine-tuning", "prediction step")


@dataclass
class Collector:
    machine: Machine
    asked: Asked
    notes: list[str] = field(default_factory=list)
    models: dict[str, Bert] = field(default_factory=dict)  # by what was loaded, and how
    names: dict[Path, str] = field(default_factory=dict)  # of the runs, by where their last step's model lies
    devs: dict[str, Dev] = field(default_factory=dict)  # by task and directory
    said: dict[tuple[str, str], answers.Answers] = field(default_factory=dict)  # by group and model

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            log(f"warning: {line}")

    # --------------------------------------------------------------------------------------------- what runs say of themselves

    def subjects(self, run: Run) -> list[Subject]:
        return [self._subject(run, step) for step in run.steps if (step.path / "model.safetensors").exists()]

    def _subject(self, run: Run, step: Step) -> Subject:
        about, where = step.about, step.path / "metrics.jsonl"
        length = about.get("max_length")
        task = task_of(about["task"], where) if "task" in about else None
        if not about:
            self.note(f"{run.name}: {where} does not say what was run; nothing but its curves and its model can be shown")
        return Subject(
            run, step, task, self._data(run, about.get("data")) if task else None, self._teacher(run, step),
            length if isinstance(length, int) and length > 2 else Task.max_length,
        )  # fmt: skip

    def _data(self, run: Run, recorded: Any) -> Path | None:
        if self.asked.data is not None:
            return self.asked.data
        found = there(run, recorded)
        if found is None:
            self.note(f"{run.name}: its data, {recorded}, are not there any more, and no answers are shown; --data says where they are")
        return found

    def _teacher(self, run: Run, step: Step) -> str | None:
        """Of a step that had one."""
        recorded = step.about.get("teacher")
        if self.asked.teacher is not None:
            return self.asked.teacher if recorded or step.name not in ("fine-tuning", "masked words") else None
        if not isinstance(recorded, str):
            return None
        return str(there(run, recorded) or recorded)  # which may be a Hugging Face id

    # ------------------------------------------------------------------------------------------------------------ models

    def model(self, subject: Subject) -> Bert:
        path = str(subject.step.path)
        return self._loaded(path, lambda: Bert.load(path).to(self.machine.xp))

    def teacher(self, subject: Subject) -> Bert | None:
        """None, with a note, where it is not there. InputError where it was named on the command line."""
        path, task, recipe = subject.teacher, subject.task, subject.step.recipe
        if path is None:
            return None
        how = f"{path} {task.name} {recipe.teacher_head}" if task else path
        head = None if recipe.general_prediction > 0 else "none"
        try:
            if task is not None:
                loaded = self._loaded(how, lambda: load_teacher(path, task, self.machine, recipe))
            else:
                loaded = self._loaded(how, lambda: self.machine.frozen(Bert.load(path, head=head)))
            inside.check_pair(self.model(subject), loaded)
        except InputError as error:
            if self.asked.teacher is not None:
                raise
            self.note(f"{subject.run.name}: its teacher cannot be shown ({error}); --teacher says where it is")
            return None
        then, settings = loaded.parameters.flat.dtype.name, subject.step.settings
        if settings.get("teacher_dtype") == then and settings.get("teacher's weights") != digest(to_host(loaded.parameters.flat)):
            self.note(f"{subject.run.name}: {path} is shown as its teacher, and has other weights than when the run began")
        return loaded

    def name_of(self, teacher: str) -> str:
        """A teacher by the name of its run, where that is on the page too; else by the end of its path."""
        return self.names.get(Path(teacher).resolve()) or "/".join(Path(teacher).parts[-2:]) or teacher

    def _loaded(self, key: str, load: Any) -> Bert:
        if key not in self.models:
            self.models[key] = load()
        return self.models[key]

    # ----------------------------------------------------------------------------------------------------------- dev examples

    def dev(self, subject: Subject) -> Dev | None:
        """A task's dev examples. None, with a note, where they cannot be read."""
        if subject.task is None or subject.data is None:
            return None
        key = repr((subject.task, subject.data))
        if key not in self.devs:
            try:
                _check_same(subject.task, subject.data)
                self.devs[key] = answers.read_dev(subject.task, subject.data, self.asked.examples)
            except InputError as error:
                if self.asked.data is not None:
                    raise
                self.note(f"{subject.run.name}: no answers are shown ({error})")
                return None
        return self.devs[key]


def _check_same(task: Task, data: Path) -> None:
    """InputError where one file is another than the one whose parts the run had."""
    if task.parts and data.is_file() and parts_of(data, task.parts.seed).digest != task.parts.digest:
        raise InputError(f"{data}: has changed since the run, and so would its dev part")


def there(run: Run, recorded: Any) -> Path | None:
    """A path that a run wrote down: as it was given, or beside the run."""
    if not isinstance(recorded, str):
        return None
    try:
        return next((place for place in (Path(recorded), run.path.resolve().parent / Path(recorded).name) if place.exists()), None)
    except (OSError, ValueError):  # no name that a file could have
        return None
