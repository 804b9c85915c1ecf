"""Everything that a report shows, as plain lists and numbers: what page.py makes a page of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...data.glue import Task
from ...machine import Machine
from ...model.bert import Bert
from ...progress import log
from .. import info
from ..answer import judged_model
from . import answers, inside, lessons
from .answers import Dev
from .collector import Asked, Collector, Subject
from .runs import Run, read_runs

_PARTED = 40  # examples that are shown
_LONGEST = 400  # characters of an example
_POINTS = 1000  # of a scatter
_MEASURED = 8  # sentences of a batch whose speed is measured


def collect(paths: Sequence[Path], machine: Machine, asked: Asked) -> dict[str, Any]:
    """{"runs", "models", "groups", "lessons", "maps", "notes"}: of each what the functions below give.
    InputError as `report` says."""
    runs = read_runs(paths)
    collector = Collector(machine, asked, names={run.last.path.resolve(): run.name for run in runs})
    subjects = [subject for run in runs for subject in collector.subjects(run)]
    pairs = [(subject, teacher) for subject in subjects if (teacher := collector.teacher(subject)) is not None]
    groups = _groups(collector, subjects, pairs)
    return {
        "runs": [_curves(run) for run in runs],
        "groups": groups,
        "lessons": lessons.lessons(collector, pairs),
        "maps": lessons.maps(subjects),
        "models": _costs(collector, subjects, pairs),
        "notes": collector.notes,
    }


def _curves(run: Run) -> dict[str, Any]:
    steps = [{"name": step.name, "perEpoch": step.steps_of_epoch, "settings": step.told(), **step.curves()} for step in run.steps]
    return {"name": run.name, "steps": steps}


# ----------------------------------------------------------------------------------------------------------------- answers


def _groups(collector: Collector, subjects: list[Subject], pairs: list[tuple[Subject, Bert]]) -> list[dict[str, Any]]:
    """The runs whose models answer the same dev examples, and their teachers: what each answers, and
    how they compare."""
    members: dict[str, list[Subject]] = {}
    devs: dict[str, Dev] = {}
    for subject in subjects:
        if subject.answers and (dev := collector.dev(subject)) is not None:
            truth = answers.truth_of(dev)
            key = hashlib.blake2b(repr((dev.task.name, truth.names, truth.texts, truth.shown)).encode()).hexdigest()
            members.setdefault(key, []).append(subject)
            devs.setdefault(key, dev)
    teachers = {id(subject): teacher for subject, teacher in pairs}
    return [_group(collector, key, devs[key], own, teachers) for key, own in members.items()]


def _group(collector: Collector, key: str, dev: Dev, subjects: list[Subject], teachers: dict[int, Bert]) -> dict[str, Any]:
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
        scatter = [inside.five_digits(side[:_POINTS].tolist()) for side in (truth.numbers, own.numbers)]
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


# --------------------------------------------------------------------------------------------------------------- costs


def _costs(collector: Collector, subjects: list[Subject], pairs: list[tuple[Subject, Bert]]) -> list[dict[str, Any]]:
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
