"""The recipe huawei-2019 against what the released code gave when it was run (reference/stored/released): the losses of ten steps, the
first step's gradients and the weights after the last, of every tensor that it has; in float32 to 1e-5, in float64 to rounding."""

import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from minitinybert import audit
from minitinybert.data.glue import TASKS
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.recipes import RECIPES
from minitinybert.engine.batch import padded
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training.loop import Options
from minitinybert.training.optim import PRESETS, SCHEDULES, Adam
from minitinybert.training.plan import general_options, plan_of
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

RELEASED = RECIPES["huawei-2019"]
CASES = (
    "general",
    "intermediate",
    "intermediate-equal-widths",
    "intermediate-low-scores",
    "prediction",
    "prediction-temperature",
    "regression",
)
IN_BETWEEN = CASES[:4]
TOLERANCES = {np.float32: 1e-5, np.float64: 1e-9}


@cache
def stored(case):
    with np.load(audit.stored_folder() / "released" / f"{case}.npz") as data:
        return {name: data[name] for name in data}


def under(arrays, prefix):
    return {name.removeprefix(prefix + "/"): value for name, value in arrays.items() if name.startswith(prefix + "/")}


def model_of(arrays, whose, settings, relu, dtype):
    """The stored weights in a model of ours."""
    classes = dict.fromkeys(range(settings["num_labels"]), "")
    head = "classifier" if settings["script"] == "task" else "none"
    model = Bert.new(Config(**settings[whose], id2label=classes, head=head, classifier_relu=relu), 0, dtype)
    weights = under(arrays, whose)
    for name in model.parameters:
        model.parameters[name][...] = weights["bert." + name if head == "none" and f"bert.{name}" in weights else name]
    return model


def run(case, recipe=RELEASED, dtype=np.float64, threads=1):
    """Our ten steps of a case: losses, the first gradients and the last weights, as they are stored."""
    arrays = stored(case)
    settings = json.loads(str(arrays["settings/json"]))
    recipe = replace(recipe, temperature=settings["temperature"])
    student = model_of(arrays, "student", settings, recipe.classifier_relu, dtype)
    teacher = model_of(arrays, "teacher", settings, recipe.teacher_head == "relu", dtype)
    in_between = case in IN_BETWEEN
    objective = Intermediate(student.config, teacher.config, recipe) if in_between else Prediction(recipe, case == "regression")
    known = {name: value for name, value in under(arrays, "student").items() if name.startswith("fit_dense")}
    learner = Learner(student, objective, Workers(threads), Running(teacher, recipe.teacher_dropout), projections=known)
    options = options_of(recipe, settings, in_between)
    adam = Adam(learner.student.parameters, PRESETS[options.optimizer], learner.workers, learner.untouched)
    inputs, losses, first = under(arrays, "batch"), [], {}
    with learner.workers:
        for step in range(settings["steps"]):
            ids, types, mask = (inputs[name][step].astype(np.int64) for name in ("ids", "types", "mask"))
            labels = inputs["labels"][step].astype(np.float64) if "labels" in inputs else None
            terms, gradients = learner.gradients(padded(ids, mask, types, labels=labels), step)
            losses.append({name: float(value) for name, value in terms.items()})
            first = first or {name: gradients[name].copy() for name in gradients}
            adam.step(gradients, options.lr * SCHEDULES[options.schedule](step, settings["steps"], options.warmup_of(settings["steps"])))
    return SimpleNamespace(arrays=arrays, losses=losses, first=first, weights=dict(learner.student.parameters.items()))


def options_of(recipe, settings, in_between) -> Options:
    given = {"lr": settings["lr"]}
    if settings["script"] == "general":
        return general_options(recipe, given)
    plan = plan_of(recipe, TASKS[settings["task"]], None, given, given)
    return plan.intermediate if in_between else plan.prediction


def spelt(name, arrays):
    return name if name in arrays else f"bert.{name}"


def worst(ours, theirs):
    """The largest difference of any entry of any tensor, and of which; relative to the tensor's largest where that is above 1."""
    differences = {name: np.abs(a - theirs[spelt(name, theirs)]).max() / max(np.abs(a).max(), 1) for name, a in ours.items()}
    name = max(differences, key=differences.get)
    return differences[name], name


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES)
def test_ten_steps_are_those_of_the_released_code(case, dtype):
    ours, tolerance = run(case, dtype=dtype), TOLERANCES[dtype]
    sums = [sum(terms.values()) for terms in ours.losses]
    assert sums == pytest.approx(ours.arrays["released/loss"], rel=tolerance)
    gradients, weights = (under(ours.arrays, f"released/{kind}") for kind in ("first gradient", "weights"))
    reached = {name: gradient for name, gradient in ours.first.items() if spelt(name, gradients) in gradients}
    assert {spelt(name, gradients) for name in reached} == gradients.keys()
    assert not any(gradient.any() for name, gradient in ours.first.items() if name not in reached)  # theirs is None
    whole = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    for name, gradient in reached.items():
        theirs = gradients[spelt(name, gradients)]
        assert np.linalg.norm(gradient - theirs) <= tolerance * max(np.linalg.norm(theirs), 1e-2 * whole), name
    assert {spelt(name, weights) for name in ours.weights} == weights.keys() - (
        {"fit_dense.weight", "fit_dense.bias"} - ours.weights.keys()
    )
    difference, name = worst(ours.weights, weights)
    assert difference <= tolerance, name


@pytest.mark.parametrize("case", IN_BETWEEN)
def test_the_terms_are_the_released_code_s_layer_by_layer(case):
    """There they are called in turn: attention of each layer, then embeddings and hidden states."""
    ours = run(case)
    M = json.loads(str(ours.arrays["settings/json"]))["student"]["num_hidden_layers"]
    theirs = ours.arrays["released/terms"]
    expected = {"attention": theirs[:, :M].sum(1), "embedding": theirs[:, M], "hidden": theirs[:, M + 1 :].sum(1)}
    for term, values in expected.items():
        assert [losses[term] for losses in ours.losses] == pytest.approx(values, rel=1e-9)


@pytest.mark.parametrize("case", IN_BETWEEN)
def test_the_row_of_pad_with_and_without_padding_idx(case):
    """The same run of the released code without `padding_idx` is another run, and is ours with [PAD] learned: so the tests above see it."""
    words = "embeddings.word_embeddings.weight"
    runs = {"released": run(case), "without padding_idx": run(case, replace(RELEASED, padding_gradient=True))}
    for name, other in (("released", "without padding_idx"), ("without padding_idx", "released")):
        ours = runs[name]
        theirs, others = (ours.arrays[f"{which}/weights/bert.{words}"] for which in (name, other))
        table = next(value for key, value in ours.weights.items() if key.endswith(words))
        assert np.abs(table - theirs).max() <= 1e-9
        assert np.abs(table - others)[0].max() > 1e-3 and np.abs(ours.arrays[f"{name}/loss"] - ours.arrays[f"{other}/loss"]).max() > 1e-3
        assert [sum(terms.values()) for terms in ours.losses] == pytest.approx(ours.arrays[f"{name}/loss"], rel=1e-9)
    pad = under(runs["released"].arrays, "student")[f"bert.{words}"][0]
    decayed = runs["released"].arrays[f"released/weights/bert.{words}"][0] / pad
    assert decayed == pytest.approx(np.full(len(pad), decayed[0]), rel=1e-6) and 1 - 2e-4 < decayed[0] < 1  # weight decay still reaches it


OTHERWISE = {
    "prediction_mean": ("prediction", "sentences"),
    "classifier_relu": ("prediction", False),
    "teacher_head": ("prediction", "own"),
    "regression_target": ("regression", "teacher"),
    "projection": ("intermediate", "layer"),
    "projection_bias": ("intermediate", False),
    "padding": ("intermediate", "exclude"),
    "padding_gradient": ("general", True),
    "optimizer": ("intermediate-low-scores", "bert"),
    "decay_untouched": ("intermediate", True),
    "intermediate_schedule": ("intermediate", "linear"),
}


@pytest.mark.parametrize("switch", OTHERWISE)
def test_no_switch_could_be_set_otherwise(switch):
    case, value = OTHERWISE[switch]
    assert getattr(RELEASED, switch) != value
    ours = run(case, replace(RELEASED, **{switch: value}))
    shared = {name: weight for name, weight in ours.weights.items() if "fit_dense" not in name}
    assert worst(shared, under(ours.arrays, "released/weights"))[0] > 1e-5


def test_shares_of_a_batch_leave_pad_out_too():
    one, two = (run("general", dtype=np.float64, threads=threads) for threads in (1, 2))
    assert worst(two.weights, one.weights)[0] <= 1e-12
