"""How long and how fast distillation learns: decided here alone, from the recipe, the task, and
what the user gives.

What is given are options by name, as the command line has them (None: not given), or a whole
`Options`. What is not is the recipe's; the optimizer, the intermediate step's schedule, when the
model is judged and what becomes of incomplete batches are the recipe's in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data.glue import Task
from ..distillation.recipes import Recipe
from .loop import Options

Given = Options | Mapping[str, Any] | None
GENERAL_LENGTH = 128  # word pieces of general distillation's examples, in the paper and in the released code
# Of the paper's intermediate step; of other tasks 20. Of SQuAD, of which it does not say, as of QNLI, which is made of it.
_EPOCHS = {"mnli": 10.0, "qqp": 10.0, "qnli": 10.0, "cola": 50.0, "squad": 10.0}


@dataclass(frozen=True)
class Plan:
    """Of task-specific distillation: how many word pieces of a text are read, and how each of its
    steps learns."""

    max_length: int
    intermediate: Options
    prediction: Options


def plan_of(recipe: Recipe, task: Task, max_length: int | None = None, intermediate: Given = None, prediction: Given = None) -> Plan:
    """paper (section 4.2): 20 epochs of the intermediate step (10 for the large tasks, 50 for CoLA), 64 word pieces a sentence, 128 a pair
    (or tagged words), 384 a question with a window of its document. It tries batches of 16 and 32 and 1, 2 and 3e-5 for the prediction
    step; these are the larger ones. ours: as the paper. released: the README of the released code, and its defaults."""
    released = recipe.hyperparameters == "released"
    length = 64 if len(task.text_columns) == 1 and task.head == "classifier" and not released else task.max_length
    epochs = 10.0 if released else _EPOCHS.get(task.name, 20.0)
    first = {"epochs": epochs, "batch_size": 32, "lr": 5e-5}
    second = {"epochs": 3.0, "batch_size": 32, "lr": 3e-5}
    return Plan(
        max_length or length,
        _options(first, intermediate, recipe, schedule=recipe.intermediate_schedule),
        _options(second, prediction, recipe),
    )


def general_options(recipe: Recipe, given: Given = None) -> Options:
    """Of general distillation. paper: BERT's own (sections 4.1 and 4.2; BERT, A.2). released: its
    README's batch, its default learning rate and warm-up. ours: for one machine."""
    batch_size, lr, warmup = {"ours": (32, 1e-4, 0.1), "paper": (256, 1e-4, 10_000), "released": (256, 5e-5, 0.1)}[recipe.hyperparameters]
    return _options({"epochs": 3.0, "batch_size": batch_size, "lr": lr, "warmup": warmup}, given, recipe)


def finetune_options(recipe: Recipe, given: Given = None, **decided: str) -> Options:
    """Of a teacher: BERT's (A.3) in all recipes; neither the paper nor the released code says how
    theirs were made. decided: an optimizer that is not the recipe's."""
    return _options({"epochs": 3.0, "batch_size": 32, "lr": 5e-5}, given, recipe, **decided)


def _options(planned: Mapping[str, Any], given: Given, recipe: Recipe, **decided: str) -> Options:
    named = vars(given) if isinstance(given, Options) else given or {}
    of_recipe = {name: getattr(recipe, name) for name in ("optimizer", "eval_every", "incomplete_batches")}
    return Options(**{**planned, **{name: value for name, value in named.items() if value is not None}, **of_recipe, **decided})
