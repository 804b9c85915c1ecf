"""Training on a task, as functions: fine-tune a teacher, distil a student.

finetune ─▶ teacher directory ─▶ distill_task ─▶ student directory ─▶ evaluate, predict (answer.py)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.glue import Task
from ..data.tokenizer import Tokenizer
from ..distillation.distill import Intermediate
from ..distillation.objectives import Objective
from ..distillation.recipes import DEFAULT, Recipe
from ..engine.device import to_host
from ..errors import InputError
from ..files import check_apart
from ..machine import Machine
from ..model.bert import Bert
from ..progress import log
from ..training.answers import Answers
from ..training.loop import Options, digest, finished, train
from ..training.plan import Given, plan_of
from ..training.shares import Learner
from ..training.teacher import NOBODY, Running, Teacher
from .answer import evaluate, judge
from .classifiers import WHAT, check_labels, in_task_order, known_projections, load_classifier, load_student
from .kinds import KINDS
from .task_data import TaskData

# ---------------------------------------------------------------------------------------------------------- training commands


def finetune(
    model: str, task: Task, data: Path, out: Path, options: Options, machine: Machine, max_length: int | None = None, resume: bool = False
) -> dict[str, Any]:
    """Fine-tune a BERT on a task's labels; the directory `out` holds the model best on dev. Returns
    {split: metrics}."""
    check_apart(out, data, model)
    student = load_classifier(model, task, options.seed)
    files = TaskData(task, data, Tokenizer.load(student.tokenizer_files), max_length or task.max_length, student)
    files.check()
    _train(student, KINDS[task.head].supervised(task), files, options, Path(out), machine, resume, f"finetune {task.name}")
    return evaluate(str(out), task, data, machine, max_length)


def distill_task(
    teacher: str,
    student: str,
    task: Task,
    data: Path,
    out: Path,
    machine: Machine,
    stage: str = "both",
    intermediate: Given = None,
    prediction: Given = None,
    recipe: Recipe = DEFAULT,
    max_length: int | None = None,
    resume: bool = False,
    cache_gb: float = 4.0,
    weights: Mapping[str, float] | None = None,
    hard_labels: bool = False,
    prediction_data: Path | None = None,
    answers: Answers | None = None,
) -> dict[str, Any]:
    """Task-specific distillation (paper section 3.2): the intermediate layers first, then the
    prediction layer.

    teacher: a directory fine-tuned on the task; student: a directory, or a shape such as
    4L-312D-12H-1200F for random weights. intermediate, prediction, max_length: what is not given is
    as the recipe has it for the task (training/plan.py). stage: "both", "intermediate", or
    "prediction", which goes on from out/intermediate where that is there. cache_gb bounds the file
    that keeps what the teacher says of each example, so that it is asked once and not at every
    epoch. prediction_data: another directory for the second step, as the paper has the original
    data for STS-B's (section 4.2). weights: λ of the first step's terms; hard_labels: the second
    step is fine-tuning on the data's labels; answers: shared by several students of one teacher
    (all three for ablations). The first step's model is kept in out/intermediate. Returns {split:
    metrics} on dev, {} after the first step alone. InputError, before anything is trained, for what
    does not fit together.
    """
    out = Path(out)
    check_apart(out, data, prediction_data or data, student, teacher)
    plan = plan_of(recipe, task, max_length, intermediate, prediction)
    asked_again = answers is not None or plan.intermediate.epochs > 1
    answers = answers or Answers(cache_gb if asked_again else 0.0)
    master = load_teacher(teacher, task, machine)
    place = out / "intermediate"
    if stage == "prediction" and (place / "model.safetensors").exists():
        log(f"the student of the intermediate step: {place}")
        student = str(place)
    pupil = load_student(student, master, task, plan.intermediate.seed, recipe)
    files = TaskData(task, data, Tokenizer.load(pupil.tokenizer_files), plan.max_length, pupil)
    files.tokenizer.check_same_vocabulary(Tokenizer.load(master.tokenizer_files))
    last_files = TaskData(task, prediction_data, files.tokenizer, plan.max_length, pupil) if prediction_data is not None else files
    objective = Intermediate(pupil.config, master.config, recipe, weights) if stage != "prediction" else None
    for each in (files, last_files):
        each.check()
    check_teacher(teacher, master, files, machine)
    if objective is not None:
        taught = _Taught(master, recipe, answers, (teacher, str(data), plan.max_length), known_projections(student, recipe))
        _train(pupil, objective, files, plan.intermediate, place, machine, resume, "distill intermediate", taught)
        pupil = Bert.load(place)
    if stage == "intermediate":
        return {}
    kind = KINDS[task.head]
    last = kind.supervised(task) if hard_labels else kind.prediction(task, recipe)
    taught = _Taught(master, recipe, answers, (teacher, str(last_files.directory), plan.max_length), {})
    _train(pupil, last, last_files, plan.prediction, out, machine, resume, "distill prediction", taught)
    return evaluate(str(out), task, last_files.directory, machine, plan.max_length)


def load_teacher(path: str, task: Task, machine: Machine) -> Bert:
    """A teacher fine-tuned on the task. InputError where it has no classifier, or one for other
    labels."""
    teacher = Bert.load(path)
    if teacher.config.head != task.head:
        raise InputError(f"{path}: the teacher has no {WHAT[task.head]}; fine-tune it first: minitinybert finetune --model {path} …")
    check_labels(teacher, task, path)
    return machine.frozen(in_task_order(teacher, task)).for_reading()


def check_teacher(path: str, teacher: Bert, files: TaskData, machine: Machine) -> dict[str, float]:
    """Its dev metrics, before hours are spent: InputError where it is worse than always saying the
    most frequent label (for correlations: than saying always the same); a warning where it is as
    good. On WNLI, teachers are."""
    task, dev = files.task, files.split(files.task.dev_splits[0])
    scores = judge(teacher, task, dev, machine)
    log(f"teacher {path} on dev: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    floor = KINDS[task.head].constant(task, dev)
    score = scores[task.main_metric]
    constant = f"{path}: the teacher's dev {task.main_metric} is {score:.4f}, that of a constant answer {floor:.4f}"
    question = "is it fine-tuned on this task, and are its labels (id2label) in the order of its outputs?"
    if score < floor or (score == floor and task.name != "wnli"):
        raise InputError(f"{constant}; {question}")
    if score == floor:
        log(f"warning: {constant}")
    return scores


class _Taught(NamedTuple):
    """The teacher of a step, what it has said before of the training set `where`, and the maps that
    the student has learned before."""

    teacher: Bert
    recipe: Recipe
    answers: Answers
    where: Hashable
    projections: Mapping[str, np.ndarray]


def _train(
    model: Bert,
    objective: Objective,
    files: TaskData,
    options: Options,
    out: Path,
    machine: Machine,
    resume: bool,
    description: str,
    taught: _Taught | None = None,
) -> None:
    task, examples = files.task, files.split("train")
    teacher: Teacher = NOBODY
    known: Mapping[str, np.ndarray] = {}
    conditions = {"task": task.name, "max_length": files.max_length}
    if taught is not None:
        if taught.recipe.padding == "count":
            examples = replace(examples, pad_to=files.max_length, pad_id=files.tokenizer.pad_id)
        teacher = running = Running(taught.teacher, taught.recipe.teacher_dropout)
        if not (resume and finished(out, examples, options)):
            teacher = taught.answers.of(running, examples, objective.teacher_view, taught.where, out, machine.workers)
        known = taught.projections
        conditions |= {**machine.conditions(taught.recipe), "teacher's weights": digest(to_host(taught.teacher.parameters.flat))}
    learner = Learner(model.to(machine.xp), objective, machine.workers, teacher, options.seed, known)
    on_dev: Callable[[Bert], dict[str, float]] | None = None
    if objective.student_view.logits:
        dev = files.split(task.dev_splits[0])
        on_dev = lambda m: judge(m, task, dev, machine)
    train(learner, examples, options, out, on_dev, task.main_metric, resume, description, conditions)
