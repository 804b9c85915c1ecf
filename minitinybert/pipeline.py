"""What the commands do, as functions: fine-tune a teacher, distil a student on a task, evaluate, predict.

finetune ─▶ teacher directory ─▶ distill_task ─▶ student directory ─▶ evaluate, predict
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import evaluation
from .bert import Bert
from .classifiers import check_classifier, check_labels, in_task_order, known_projections, load_classifier, load_student
from .config import Config
from .data import metrics
from .data.batching import EncodedExamples
from .data.glue import Examples, Task, read_split, write_predictions
from .data.tokenizer import Tokenizer
from .device import to_host
from .distill import Intermediate, Prediction
from .errors import InputError
from .files import check_apart
from .learner import Learner
from .machine import Machine
from .objectives import Objective, Supervised, View
from .progress import log
from .recipes import DEFAULT, Recipe, hyperparameters_of
from .teacher_cache import Answers, TeacherCache, gigabytes
from .train import Options, digest, finished, train


class TaskData:
    """A task's files, tokenised for one model: `split("train")`. Reads and encodes a file once.

    InputError where the tokenizer does not fit the model, or max_length its positions.
    """

    def __init__(self, task: Task, directory: Path, tokenizer: Tokenizer, max_length: int, model: Bert):
        self.task, self.directory, self.tokenizer, self.model = task, Path(directory), tokenizer, model
        check_length(max_length, model.config)
        tokenizer.check_fits(model.config.vocab_size)
        self.max_length = max_length
        self._splits: dict[str, EncodedExamples] = {}

    def split(self, name: str) -> EncodedExamples:
        if name not in self._splits:
            self._splits[name] = encode(read_split(self.task, self.directory, name), self.tokenizer, self.max_length, self.model)
        return self._splits[name]

    def check(self) -> None:
        """InputError for what is wrong with the files that training reads, before hours are spent."""
        for name in ("train", *self.task.dev_splits):
            self.split(name)


def check_length(max_length: int, config: Config) -> None:
    """InputError where a model has not as many positions."""
    if not 3 <= max_length <= config.max_position_embeddings:
        raise InputError(f"--max-length {max_length}: a number from 3 to the model's {config.max_position_embeddings} positions")


def encode(examples: Examples, tokenizer: Tokenizer, max_length: int, model: Bert) -> EncodedExamples:
    """Texts as ids the model has rows for. A model without a second segment (type_vocab_size 1) sees pairs as one."""
    encoded = tokenizer.encode(examples.texts, examples.pairs, max_length)
    types = [e.token_type_ids for e in encoded]
    if model.config.type_vocab_size < 2:
        types = [np.zeros_like(t) for t in types]
    return EncodedExamples([e.input_ids for e in encoded], types, examples.labels)


# ---------------------------------------------------------------------------------------------------------- training commands


def finetune(
    model: str, task: Task, data: Path, out: Path, options: Options, machine: Machine, max_length: int = 128, resume: bool = False
) -> dict[str, Any]:
    """Fine-tune a BERT on a task's labels; the directory `out` holds the model best on dev. Returns {split: metrics}."""
    check_apart(out, data, model)
    student = load_classifier(model, task, options.seed)
    files = TaskData(task, data, Tokenizer.load(student.tokenizer_files), max_length, student)
    files.check()
    objective = Supervised(task.labels is None)
    _train(student, objective, files, options, Path(out), machine, resume, f"finetune {task.name}")
    return evaluate(str(out), task, data, machine, max_length)


def distill_task(
    teacher: str,
    student: str,
    task: Task,
    data: Path,
    out: Path,
    machine: Machine,
    stage: str = "both",
    intermediate: Options | None = None,
    prediction: Options | None = None,
    recipe: Recipe = DEFAULT,
    max_length: int | None = None,
    resume: bool = False,
    cache_gb: float = 4.0,
    weights: Mapping[str, float] | None = None,
    hard_labels: bool = False,
    prediction_data: Path | None = None,
    answers: Answers | None = None,
) -> dict[str, Any]:
    """Task-specific distillation (paper section 3.2): the intermediate layers first, then the prediction layer.

    teacher: a directory fine-tuned on the task; student: a directory, or a shape such as 4L-312D-12H-1200F for random weights.
    intermediate, prediction, max_length: None: as the recipe has them for the task. stage: "both", "intermediate", or "prediction", which
    goes on from out/intermediate where that is there.
    cache_gb bounds the file that keeps what the teacher says of each example, so that it is asked once and not at every epoch.
    prediction_data: another directory for the second step, as the paper has the original data for STS-B's (section 4.2).
    weights: λ of the first step's terms; hard_labels: the second step is fine-tuning on the data's labels; answers: shared by several
    students of one teacher (all three for ablations).
    The first step's model is kept in out/intermediate. Returns {split: metrics} on dev, {} after the first step alone.
    InputError, before anything is trained, for what does not fit together.
    """
    out = Path(out)
    check_apart(out, data, prediction_data or data, student, teacher)
    plan = hyperparameters_of(recipe, task.name, len(task.text_columns) > 1)
    first = intermediate or Options(plan.intermediate_epochs, plan.batch_size, plan.intermediate_lr)
    second = prediction or Options(plan.prediction_epochs, plan.batch_size, plan.prediction_lr)
    max_length = max_length or plan.max_length
    first = replace(first, schedule=recipe.intermediate_schedule, optimizer=recipe.optimizer)
    second = replace(second, optimizer=recipe.optimizer)
    asked_again = answers is not None or first.epochs > 1
    answers = answers or Answers(cache_gb if asked_again else 0.0)
    master = load_teacher(teacher, task, machine)
    place = out / "intermediate"
    if stage == "prediction" and (place / "model.safetensors").exists():
        log(f"the student of the intermediate step: {place}")
        student = str(place)
    pupil = load_student(student, master, task, first.seed, recipe)
    files = TaskData(task, data, Tokenizer.load(pupil.tokenizer_files), max_length, pupil)
    files.tokenizer.check_same_vocabulary(Tokenizer.load(master.tokenizer_files))
    last_files = TaskData(task, prediction_data, files.tokenizer, max_length, pupil) if prediction_data is not None else files
    objective = Intermediate(pupil.config, master.config, recipe, weights) if stage != "prediction" else None
    for each in (files, last_files):
        each.check()
    check_teacher(teacher, master, files, machine)
    if objective is not None:
        taught = _Taught(master, recipe, answers, (teacher, str(data), max_length), known_projections(student, recipe))
        _train(pupil, objective, files, first, place, machine, resume, "distill intermediate", taught)
        pupil = Bert.load(place)
    if stage == "intermediate":
        return {}
    regression = task.labels is None
    last: Objective = Supervised(regression) if hard_labels else Prediction(recipe, regression)
    taught = _Taught(master, recipe, answers, (teacher, str(last_files.directory), max_length), {})
    _train(pupil, last, last_files, second, out, machine, resume, "distill prediction", taught)
    return evaluate(str(out), task, last_files.directory, machine, max_length)


def load_teacher(path: str, task: Task, machine: Machine) -> Bert:
    """A teacher fine-tuned on the task. InputError where it has no classifier, or one for other labels."""
    teacher = Bert.load(path)
    if teacher.config.head != "classifier":
        raise InputError(f"{path}: the teacher has no classifier; fine-tune it first: minitinybert finetune --model {path} …")
    check_labels(teacher, task, path)
    return machine.frozen(in_task_order(teacher, task)).for_reading()


def check_teacher(path: str, teacher: Bert, files: TaskData, machine: Machine) -> dict[str, float]:
    """Its dev metrics, before hours are spent: InputError where it is worse than always saying the most frequent label (for correlations:
    than saying always the same); a warning where it is as good. On WNLI, teachers are."""
    task, dev = files.task, files.split(files.task.dev_splits[0])
    scores = _score(teacher, task, dev, machine)
    log(f"teacher {path} on dev: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    assert dev.labels is not None
    floor = float(np.bincount(dev.labels).max() / len(dev)) if task.main_metric == "accuracy" else 0.0
    score = scores[task.main_metric]
    constant = f"{path}: the teacher's dev {task.main_metric} is {score:.4f}, that of a constant answer {floor:.4f}"
    question = "is it fine-tuned on this task, and are its labels (id2label) in the order of its outputs?"
    if score < floor or (score == floor and task.name != "wnli"):
        raise InputError(f"{constant}; {question}")
    if score == floor:
        log(f"warning: {constant}")
    return scores


class _Taught(NamedTuple):
    """The teacher of a step, what it has said before of the training set `where`, and the maps that the student has learned before."""

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
    task, examples, extra, cache = files.task, files.split("train"), None, None
    teacher = taught.teacher if taught is not None else None
    if taught is not None and taught.recipe.padding == "count":
        examples = replace(examples, pad_to=files.max_length, pad_id=files.tokenizer.pad_id)
    dropout = taught is not None and taught.recipe.teacher_dropout
    done = resume and finished(out, examples, options)
    if taught is not None and not dropout and not done:  # it says the same of a sentence at every epoch
        if isinstance(objective, Prediction):
            logits = taught.answers.logits(
                taught.where, lambda: evaluation.logits(taught.teacher, examples, machine.workers, "ask the teacher")
            )
            extra, teacher = {"teacher_logits": logits}, None
        if isinstance(objective, Intermediate) and objective.teacher_view is not None:
            cache = _teacher_cache(taught, objective.teacher_view, examples, out, machine)
    known = taught.projections if taught is not None else None
    learner = Learner(model.to(machine.xp), objective, machine.workers, teacher, options.seed, dropout, cache, known)
    judge: Callable[[Bert], dict[str, float]] | None = None
    if not isinstance(objective, Intermediate):
        dev = files.split(task.dev_splits[0])
        judge = lambda m: _score(m, task, dev, machine)
    conditions = {"task": task.name, "max_length": files.max_length}
    if taught is not None:
        conditions |= {**machine.conditions(taught.recipe), "teacher's weights": digest(to_host(taught.teacher.parameters.flat))}
    train(learner, examples, options, out, judge, task.main_metric, resume, description, extra, conditions)


def _teacher_cache(taught: _Taught, view: View, examples: EncodedExamples, out: Path, machine: Machine) -> TeacherCache | None:
    """The teacher's traces of all examples, where they are not too large. Several ranks run it at every epoch, each on its share; and
    a GPU does, for which copying scores up takes longer than working them out."""
    if taught.recipe.padding == "count" or machine.workers.ranks.size > 1 or machine.xp is not np:
        return None
    size = gigabytes(examples.lengths(), taught.teacher.config, view, taught.teacher.parameters.flat.itemsize)
    if not taught.answers.limit:
        return None  # it is asked once anyway, or the user wants none
    if size > taught.answers.limit:
        log(f"the teacher is run at every epoch: a cache of its answers would take {size:.1f} GB (--cache-gb {taught.answers.limit:g})")
        return None
    out.mkdir(parents=True, exist_ok=True)
    ask = lambda: TeacherCache(taught.teacher, examples, view, out, machine.workers)
    return taught.answers.traces(taught.where, view, size, ask)


# ------------------------------------------------------------------------------------------------------- evaluate and predict


def _score(model: Bert, task: Task, examples: EncodedExamples, machine: Machine) -> dict[str, float]:
    assert examples.labels is not None
    values = evaluation.logits(model, examples, machine.workers)
    return metrics.evaluate(task.metrics, evaluation.predictions(values, task.labels is None), examples.labels)


def evaluate(
    model: str, task: Task, data: Path, machine: Machine, max_length: int = 128, splits: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """{split: {metric: value}} of a model on a task's labelled files, by default its dev ones (MNLI has two)."""
    judged, files = _judged(model, task, data, machine, max_length)
    results = {}
    for split in splits or task.dev_splits:
        examples = files.split(split)
        if examples.labels is None:
            raise InputError(f"{data}: split {split} has no labels; nothing to compare with")
        results[split] = _score(judged, task, examples, machine)
    return results


def _judged(model: str, task: Task, data: Path, machine: Machine, max_length: int) -> tuple[Bert, TaskData]:
    """A model with a classifier for the task, its labels in the task's order, and the task's files in its ids."""
    loaded = Bert.load(model)
    check_classifier(loaded.config, model)
    check_labels(loaded, task, model)
    judged = in_task_order(loaded, task).to(machine.xp)
    return judged, TaskData(task, data, Tokenizer.load(judged.tokenizer_files), max_length, judged)


def predict(model: str, texts: Sequence[str], machine: Machine, max_length: int = 128) -> list[dict[str, Any]]:
    """For each text (`first ||| second` for a pair) the label, and the probability of each; the number for regression."""
    loaded = Bert.load(model).to(machine.xp)
    if loaded.config.head != "classifier":
        raise InputError(f"{model}: has no classifier; fine-tune or distil it on a task first")
    halves = [text.split("|||", 1) for text in texts]
    if len({len(half) for half in halves}) > 1:
        raise InputError("some texts are pairs (first ||| second) and some are not; give one kind at a time")
    pairs = [half[1].strip() for half in halves] if len(halves[0]) == 2 else None
    examples = Examples([half[0].strip() for half in halves], pairs, None, list(range(1, len(texts) + 1)), Path("<arguments>"))
    check_length(max_length, loaded.config)
    encoded = encode(examples, Tokenizer.load(loaded.tokenizer_files), max_length, loaded)
    values = evaluation.logits(loaded, encoded, machine.workers)
    return [_answer(text, row, loaded.config) for text, row in zip(texts, values, strict=True)]


def predict_test(model: str, task: Task, data: Path, out: Path, machine: Machine, max_length: int = 128) -> list[str]:
    """Answer a task's test files in GLUE's leaderboard format, RTE.tsv or MNLI-m.tsv and MNLI-mm.tsv in `out`; returns their paths."""
    judged, files = _judged(model, task, data, machine, max_length)
    for split in task.test_splits:
        files.split(split)  # all are read before anything is written
    Path(out).mkdir(parents=True, exist_ok=True)
    written = []
    for split in task.test_splits:
        suffix = {"test_matched": "-m", "test_mismatched": "-mm"}.get(split, "")
        path = Path(out) / f"{task.leaderboard}{suffix}.tsv"
        values = evaluation.logits(judged, files.split(split), machine.workers)
        write_predictions(path, task, evaluation.predictions(values, task.labels is None))
        written.append(str(path))
    return written


def _answer(text: str, logits: np.ndarray, config: Config) -> dict[str, Any]:
    if config.problem_type == "regression" or config.num_labels == 1:
        return {"text": text, "score": float(logits[0])}
    p = np.exp(logits - logits.max(), dtype=np.float64)
    p /= p.sum()
    probabilities = {config.id2label[i]: round(float(p[i]), 6) for i in range(len(p))}
    return {"text": text, "label": config.id2label[int(p.argmax())], "probabilities": probabilities}
