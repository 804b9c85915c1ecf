"""Everything that a report shows, as plain lists and numbers: what page.py makes a page of.

Whoever trained may have moved things since: what a run says of its teacher and data is looked for as
it was given, and next beside the run. What is not there is left out, and `notes` says what and why;
what was asked for on the command line and is not there is an error.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...data.glue import Task
from ...data.parts import parts_of
from ...data.text import read_lines
from ...data.tokenizer import Encoded, Tokenizer
from ...distillation.distill import layer_map
from ...engine.device import to_host
from ...errors import InputError
from ...machine import Machine
from ...model.bert import Bert
from ...progress import log
from ...training.loop import digest
from .. import info
from ..answer import judged_model
from ..record import task_of
from ..task import load_teacher
from . import answers, inside
from .answers import Dev
from .runs import Run, Step, read_runs

_LINES = 400  # of a corpus, from which sentences are chosen
_PARTED = 40  # examples that are shown
_LONGEST = 400  # characters of an example
_POINTS = 1000  # of a scatter
_MEASURED = 8  # sentences of a batch whose speed is measured


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
class _Subject:
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
class _Collector:
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

    def subjects(self, run: Run) -> list[_Subject]:
        return [self._subject(run, step) for step in run.steps if (step.path / "model.safetensors").exists()]

    def _subject(self, run: Run, step: Step) -> _Subject:
        about, where = step.about, step.path / "metrics.jsonl"
        length = about.get("max_length")
        task = task_of(about["task"], where) if "task" in about else None
        if not about:
            self.note(f"{run.name}: {where} does not say what was run; nothing but its curves and its model can be shown")
        return _Subject(
            run, step, task, self._data(run, about.get("data")) if task else None, self._teacher(run, step),
            length if isinstance(length, int) and length > 2 else Task.max_length,
        )  # fmt: skip

    def _data(self, run: Run, recorded: Any) -> Path | None:
        if self.asked.data is not None:
            return self.asked.data
        found = _there(run, recorded)
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
        return str(_there(run, recorded) or recorded)  # which may be a Hugging Face id

    # ------------------------------------------------------------------------------------------------------------ models

    def model(self, subject: _Subject) -> Bert:
        path = str(subject.step.path)
        return self._loaded(path, lambda: Bert.load(path).to(self.machine.xp))

    def teacher(self, subject: _Subject) -> Bert | None:
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

    def dev(self, subject: _Subject) -> Dev | None:
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


def _there(run: Run, recorded: Any) -> Path | None:
    """A path that a run wrote down: as it was given, or beside the run."""
    if not isinstance(recorded, str):
        return None
    try:
        return next((place for place in (Path(recorded), run.path.resolve().parent / Path(recorded).name) if place.exists()), None)
    except (OSError, ValueError):  # no name that a file could have
        return None


def collect(paths: Sequence[Path], machine: Machine, asked: Asked) -> dict[str, Any]:
    """{"runs", "models", "groups", "lessons", "maps", "notes"}: of each what the functions below give.
    InputError as `report` says."""
    runs = read_runs(paths)
    collector = _Collector(machine, asked, names={run.last.path.resolve(): run.name for run in runs})
    subjects = [subject for run in runs for subject in collector.subjects(run)]
    pairs = [(subject, teacher) for subject in subjects if (teacher := collector.teacher(subject)) is not None]
    groups = _groups(collector, subjects, pairs)
    return {
        "runs": [_curves(run) for run in runs],
        "groups": groups,
        "lessons": _lessons(collector, pairs),
        "maps": _maps(subjects),
        "models": _costs(collector, subjects, pairs),
        "notes": collector.notes,
    }


def _curves(run: Run) -> dict[str, Any]:
    steps = [{"name": step.name, "perEpoch": step.steps_of_epoch, "settings": step.told(), **step.curves()} for step in run.steps]
    return {"name": run.name, "steps": steps}


# ----------------------------------------------------------------------------------------------------------------- answers


def _groups(collector: _Collector, subjects: list[_Subject], pairs: list[tuple[_Subject, Bert]]) -> list[dict[str, Any]]:
    """The runs whose models answer the same dev examples, and their teachers: what each answers, and
    how they compare."""
    members: dict[str, list[_Subject]] = {}
    devs: dict[str, Dev] = {}
    for subject in subjects:
        if subject.answers and (dev := collector.dev(subject)) is not None:
            truth = answers.truth_of(dev)
            key = hashlib.blake2b(repr((dev.task.name, truth.names, truth.texts, truth.shown)).encode()).hexdigest()
            members.setdefault(key, []).append(subject)
            devs.setdefault(key, dev)
    teachers = {id(subject): teacher for subject, teacher in pairs}
    return [_group(collector, key, devs[key], own, teachers) for key, own in members.items()]


def _group(collector: _Collector, key: str, dev: Dev, subjects: list[_Subject], teachers: dict[int, Bert]) -> dict[str, Any]:
    truth, asked, machine = answers.truth_of(dev), collector.asked, collector.machine
    models: dict[str, tuple[Bert, int]] = {}  # teachers first
    teacher_of: dict[str, str] = {}
    for subject in subjects:
        if id(subject) in teachers:
            teacher_of[subject.run.name] = name = collector.name_of(str(subject.teacher))
            models.setdefault(name, (teachers[id(subject)], subject.max_length))
    for subject in subjects:
        if subject.run.name not in models:
            judged, _ = judged_model(str(subject.step.path), dev.task, Path(), machine, subject.max_length)
            models[subject.run.name] = judged, subject.max_length
    for name, (model, length) in models.items():
        collector.said[key, name] = answers.ask(model, dev, length, machine.workers, f"answers of {name}")
    said = {name: collector.said[key, name] for name in models}
    tests = [
        verdict for a, b in answers.names_of_pairs(list(models), teacher_of) for verdict in answers.compare(a, b, said, truth, asked.seed)
    ]
    split = dev.task.dev_splits[0]
    return {
        "task": dev.task.name, "split": split, "metric": next(iter(truth.measures)), "taken": dev.taken, "there": dev.there,
        "names": truth.names, "teachers": teacher_of, "seed": asked.seed,
        "models": [_judged(name, own, truth, asked.seed) for name, own in said.items()],
        "tests": [verdict._asdict() for verdict in tests],
        "parted": [_parted(a, b, said[a], said[b], truth) for a, b in teacher_of.items()],
    }  # fmt: skip


def _judged(name: str, own: answers.Answers, truth: answers.Truth, seed: int) -> dict[str, Any]:
    counts, reliability = answers.confusion(own, truth), answers.calibration(own, truth)
    scatter = None
    if own.numbers is not None and truth.numbers is not None:
        scatter = [_short(side[:_POINTS].tolist()) for side in (truth.numbers, own.numbers)]
    return {
        "name": name, "scores": {metric: list(score) for metric, score in answers.scores(own, truth, seed).items()},
        "confusion": None if counts is None else counts.tolist(),
        "reliability": None if reliability is None else reliability._asdict(), "scatter": scatter,
    }  # fmt: skip


def _parted(student: str, teacher: str, ours: answers.Answers, theirs: answers.Answers, truth: answers.Truth) -> dict[str, Any]:
    apart = answers.parted(ours, theirs)
    sure = lambda own, i: None if own.sure is None else round(float(own.sure[i]), 4)
    rows = [
        {"text": _cut(truth.texts[i]), "right": _cut(truth.shown[i]), "student": _cut(ours.shown[i]), "teacher": _cut(theirs.shown[i]),
         "sure": [sure(ours, i), sure(theirs, i)]}
        for i in apart[:_PARTED]
    ]  # fmt: skip
    return {"student": student, "teacher": teacher, "count": None if ours.numbers is not None else len(apart), "rows": rows}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


# ------------------------------------------------------------------------------------------------------------ lessons


def _lessons(collector: _Collector, pairs: list[tuple[_Subject, Bert]]) -> list[dict[str, Any]]:
    """Of each teacher the sentences that are looked at, and what went on inside it and its students."""
    by_teacher: dict[int, list[tuple[_Subject, Bert]]] = {}
    for subject, teacher in pairs:
        by_teacher.setdefault(id(teacher), []).append((subject, teacher))
    found = [_lesson(collector, [subject for subject, _ in own], own[0][1]) for own in by_teacher.values()]
    return [lesson for lesson in found if lesson is not None]


@dataclass
class _Sentences:
    """Those that are shown, each with where it is from, and those over which layers are compared."""

    shown: list[Encoded]
    origins: list[str]
    compared: list[Encoded]


def _lesson(collector: _Collector, subjects: list[_Subject], teacher: Bert) -> dict[str, Any] | None:
    tokenizer = Tokenizer.load(teacher.tokenizer_files)
    chosen = _sentences(collector, subjects, teacher, tokenizer)
    if not chosen.shown:
        collector.note(f"{subjects[0].run.name}: no sentence to look at; give one by --text, or where the task's are, by --data")
        return None
    log(f"attention and layers of {subjects[0].teacher} and {len(subjects)} students, over {len(chosen.compared)} sentences")
    H_T = inside.hidden_states(teacher, chosen.compared)
    return {
        "teacher": str(subjects[0].teacher), "layers": teacher.config.num_hidden_layers, "heads": teacher.config.num_attention_heads,
        "sentences": [{"tokens": inside.names(tokenizer, s), "origin": o} for s, o in zip(chosen.shown, chosen.origins, strict=True)],
        "attention": [_bytes(inside.attention(teacher, sentence)) for sentence in chosen.shown],
        "compared": [len(chosen.compared), len(H_T[0])],
        "students": [_inside(collector, subject, teacher, chosen, H_T) for subject in subjects],
    }  # fmt: skip


def _inside(collector: _Collector, subject: _Subject, teacher: Bert, chosen: _Sentences, H_T: list[np.ndarray]) -> dict[str, Any]:
    student = collector.model(subject)
    M, N, recipe = student.config.num_hidden_layers, teacher.config.num_hidden_layers, subject.step.recipe
    first = subject.run.steps[0]  # the intermediate step, where there are two: it learns the maps
    maps = inside.read_maps(str(first.path), first.recipe, M)
    H_S = inside.hidden_states(student, chosen.compared)
    try:
        pairs = layer_map(recipe.layer_map, M, N)
    except InputError:
        pairs = ()
    return {
        "name": subject.name, "layers": M, "heads": student.config.num_attention_heads, "map": list(pairs),
        "attention": [_bytes(inside.attention(student, sentence)) for sentence in chosen.shown],
        "distances": [_short(row) for row in inside.distances(H_S, H_T, maps).tolist()],
        "cka": [_short(row) for row in inside.alignments(H_S, H_T).tolist()],
        "maps": sorted(maps.tensors),
    }  # fmt: skip


def _sentences(collector: _Collector, subjects: list[_Subject], teacher: Bert, tokenizer: Tokenizer) -> _Sentences:
    """What --text gives, and of the run's own: a task's dev examples, those on which the first student
    and the teacher part before others, or the lines of a corpus."""
    given = _given(collector.asked.texts, tokenizer)
    own: list[Encoded] = []
    apart: list[int] = []
    origin = "dev"
    for subject in subjects:
        if (dev := collector.dev(subject)) is not None:
            examples = answers.encoded(dev, teacher, min(subject.max_length, teacher.config.max_position_embeddings))
            own = [Encoded(ids, types) for ids, types in zip(examples.input_ids, examples.token_type_ids, strict=True)]
            apart = _apart(collector, subjects) if dev.task.head == "classifier" else []
            break
        if lines := _corpus_lines(subject):
            own, origin = tokenizer.encode(lines, None, min(subject.max_length, teacher.config.max_position_embeddings)), "corpus"
            break
    places = inside.choose(own, apart, collector.asked.sentences)
    origins = [*["--text"] * len(given), *("they part" if i in set(apart) else origin for i in places)]
    shown = [inside.cut(sentence, tokenizer.sep_id) for sentence in (*given, *(own[i] for i in places))]
    return _Sentences(shown, origins, inside.compared(own or given))


def _given(texts: Sequence[str], tokenizer: Tokenizer) -> list[Encoded]:
    """Each text by itself, or a pair: 'first ||| second'."""
    found = []
    for text in texts:
        first, bar, second = (part.strip() for part in text.partition("|||"))
        found += tokenizer.encode([first], [second] if bar else None, inside.MOST_PIECES)
    return found


def _apart(collector: _Collector, subjects: list[_Subject]) -> list[int]:
    """The dev examples on which the first student that answers and its teacher part."""
    names = [subject.run.name for subject in subjects if subject.answers]
    for (key, name), own in collector.said.items():
        if name in names:
            subject = next(s for s in subjects if s.run.name == name)
            teacher = collector.said.get((key, collector.name_of(str(subject.teacher))))
            return answers.parted(own, teacher) if teacher is not None and teacher is not own else []
    return []


def _corpus_lines(subject: _Subject) -> list[str]:
    files = subject.step.about.get("corpus")
    for file in files if isinstance(files, list) else []:
        if (path := _there(subject.run, file)) is not None and path.is_file():
            lines = (line.strip() for _, line in read_lines(path))
            return list(islice((line for line in lines if line), _LINES))
    return []


def _maps(subjects: list[_Subject]) -> list[dict[str, Any]]:
    """W_e and W_h of each step that learned some."""
    found = []
    places: dict[Path, tuple[_Subject, Step]] = {}
    for subject in subjects:  # and of a step whose model is gone
        for step in (subject.step, subject.run.steps[0]):
            places.setdefault(step.path, (subject, step))
    for path, (subject, step) in places.items():
        of = subject.name if step is subject.step else f"{subject.run.name}, {step.name}"
        for name, tensor in sorted(inside.read_maps(str(path), step.recipe, 0).tensors.items()):
            if name.endswith(".weight") and tensor.ndim == 2:
                picture = inside.picture(name, tensor)
                found.append({
                    "of": of, "name": name.removesuffix(".weight"), "shape": list(picture.shape), "largest": picture.largest,
                    "values": _short(picture.singular_values.tolist()), "size": list(picture.entries.shape),
                    "entries": base64.b64encode(picture.entries.tobytes()).decode("ascii"),
                })  # fmt: skip
    return found


# --------------------------------------------------------------------------------------------------------------- costs


def _costs(collector: _Collector, subjects: list[_Subject], pairs: list[tuple[_Subject, Bert]]) -> list[dict[str, Any]]:
    """What each model costs, teachers first: sizes, FLOPs, and how many times quicker than its teacher
    it is."""
    last = [subject for subject in subjects if subject.is_last]
    teachers = {id(subject): str(subject.teacher) for subject, _ in pairs if subject.is_last}
    models = [*(collector.model(subject) for subject in last), *(teacher for _, teacher in pairs)]
    most = min((model.config.max_position_embeddings for model in models), default=Task.max_length)
    length = min(most, max((subject.max_length for subject in last), default=Task.max_length))
    found: dict[str, dict[str, Any]] = {}
    for path in dict.fromkeys(teachers.values()):
        found.setdefault(collector.name_of(path), {**info.describe(path, length), "quicker": None})
    for subject in last:
        report = info.describe(str(subject.step.path), length)
        quicker = None
        if id(subject) in teachers and collector.asked.measure:
            log(f"speed of {subject.name} and its teacher")
            measured = info.info(str(subject.step.path), collector.machine, teachers[id(subject)], length, True, _MEASURED)
            quicker = measured["times_quicker"]
        found[subject.run.name] = {**report, "quicker": quicker}
    keep = ("shape", "parameters", "flops", "length", "head", "quicker")
    return [{"name": name, **{part: own[part] for part in keep}} for name, own in found.items()]


# -------------------------------------------------------------------------------------------------------------- numbers as text


def _bytes(p: np.ndarray) -> str:
    """Probabilities in 255ths, as base64."""
    return base64.b64encode(np.rint(255 * p).astype(np.uint8).tobytes()).decode("ascii")


def _short(values: Sequence[float]) -> list[float | None]:
    """To five digits; None for NaN."""
    return [None if value != value else float(f"{value:.5g}") for value in values]
