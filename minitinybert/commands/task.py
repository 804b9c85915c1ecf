"""Training on a task, as functions: fine-tune a teacher, distil a student.

finetune ─▶ teacher directory ─▶ distill_task ─▶ student directory ─▶ evaluate, predict (answer.py)
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.glue import Task
from ..data.metrics import of_constant
from ..data.tokenizer import Tokenizer
from ..distillation.distill import Intermediate
from ..distillation.objectives import Objective
from ..distillation.recipes import DEFAULT, Recipe
from ..engine.device import to_host
from ..errors import InputError
from ..files import check_apart, write_json
from ..machine import Machine
from ..model.bert import Bert
from ..progress import log
from ..training.answers import Answers
from ..training.kept_traces import KEPT
from ..training.left import ended, keep_maps
from ..training.loop import Options, digest, finished, train
from ..training.plan import Given, plan_of
from ..training.shares import Learner
from ..training.teacher import NOBODY, Running, Teacher
from . import card
from .answer import evaluate, judge, judge_against_constant, main_score
from .classifiers import WHAT, check_answers, in_task_order, load_classifier, load_student, tell_of_relu, with_relu
from .info import cost_line
from .kinds import KINDS
from .record import about_task
from .students import is_checkpoint, maps_at_start
from .task_data import TaskData

# ---------------------------------------------------------------------------------------------------------- training commands


def finetune(
    model: str,
    task: Task,
    data: Path,
    out: Path,
    options: Options,
    machine: Machine,
    max_length: int | None = None,
    resume: bool = False,
    recipe: Recipe = DEFAULT,
    tokenizer: Path | None = None,
    keep_state: bool = False,
) -> dict[str, Any]:
    """Fine-tune a BERT on a task's labels; the directory `out` holds the model best on dev. Returns
    {split: metrics}.

    model: a directory or an id; or a shape, for random weights, with the directory of a
    `tokenizer`: what a student is without distillation. recipe: of it the switches of the head, of
    [PAD]'s gradient and of what is the best model; how long and how fast is for `options`
    (training/plan.py: finetune_options). A head with the relu stays one. keep_state: what only
    `resume` needs stays when the run has ended (training/left.py).
    """
    check_apart(out, data, model)
    student = load_classifier(model, task, options.seed, tokenizer)
    student = with_relu(student, recipe.classifier_relu or student.config.classifier_relu)
    max_length = max_length or task.max_length
    files = TaskData(judged_by(task, recipe), data, Tokenizer.load(student.tokenizer_files), max_length, student)
    files.check()
    _start_at_the_mean(student, files, recipe)
    _train(student, KINDS[task.head].supervised(task, recipe), files, options, Path(out), machine, resume, f"finetune {task.name}")
    tell_of_relu(student.config, out)
    log(cost_line(student.config, max_length))
    results = evaluate(str(out), task, data, machine, max_length)
    arguments = [("--model", card.named(model)), *card.of_task(task, data), ("--max-length", max_length), *card.of_recipe(recipe)]
    arguments += [*card.of_options(options), *card.of_all_steps(options)]
    arguments += [("--optimizer", options.optimizer)] if options.optimizer != recipe.optimizer else []
    card.leave(out, student.config, card.Made("finetune", arguments, max_length, model, task), results, machine, keep_state)
    return results


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
    cache_gb: float | None = None,
    weights: Mapping[str, float] | None = None,
    hard_labels: bool = False,
    prediction_data: Path | None = None,
    answers: Answers | None = None,
    grid: bool = False,
    teacher_cache: Path | None = None,
    keep_state: bool = False,
) -> dict[str, Any]:
    """Task-specific distillation (paper section 3.2): the intermediate layers first, then the
    prediction layer.

    teacher: a directory fine-tuned on the task; student: a directory, or a shape such as
    4L-312D-12H-1200F for random weights. intermediate, prediction, max_length: what is not given is
    as the recipe has it for the task (training/plan.py). stage: "both", "intermediate", or
    "prediction", which goes on from out/intermediate where that is there. cache_gb: of a file that
    keeps what the teacher says of each example, so that it is asked once, not at every epoch
    (training/answers.py); None: as large as the disk has room, 0: no file, and nothing is rounded to float16.
    teacher_cache: a directory in which that file stays for other runs. prediction_data: another
    directory for the second step, as the paper has the original data for STS-B's (section 4.2): the
    recipe may ask for it (regression_data). weights: λ of the first step's terms; hard_labels: the
    second step is fine-tuning on the data's labels; answers: shared by several students of one
    teacher, in the place of cache_gb and teacher_cache (all three for ablations). grid: the second
    step is done with every batch size and learning rate of the paper's grid (section 4.2), in
    out/grid, and the one best on dev is kept. The first step's model is in out/intermediate; where it
    was not asked for by itself it goes away when the run has ended, as all that only `resume` needs,
    but for `keep_state` (training/left.py).
    Returns {split: metrics} on dev, {} after the first step alone. InputError, before anything is
    trained, for what does not fit together.
    """
    out, judged = Path(out), judged_by(task, recipe)
    check_apart(out, data, prediction_data or data, student, teacher)
    if stage != "intermediate":
        _check_original(task, prediction_data or data, recipe)
    plan = plan_of(recipe, task, max_length, intermediate, prediction)
    asked_again = answers is not None or teacher_cache is not None or plan.intermediate.epochs > 1
    answers = answers or Answers(cache_gb if asked_again else 0.0, teacher_cache)
    master = load_teacher(teacher, task, machine, recipe)
    place = out / "intermediate"
    if stage == "prediction" and (place / "model.safetensors").exists():
        log(f"the student of the intermediate step: {place}")
        student = str(place)
    source = master if is_checkpoint(student) else in_task_order(Bert.load(teacher), task)  # on the host, not as it answers, in few bits
    pupil = load_student(student, source, task, plan.intermediate.seed, recipe)
    files = TaskData(judged, data, Tokenizer.load(pupil.tokenizer_files), plan.max_length, pupil)
    files.tokenizer.check_same_vocabulary(Tokenizer.load(master.tokenizer_files))
    last_files = TaskData(judged, prediction_data, files.tokenizer, plan.max_length, pupil) if prediction_data is not None else files
    objective = Intermediate(pupil.config, master.config, recipe, weights) if stage != "prediction" else None
    for each in (files, last_files):
        each.check()
    _start_at_the_mean(pupil, last_files, recipe)
    if stage != "prediction":
        _tell_of_few([(plan.intermediate, files), *([(plan.prediction, last_files)] if stage == "both" else [])])
    scores = check_teacher(teacher, master, files, machine)
    gone = False
    if objective is not None:
        known = maps_at_start(student, pupil, source, recipe, files.split("train"), plan.intermediate.seed)
        taught = _Taught(master, recipe, answers, (teacher, str(data), plan.max_length), known, teacher)
        _train(pupil, objective, files, plan.intermediate, place, machine, resume, "distill intermediate", taught)
        gone = stage == "both" and not (place / "model.safetensors").exists()
        if gone and ended(out) is None:
            raise InputError(f"{place}: its model is no longer there; choose a new --out")
        pupil = Bert.load(out if gone else place)
        if not gone and machine.workers.ranks.first:
            keep_maps(place)
    arguments = [("--teacher", card.named(teacher)), ("--student", card.named(student)), *card.of_task(task, data)]
    arguments += [("--max-length", plan.max_length), *card.of_recipe(recipe)]
    arguments += [("--stage", stage)] if stage != "both" else []
    arguments += [("--prediction-data", card.named(prediction_data))] if prediction_data is not None else []
    arguments += [("--grid", None)] if grid else []
    arguments += card.of_options(plan.intermediate, "intermediate-") if stage != "prediction" else []
    if stage == "intermediate":
        arguments += card.of_all_steps(plan.intermediate)
    else:
        arguments += [*card.of_options(plan.prediction), *card.of_all_steps(plan.prediction)]
    own = card.Teacher(card.named(teacher), master.config, scores)
    made = card.Made("distill task", arguments, plan.max_length, teacher, task, own)
    if stage == "intermediate":
        card.leave(place, pupil.config, made, {}, machine, keep_state)
        return {}
    kind = KINDS[task.head]
    last = kind.supervised(task, recipe) if hard_labels else kind.prediction(task, recipe)
    taught = _Taught(master, recipe, answers, (teacher, str(last_files.directory), plan.max_length), {}, teacher)

    def learn(options: Options, place: Path) -> None:
        end = ended(place) if gone else None
        starting = None if end is None else end["settings"].get("starting weights")  # of a model that is gone
        _train(pupil, last, last_files, options, place, machine, resume, "distill prediction", taught, starting)

    if grid:
        judge_there = lambda place: evaluate(str(place), judged, last_files.directory, machine, plan.max_length)
        choose_of_grid(plan.prediction, out, learn, judge_there, judged, machine)
    else:
        learn(plan.prediction, out)
    tell_of_relu(pupil.config, out)
    log(cost_line(pupil.config, plan.max_length, master.config))
    results = evaluate(str(out), task, last_files.directory, machine, plan.max_length)
    card.leave(out, pupil.config, made, results, machine, keep_state)
    return results


def _tell_of_few(steps: Sequence[tuple[Options, TaskData]]) -> None:
    """Warns where what is asked for is over before a student can have learned much."""
    count = sum(math.ceil(options.epochs * len(files.split("train")) / options.batch_size) for options, files in steps)
    if count < _FEW:
        more = "more epochs, or the data that augment makes"
        log(f"warning: {count} steps in all; a student learns little of its teacher in fewer than some thousands: {more}")


def _start_at_the_mean(student: Bert, files: TaskData, recipe: Recipe) -> None:
    """A fresh regression head's bias is the mean of the training labels, where the recipe says so:
    what is left to learn are the differences."""
    if files.task.labels is None and recipe.regression_bias == "mean":
        bias, labels = student.parameters["classifier.bias"], files.split("train").labels
        if not bias.any() and labels is not None:
            bias[...] = labels.mean()


_FEW = 1000  # steps: of 256 nothing was to be seen, of 2,355 all that distillation is worth
GRID = {"batch_size": (16, 32), "lr": (1e-5, 2e-5, 3e-5)}  # paper, section 4.2


def choose_of_grid(
    options: Options,
    out: Path,
    learn: Callable[[Options, Path], None],
    scores: Callable[[Path], Mapping[str, Mapping[str, float]]],
    task: Task,
    machine: Machine,
) -> None:
    """`learn` with every choice of GRID in place of the options' own, each in a directory of out/grid;
    the model best on dev goes to `out`, with what was found in grid.json. Of equal ones the first."""
    before = _grid_before(out, task.main_metric)
    found: list[tuple[float, Options, Path]] = []
    for size, lr in itertools.product(*GRID.values()):
        chosen, place = replace(options, batch_size=int(size), lr=lr), out / "grid" / f"batch-{size}-lr-{lr:g}"
        learn(chosen, place)
        gone = place.name in before and not (place / "model.safetensors").exists()
        score = before[place.name] if gone else main_score(scores(place), task)
        log(f"grid: batch size {size}, learning rate {lr:g}: dev {task.main_metric} {score:.4f}")
        found.append((score, chosen, place))
    _, best, kept = max(found, key=lambda one: one[0])
    log(f"grid: batch size {best.batch_size} and learning rate {best.lr:g} are kept")
    if machine.workers.ranks.first and (kept / "model.safetensors").exists():
        Bert.load(kept).save(out)
        for name in ("metrics.jsonl", "run.json"):
            shutil.copyfile(kept / name, out / name)
        row = lambda score, tried, place: {"batch_size": tried.batch_size, "lr": tried.lr, task.main_metric: score, "kept": place == kept}
        write_json(out / "grid.json", [{**row(*one), "place": one[2].name} for one in found])
    machine.workers.ranks.wait()


def _grid_before(out: Path, metric: str) -> dict[str, float]:
    """The scores of a grid that is done, by the names of its places: their models may be gone."""
    path = out / "grid.json"
    try:
        rows = json.loads(path.read_bytes()) if path.is_file() else []
        return {str(row["place"]): float(row[metric]) for row in rows}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: not what a run left there; choose a new --out") from None


def judged_by(task: Task, recipe: Recipe) -> Task:
    """The task with the metric first by which the recipe keeps the best model."""
    if task.labels is None and recipe.regression_metric == "mean":
        return replace(task, metrics=("mean_correlation", *(name for name in task.metrics if name != "mean_correlation")))
    return task


def _check_original(task: Task, data: Path, recipe: Recipe) -> None:
    """InputError where the prediction step would learn a regression from what augment wrote: a
    changed sentence no longer deserves its score."""
    if task.labels is None and recipe.regression_data == "original" and (Path(data) / "augment.json").exists():
        raise InputError(f"{data}: augmented; {task.name}'s prediction step learns from the original data: give it by --prediction-data")


def load_teacher(path: str, task: Task, machine: Machine, recipe: Recipe = DEFAULT) -> Bert:
    """A teacher fine-tuned on the task, with the head that the recipe says. InputError where it has
    no classifier, or one for other labels."""
    teacher = Bert.load(path)
    if teacher.config.head != task.head:
        raise InputError(f"{path}: the teacher has no {WHAT[task.head][1]}; fine-tune it first: minitinybert finetune --model {path} …")
    check_answers(teacher.config, task, path)
    if recipe.teacher_head == "relu" and task.head == "classifier" and not teacher.config.classifier_relu:
        log(f"warning: {path}: asked with a relu before its classifier, as the recipe says, and not fine-tuned so (finetune --recipe)")
        teacher = with_relu(teacher, True)
    return machine.frozen(in_task_order(teacher, task)).for_reading()


def check_teacher(path: str, teacher: Bert, files: TaskData, machine: Machine) -> dict[str, float]:
    """Its dev metrics, before hours are spent. InputError where it is no better than a constant
    answer; on WNLI, whose teachers are as good as that, a warning."""
    task, dev = files.task, files.split(files.task.dev_splits[0])
    scores, nothing = judge_against_constant(teacher, task, dev, machine)
    log(f"teacher {path} on dev: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    if nothing and task.name == "wnli" and dev.labels is not None and scores["accuracy"] >= of_constant("accuracy", dev.labels):
        log(f"warning: {path}: the teacher's dev {nothing}")
    elif nothing:
        question = "is it fine-tuned on this task, and are its labels (id2label) in the order of its outputs?"
        raise InputError(f"{path}: the teacher's dev {nothing}; {question}")
    return scores


class _Taught(NamedTuple):
    """The teacher of a step, what it has said before of the training set `where`, and the maps that
    the student has learned before."""

    teacher: Bert
    recipe: Recipe
    answers: Answers
    where: Hashable
    projections: Mapping[str, np.ndarray]
    path: str  # the teacher's


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
    starting: str | None = None,
) -> None:
    task, examples = files.task, files.split("train")
    teacher: Teacher = NOBODY
    known: Mapping[str, np.ndarray] = {}
    conditions: dict[str, Any] = {"task": task.name, "max_length": files.max_length}
    conditions |= {"classifier_relu": model.config.classifier_relu, "padding_gradient": objective.padding_gradient}
    about = about_task(task, files.directory, files.max_length)
    if taught is not None:
        about["teacher"] = taught.path
        if taught.recipe.padding == "count":
            examples = replace(examples, pad_to=files.max_length, pad_id=files.tokenizer.pad_id)
        teacher = running = Running(taught.teacher, taught.recipe.teacher_dropout)
        if not (resume and finished(out, examples, options)):
            spare = 10 * model.parameters.flat.nbytes  # checkpoint and model, each beside the one before; and what else a run writes
            asked = (objective.teacher_view, taught.where, out, machine.workers, spare, options.epochs)
            teacher = taught.answers.of(running, examples, *asked)
        known = taught.projections
        rounds = taught.answers.rounds(running, examples, objective.teacher_view)
        conditions |= {"teacher's answers": KEPT.name if rounds else "unrounded"}
        conditions |= {**machine.conditions(taught.recipe), "teacher's weights": digest(to_host(taught.teacher.parameters.flat))}
    learner = Learner(model.to(machine.xp), objective, machine.workers, teacher, options.seed, known)
    on_dev: Callable[[Bert], dict[str, float]] | None = None
    if objective.student_view.logits:
        dev = files.split(task.dev_splits[0])
        on_dev = lambda m: judge(m, task, dev, machine)
    train(learner, examples, options, out, on_dev, task.main_metric, resume, description, conditions, about, starting)
