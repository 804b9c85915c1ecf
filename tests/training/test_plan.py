"""What distillation learns with: the recipe's, by task, but for what is given."""

from dataclasses import asdict, replace

import pytest

from minitinybert.data.glue import TASKS
from minitinybert.data.squad import squad_task
from minitinybert.data.tagging import Tagging
from minitinybert.distillation.recipes import RECIPES
from minitinybert.errors import InputError
from minitinybert.training.loop import Options
from minitinybert.training.plan import finetune_options, general_options, plan_of

WORDS = Tagging("tokens", TASKS["cola"].text_columns, TASKS["cola"].label_column, ("a", "b"), ("f1",), {})
PAPER, RELEASED, DEFAULT = (RECIPES[name] for name in ("paper", "huawei-2019", "default"))
OF_RELEASED = {"optimizer": "bert-adam", "eval_every": 50, "incomplete_batches": False}


@pytest.mark.parametrize(
    "recipe, task, planned",
    [
        (PAPER, TASKS["cola"], (64, 32, 50, 5e-5, 3, 3e-5)),
        (DEFAULT, TASKS["mnli"], (128, 32, 10, 5e-5, 3, 3e-5)),
        (DEFAULT, replace(TASKS["sst-2"], name="custom"), (64, 32, 20, 5e-5, 3, 3e-5)),
        (RELEASED, TASKS["cola"], (128, 32, 10, 5e-5, 3, 3e-5)),
        (PAPER, squad_task(), (384, 32, 10, 5e-5, 3, 3e-5)),
        (RELEASED, squad_task(), (384, 32, 10, 5e-5, 3, 3e-5)),
        (DEFAULT, WORDS, (128, 32, 20, 5e-5, 3, 3e-5)),
    ],
    ids=["paper", "large", "custom", "released", "questions", "questions, released", "words"],
)
def test_hyperparameters_by_task(recipe, task, planned):
    plan = plan_of(recipe, task)
    first, second = plan.intermediate, plan.prediction
    assert first.batch_size == second.batch_size
    assert (plan.max_length, first.batch_size, first.epochs, first.lr, second.epochs, second.lr) == planned
    assert first.optimizer == second.optimizer == recipe.optimizer
    assert (first.schedule, second.schedule) == (recipe.intermediate_schedule, "linear")


def test_what_is_given_counts_and_none_is_not_given():
    given = {"epochs": 0.5, "lr": None, "batch_size": 8, "warmup": 0.2, "seed": 3, "log_every": 7, "save_every": 9}
    plan = plan_of(RELEASED, TASKS["cola"], 17, given, {"lr": 1e-3})
    assert plan.max_length == 17
    assert plan.intermediate == Options(0.5, 8, 5e-5, 0.2, "constant", "bert-adam", 3, 7, 9, 50, False)
    assert plan.prediction == Options(3.0, 32, 1e-3, **OF_RELEASED)


def test_whole_options_are_all_given_but_what_is_the_recipe_s():
    whole = Options(2, 5, 1e-3, 0.3, "constant", "adamw", 4, 6, 8)
    plan = plan_of(RELEASED, TASKS["cola"], None, replace(whole, schedule="linear"), whole)
    assert asdict(plan.intermediate) == asdict(plan.prediction) == {**asdict(whole), **OF_RELEASED}
    assert plan_of(RELEASED, TASKS["cola"], None, plan.intermediate, plan.prediction) == plan
    assert general_options(RELEASED, whole) == replace(whole, **OF_RELEASED)


def test_general_distillation():
    """BERT's batch, rate and warm-up in the paper; the released code's own; ours."""
    assert general_options(DEFAULT) == Options(3.0, 32, 1e-4)
    assert general_options(PAPER, {"lr": None, "warmup": None}) == Options(3.0, 256, 1e-4, 10_000, optimizer="bert")
    assert general_options(RELEASED) == Options(3.0, 256, 5e-5, **OF_RELEASED)
    assert general_options(RELEASED, {"lr": 1e-3, "batch_size": None}) == Options(3.0, 256, 1e-3, **OF_RELEASED)


def test_a_teacher():
    given = {"epochs": 2.0, "lr": None}
    assert finetune_options(DEFAULT, given) == Options(2.0, 32, 5e-5)
    assert finetune_options(RELEASED, given) == Options(2.0, 32, 5e-5, **OF_RELEASED)
    assert finetune_options(RELEASED, given, optimizer="adamw").optimizer == "adamw"


def test_a_value_out_of_range_is_said():
    with pytest.raises(InputError, match="--epochs 0: a number above 0"):
        plan_of(DEFAULT, TASKS["cola"], intermediate={"epochs": 0})
