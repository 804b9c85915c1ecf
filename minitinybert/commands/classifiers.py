"""Models with a classifier for a task: teachers, students, what is to be fine-tuned; outputs in the
order of the task's labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..data.glue import Task, label_order
from ..data.squad import Squad
from ..distillation.recipes import DEFAULT, Recipe
from ..errors import InputError
from ..model.bert import Bert
from ..model.config import Config
from ..weights import read
from .shape import is_shape, parse_shape

WHAT = {"classifier": "classifier", "tokens": "labels of words", "spans": "answers to questions"}  # a head in words


def label_names(task: Task) -> list[str]:
    return ["score"] if task.labels is None else list(task.labels)


def load_classifier(model: str, task: Task, seed: int) -> Bert:
    """A checkpoint with a head for the task: its own, its outputs in the task's order, where that
    is for these labels (or as many without names); else a fresh one."""
    own = Bert.load(model)
    try:
        fits = own.config.head == task.head and own.config.num_labels == len(label_names(task))
        loaded = in_task_order(own, task) if fits else None
    except InputError:  # another task's labels
        loaded = None
    labels = dict(enumerate(label_names(task)))
    if loaded is None:
        loaded = Bert.load(model, head=task.head, labels=list(labels.values()), seed=seed, fresh_head=True)
    problem = "regression" if task.labels is None else "single_label_classification"
    config = replace(loaded.config, id2label=labels, problem_type=problem, null_threshold=_no_answer(task))
    return Bert(config, loaded.parameters, loaded.tokenizer_files)


def _no_answer(task: Task) -> float | None:
    """The threshold of a model that learns from questions of which some have no answer."""
    if not isinstance(task, Squad) or not task.unanswerable:
        return None
    return task.null_threshold or 0.0


def load_student(student: str, teacher: Bert, task: Task, seed: int, recipe: Recipe = DEFAULT) -> Bert:
    """A directory, or a shape: then random weights, with the teacher's vocabulary and tokenizer."""
    if not is_shape(student):
        loaded = load_classifier(student, task, seed)
        return Bert(replace(loaded.config, classifier_relu=recipe.classifier_relu), loaded.parameters, loaded.tokenizer_files)
    config = replace(teacher.config, **parse_shape(student), classifier_relu=recipe.classifier_relu)
    return Bert(config, Bert.new(config, seed).parameters, teacher.tokenizer_files)


def known_projections(student: str, recipe: Recipe) -> dict[str, np.ndarray]:
    """W_e and W_h of a student that was distilled before, where the recipe carries them over."""
    if is_shape(student) or not recipe.carry_projections:
        return {}
    return {name: tensor for name, tensor in read(student).tensors.items() if name.startswith("fit_dense")}


def labels_of(model: str, head: str = "classifier") -> list[str] | None:
    """The labels that a model with a classifier answers, in order; None where it answers with a
    number."""
    config = Config.from_hf(read(model).config, f"{model}/config.json")
    check_classifier(config, model, head)
    number = config.problem_type == "regression" or config.num_labels == 1
    return None if number else [config.id2label[i] for i in sorted(config.id2label)]


def check_classifier(config: Config, path: str, head: str = "classifier") -> None:
    """InputError where a model has no such head."""
    if config.head != head:
        raise InputError(f"{path}: has no {WHAT[head]}; fine-tune or distil it on the task first")


def check_labels(model: Bert, task: Task, path: str) -> None:
    """InputError where a model has not as many outputs as the task has labels."""
    wanted = len(label_names(task))
    if model.config.num_labels != wanted:
        raise InputError(f"{path}: the classifier has {model.config.num_labels} outputs, task {task.name} needs {wanted}")


def in_task_order(model: Bert, task: Task) -> Bert:
    """The model with its classifier's rows in the task's order of labels (an MNLI model from
    elsewhere may have another)."""
    if task.labels is None:
        return model
    order = label_order(task, model.config.id2label)
    if order == list(range(len(order))):
        return model
    for name in ("classifier.weight", "classifier.bias"):
        model.parameters[name][...] = model.parameters[name][order]
    return Bert(replace(model.config, id2label=dict(enumerate(task.labels))), model.parameters, model.tokenizer_files)
