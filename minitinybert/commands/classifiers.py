"""Models with a head for a task: teachers, students, what is to be fine-tuned; outputs in the
order of the task's labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..data.glue import Task, label_names, label_order
from ..data.squad import Squad
from ..distillation.recipes import DEFAULT, Recipe
from ..errors import InputError
from ..model.bert import Bert
from ..model.config import Config
from ..progress import log
from ..weights import read
from .shape import is_shape
from .students import is_checkpoint, new_student, random_model

# A head that is learned for a task: its name, and what a model without it has not.
WHAT = {
    "classifier": ("classifier", "classifier"),
    "tokens": ("classifier of words", "labels of words"),
    "spans": ("head of answers", "answers to questions"),
}


# ---------------------------------------------------------------------------------------------------- what a classifier says


def check_head(config: Config, path: str, head: str = "classifier") -> None:
    """InputError where a model has no such head, or two of its labels have one name."""
    if config.head != head:
        raise InputError(f"{path}: has no {WHAT[head][1]}; fine-tune or distil it on the task first")
    names = list(config.id2label.values())
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"{path}: two labels are called {twice!r:.60}; give each its own name under id2label in config.json")


def answer_kind(config: Config, path: str) -> str:
    """What a classifier's logits say: "score", a number; "label", one of several (softmax);
    "labels", each whether it holds (sigmoid).

    Every command that asks a classifier of texts asks this first. InputError where there is none,
    where its logits say none of these, or where two of its labels have one name.
    """
    check_head(config, path)
    if config.problem_type == "multi_label_classification":
        return "labels"
    if config.num_labels == 1:
        return "score"
    if config.problem_type == "regression":
        raise InputError(f"{path}: problem_type regression with {config.num_labels} outputs, of which only one number could be read")
    return "label"


def single_answer(config: Config, path: str) -> str:
    """`answer_kind` of a model that says one thing of a text, as a task's models do: "score" or
    "label"."""
    kind = answer_kind(config, path)
    if kind == "labels":
        raise InputError(
            f"{path}: a multi-label model (problem_type multi_label_classification): each of its outputs is a probability by itself, "
            "and not one of several; ask it with predict and texts, or fine-tune it on the task"
        )
    return kind


def check_answers(config: Config, task: Task, path: str) -> None:
    """InputError where a model is not one for the task: its head, with as many outputs as the task has
    labels, or one number for a score."""
    check_head(config, path, task.head)
    kind, wanted = single_answer(config, path) if task.head == "classifier" else "label", len(label_names(task))
    if config.num_labels != wanted:
        raise InputError(f"{path}: the {WHAT[task.head][0]} has {config.num_labels} outputs, task {task.name} needs {wanted}")
    needed = "score" if task.labels is None else "label"
    if kind != needed:
        raise InputError(f"{path}: the classifier's answer is a {kind}, task {task.name} needs a {needed}")


def labels_of(model: str, head: str = "classifier") -> list[str] | None:
    """The labels that a model with such a head answers, in order; None where it answers with a
    number."""
    config = Config.from_hf(read(model).config, f"{model}/config.json")
    check_head(config, model, head)
    number = head == "classifier" and single_answer(config, model) == "score"
    return None if number else config.labels


# ------------------------------------------------------------------------------------------------------------------- loading


def load_classifier(model: str, task: Task, seed: int, tokenizer: Path | None = None) -> Bert:
    """A checkpoint with a head for the task: its own, its outputs in the task's order, where that
    is for these labels (or as many without names); else a fresh one, and one for other things is not
    looked at. Or a shape, for random weights and the vocabulary of a tokenizer."""
    labels = dict(enumerate(label_names(task)))
    problem = "regression" if task.labels is None else "single_label_classification"
    says = {"id2label": labels, "problem_type": problem, "null_threshold": _no_answer(task)}
    if is_shape(model):
        return random_model(model, tokenizer, seed, head=task.head, pooler=task.head == "classifier", **says)
    if tokenizer is not None:
        raise InputError(f"--model {model}: has a vocabulary of its own; leave --tokenizer out")
    checkpoint = read(model)
    config = Config.from_hf(checkpoint.config, f"{model}/config.json")
    if _is_for(config, task, model):
        loaded = in_task_order(Bert.from_checkpoint(checkpoint, model), task)
    else:
        loaded = Bert.from_checkpoint(checkpoint, model, head=task.head, labels=list(labels.values()), seed=seed, fresh_head=True)
    return Bert(replace(loaded.config, **says), loaded.parameters, loaded.tokenizer_files)  # type: ignore[arg-type]


def _no_answer(task: Task) -> float | None:
    """The threshold of a model that learns from questions of which some have no answer."""
    if not isinstance(task, Squad) or not task.unanswerable:
        return None
    return task.null_threshold or 0.0


def _is_for(config: Config, task: Task, path: str) -> bool:
    """Whether a model has a head for the task; where it has another, that is said."""
    if config.head != task.head:
        return False
    try:
        check_answers(config, task, path)
        if task.labels is not None:
            label_order(task, config.id2label)
    except InputError as error:
        log(f"a fresh {WHAT[task.head][0]}, in the place of the model's: {error}")
        return False
    return True


def load_student(student: str, teacher: Bert, task: Task, seed: int, recipe: Recipe = DEFAULT) -> Bert:
    """A directory, a shape, or layers of the teacher (students.py)."""
    if not is_checkpoint(student):
        return new_student(student, teacher, seed, classifier_relu=recipe.classifier_relu and task.head == "classifier")
    return with_relu(load_classifier(student, task, seed), recipe.classifier_relu)


def with_relu(model: Bert, relu: bool) -> Bert:
    """The model with logits = classifier(relu(pooled)), or classifier(pooled); one without a
    classifier of texts as it is."""
    relu = relu and model.config.head == "classifier"
    return Bert(replace(model.config, classifier_relu=relu), model.parameters, model.tokenizer_files)


def tell_of_relu(config: Config, path: str | Path) -> None:
    """A line where transformers would compute other logits from the files than this model."""
    if config.head == "classifier" and config.classifier_relu:
        log(f"{path}: logits are classifier(relu(pooled)), which transformers' BertForSequenceClassification does not compute")


def in_task_order(model: Bert, task: Task) -> Bert:
    """The model with its head's rows in the task's order of labels (an MNLI model from
    elsewhere may have another)."""
    if task.labels is None:
        return model
    order = label_order(task, model.config.id2label)
    if order == list(range(len(order))):
        return model
    for name in ("classifier.weight", "classifier.bias"):
        model.parameters[name][...] = model.parameters[name][order]
    return Bert(replace(model.config, id2label=dict(enumerate(label_names(task)))), model.parameters, model.tokenizer_files)
