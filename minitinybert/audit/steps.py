"""Steps of training for the audit: every objective through teacher and student, the batch as a whole
and in shares; what the first step of distillation compares, on drawn traces; and the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..distillation.distill import Intermediate, Prediction, WithWords
from ..distillation.objectives import MaskedLM, Objective, Supervised, Terms
from ..distillation.recipes import Recipe
from ..distillation.tokens import SpanPrediction, TokenPrediction
from ..engine.batch import Batch, Masked, Totals
from ..engine.device import Array, array_module
from ..engine.parallel import Workers
from ..engine.random import key
from ..losses.attention import UNSEEN
from ..model.bert import Bert, layout
from ..model.config import TOKEN_MAPS, Config
from ..model.parameters import Layout, Parameters, Slot
from ..model.trace import Trace
from ..training.optim import PRESETS, SCHEDULES, Adam
from ..training.shares import Learner
from ..training.step import extended, step, terms_of
from ..training.teacher import NOBODY, Running
from .case import Case, Draw, Inputs
from .models import draw_batch, draw_config, draw_parameters, dropout_masks, make_batch, make_config, make_model, weights_of

AT = (5, 7)  # seed and number of the steps
# The options of a step that is taken many times, and by others: labels that are classes, every λ 1, a teacher without dropout.
PLAIN = {"labels": "classes", "λ": "1", "left out": None, "unequal heads": "average", "teacher's dropout": False,
         "attention's": "scores"}
_LEARNED = ("embedding", "hidden", "attention")
_HEAD = ("pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias")  # no intermediate loss contains them
_KEY_BIAS = ("self.key.bias",)  # adds the same number to a whole row of scores, which softmax does not see
# Nor does the softmax over a sentence's tokens see what is added to all of them; the student has two layers.
_SAME_EVERYWHERE = (*_KEY_BIAS, "qa_outputs.bias", "layer.1.output.LayerNorm.bias")
_OF_TOKENS: dict[str, Callable[[Recipe], Objective]] = {"tokens": TokenPrediction, "spans": SpanPrediction}


# ---------------------------------------------------------------------------------------------------------------- what is drawn


def _draw_recipe(draw: Draw) -> tuple[dict[str, Any], dict[str, float] | None]:
    """What the first step of distillation can be: switches, and λ of its terms."""
    recipe = {
        "layers": draw.option("layer map", ("uniform", "top", "bottom", "1,3")),
        "projection": draw.option("projection", ("split", "shared", "layer", "none")),
        "projection_bias": draw.option("projection's bias", (True, False)),
        "padding": draw.option("padding", ("exclude", "count"), whole=True),
        "heads": draw.option("unequal heads", ("average", "drop")),
        "teacher_dropout": draw.option("teacher's dropout", (False, True)),
        "attention_target": draw.option("attention's", ("scores", "probabilities")),
    }
    recipe["project_equal_widths"] = recipe["projection"] != "none"
    weights = None
    if draw.option("λ", ("1", "others"), whole=True) == "others":
        weights = {"embedding": 0.6, "hidden": 1.3, "attention": 0.7}
    left_out = draw.option("left out", (None, *_LEARNED))
    if left_out is not None:
        weights = (weights or dict.fromkeys(_LEARNED, 1.0)) | {left_out: 0.0}
    return recipe, weights


def _draw_heads(draw: Draw) -> int:
    """Of the student; the teacher has two."""
    return {"as many": 2, "more": 4, "fewer": 1}[draw.option("the student's heads", ("as many", "more", "fewer"), whole=True)]


def _draw_step(draw: Draw, kind: str) -> Inputs:
    """kind: "intermediate", "words" (the same with a prediction of words), "prediction", "supervised"
    or "mlm"; or "tokens" or "spans", a prediction of these heads."""
    call = {"shares": draw.option("shares", ("one", "on threads", "in turns"))}
    settings: dict[str, Any] = {"kind": kind, "call": call}
    regression = kind in ("prediction", "supervised") and draw.option("labels", ("classes", "numbers"), whole=True) == "numbers"
    settings["regression"] = regression
    taught, head = kind not in ("supervised", "mlm"), kind if kind in ("mlm", *TOKEN_MAPS) else "classifier"
    head = "mlm" if kind == "words" else head
    labels = {"labels": 1 if regression else 2 if head == "spans" else draw.integer(2, 4)}
    heads = _draw_heads(draw) if taught else 2
    width = 6 if heads < 4 else 8
    relu = kind in ("prediction", "supervised") and draw.option("relu", (False, True))
    fixed: dict[str, Any] = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": 2, "classifier_relu": relu, **labels}
    student = draw_config(draw, head, **fixed)
    settings["student"] = student
    if kind in ("intermediate", "words"):
        settings["recipe"], settings["weights"] = _draw_recipe(draw)
    if kind == "words":
        settings["recipe"] |= {"general_prediction": 0.8, "temperature": 2.0}
        settings["recipe"]["prediction_mean"] = draw.option("mean", ("sentences", "elements"))
    elif kind != "intermediate" and taught:
        settings["recipe"] = {
            "temperature": draw.option("temperature", (2.0, 1.0)),
            "prediction_mean": draw.option("mean", ("sentences", "elements")),
            **({"regression_target": draw.option("target", ("teacher", "labels"))} if kind == "prediction" else {}),
            "teacher_dropout": draw.option("teacher's dropout", (False, True)),
        }
    tensors: dict[str, np.ndarray] = {}
    if "recipe" in settings:
        same = {name: student[name] for name in ("vocab_size", "type_vocab_size", "labels", "classifier_relu")}
        wider = width + (0 if settings["recipe"].get("projection") == "none" else 4 if heads == 4 else 2)
        settings["teacher"] = draw_config(
            draw, head, "teacher's ", **same, hidden_size=wider, num_attention_heads=2, num_hidden_layers=3
        )
        tensors = draw_parameters(draw, layout(make_config(settings["teacher"])), "teacher.")
    batch, settings["is_packed"] = draw_batch(draw, student["vocab_size"], student["type_vocab_size"])
    sentences, places = len(batch["input_ids"]), batch["input_ids"].shape
    if kind in ("prediction", "supervised"):
        batch["labels"] = draw.normal(sentences) if regression else draw.ids(labels["labels"], sentences)
    if kind == "words" and draw.option("words", ("masked", "all")) == "masked":
        batch["asked"], batch["words"] = batch["attention_mask"] & (draw.rng.random(places) < 0.6), draw.ids(2, *places)
        batch["asked"][:, 0] = True
    if kind == "mlm":
        batch["asked"] = batch["attention_mask"] & (draw.rng.random(places) < 0.6) & (draw.option("words", ("some", "none")) == "some")
        batch["words"] = draw.ids(student["vocab_size"], *places)
    if kind == "tokens":  # each sentence has words
        batch["asked"] = batch["attention_mask"] & (draw.rng.random(places) < 0.6)
        batch["asked"][:, 0] = True
        batch["words"] = draw.ids(labels["labels"], *places)
    own = draw_parameters(draw, layout(make_config(student), objective_of(settings).slots), "student.")
    return Inputs({**batch, **own, **tensors}, settings)


# ---------------------------------------------------------------------------------------------------------------- a step taken


def objective_of(settings: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Objective:
    """The objective of a drawn step, with these λ in the place of its own."""
    if settings["kind"] == "mlm":
        return MaskedLM()
    if settings["kind"] == "supervised":
        return Supervised(settings["regression"])
    recipe = Recipe(**settings["recipe"])
    if settings["kind"] == "prediction":
        return Prediction(recipe, settings["regression"])
    if settings["kind"] in _OF_TOKENS:
        return _OF_TOKENS[settings["kind"]](recipe)
    configs, weights = (make_config(settings["student"]), make_config(settings["teacher"])), weights or settings.get("weights")
    if settings["kind"] == "intermediate":
        return Intermediate(*configs, recipe, weights)
    return WithWords(*configs, recipe, weights)


def distillation(inputs: Inputs) -> tuple[Bert, Bert, Batch]:
    """Student (with the objective's own parameters), teacher and batch of a drawn distillation
    step."""
    arrays, settings = inputs
    config = make_config(settings["student"])
    student = make_model(config, _part(arrays, "student."), layout(config, objective_of(settings).slots))
    teacher = make_model(make_config(settings["teacher"]), _part(arrays, "teacher."))
    return student, teacher, _batch_of(inputs).to(array_module(student.parameters.flat))


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _batch_of(inputs: Inputs) -> Batch:
    """The batch on the host, with its labels or masked words."""
    arrays, is_packed = inputs.arrays, inputs.settings["is_packed"]
    batch = make_batch(arrays["input_ids"], arrays["token_type_ids"], mask := arrays["attention_mask"], is_packed, arrays.get("labels"))
    if "asked" not in arrays:
        return batch
    lies = make_batch(arrays["asked"], arrays["words"], mask, is_packed)  # in the batch's order
    rows = np.flatnonzero(lies.input_ids)
    ends = np.searchsorted(rows, np.append(batch.cls_rows[1:], len(batch.input_ids)))
    return replace(batch, masked=Masked(rows, lies.token_type_ids[rows], ends), totals=batch.totals._replace(masked=len(rows)))


class _StepCache(NamedTuple):
    inputs: Inputs
    gradients: Parameters  # of the sum of the losses
    objective: Objective


def _take(inputs: Inputs, objective: Objective) -> tuple[dict[str, Array], Parameters]:
    """One step: as `step` takes it; or in shares, by a learner that took one with other words before. The
    gradients go into arrays that held something else."""
    arrays, settings = inputs
    config, own = make_config(settings["student"]), _part(arrays, "student.")
    slots = [slot.name for slot in objective.slots]
    student = make_model(config, {name: a for name, a in own.items() if name not in slots})
    projections, batch, shares = {name: own[name] for name in slots}, _batch_of(inputs), settings.get("call", {}).get("shares", "one")
    teacher = NOBODY if objective.teacher_view is None else _teacher_of(inputs)
    if shares == "one":
        student = extended(student, objective, 0, projections)
        gradients = student.parameters.zeros_like()
        gradients.flat.fill(7)
        return step(student, objective, batch.to(array_module(gradients.flat)), teacher, AT, gradients), gradients
    with Workers(2) as workers:
        learner = Learner(student, objective, workers, teacher, AT[0], projections, share_rows=None if shares == "on threads" else 2)
        other = replace(batch, input_ids=(batch.input_ids + 1) % config.vocab_size)
        learner.gradients(other, AT[1] - 1)
        return learner.gradients(batch, AT[1])


def _teacher_of(inputs: Inputs) -> Running:
    teacher = make_model(make_config(inputs.settings["teacher"]), _part(inputs.arrays, "teacher."))
    return Running(teacher, inputs.settings["recipe"]["teacher_dropout"])


def _gathered(inputs: Mapping[str, Any]) -> Inputs:
    """The keyword arguments of a call, arrays and settings, as they were drawn."""
    arrays = {name: a for name, a in inputs.items() if hasattr(a, "dtype")}
    return Inputs(arrays, {name: value for name, value in inputs.items() if name not in arrays})


def _step_forward(**inputs: Any) -> tuple[dict[str, Array], _StepCache]:
    drawn = _gathered(inputs)
    objective = objective_of(drawn.settings)
    losses, gradients = _take(drawn, objective)
    return losses, _StepCache(drawn, gradients, objective)


def _step_values(**inputs: Any) -> dict[str, Array]:
    """The losses of the whole batch, whatever its shares are, and no way back."""
    drawn = _gathered(inputs)
    objective, config, own = objective_of(drawn.settings), make_config(drawn.settings["student"]), _part(drawn.arrays, "student.")
    student = make_model(config, own, layout(config, objective.slots))
    batch, view = _batch_of(drawn).to(array_module(student.parameters.flat)), objective.teacher_view
    taught = None if view is None else _teacher_of(drawn).answer(batch, view, AT)
    return terms_of(objective, student, batch, taught, key(*AT))[0].losses


def _step_backward(dlosses: dict[str, Array], kept: _StepCache) -> dict[str, Array]:
    """The gradient of a loss is its weight λ in the total: of several the step is taken again, with
    these."""
    if isinstance(kept.objective, Intermediate):
        weights = {name: _of_all_layers(kept.objective, name) * float(dlosses.get(name, 0.0)) for name in _LEARNED}
        if isinstance(kept.objective, WithWords):
            weights["prediction"] = _of_all_layers(kept.objective, "prediction") * float(dlosses.get("prediction", 0.0))
        _, grads = _take(kept.inputs, objective_of(kept.inputs.settings, weights))
        return {f"student.{name}": grads[name] for name in grads}
    (dloss,) = dlosses.values()
    return {f"student.{name}": kept.gradients[name] * dloss for name in kept.gradients}


def _step_given(kept: _StepCache) -> dict[str, Any]:
    """Where the student's dropout, and the teacher's, kept something."""
    inputs, settings = kept.inputs, kept.inputs.settings
    config, objective = make_config(settings["student"]), kept.objective
    student = make_model(config, _part(inputs.arrays, "student."), layout(config, objective.slots))
    batch = _batch_of(inputs).to(array_module(student.parameters.flat))
    masks = lambda model, view, at: dropout_masks(model.forward_batch(batch, key(*at), **view.arguments(batch))[1])
    given = {"batch": batch.to(np), "keep": masks(student, objective.student_view, AT)}
    if settings.get("recipe", {}).get("teacher_dropout"):
        given["teacher_keep"] = masks(distillation(inputs)[1], objective.teacher_view, (*AT, 1))
    return given


def _step(name: str, formula: str, kind: str, zero: tuple[str, ...]) -> Case:
    draw = lambda source: _draw_step(source, kind)
    declared = lambda inputs: weights_of(inputs, "student.")
    way = {"draws": 3, "zero": zero, "declared": declared, "values": _step_values, "apart": 1}
    return Case(name, formula, draw, _step_forward, _step_backward, _step_given, **way)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------- what is compared


def _draw_layers(draw: Draw) -> Inputs:
    """Traces of two layers and of three, with scores of which many are too low to be compared; the
    batch may be a share of a larger one."""
    heads, (recipe, weights) = _draw_heads(draw), _draw_recipe(draw)
    width = 4 if recipe["projection"] == "none" else 6
    batch, is_packed = draw_batch(draw, 2, 1)
    mask = batch["attention_mask"]
    lengths = mask.sum(1) if is_packed else np.full(len(mask), mask.shape[1])
    rows, pairs = int(lengths.sum()), int((lengths**2).sum())
    arrays = {f"hidden_S.{m}": draw.normal(rows, 4) for m in range(3)}
    scale = 100 if recipe["attention_target"] == "scores" else 2  # a softmax of large scores hardly moves
    arrays |= {f"scores_S.{l}": draw.normal(heads * pairs, scale=scale) for l in range(2)}
    arrays |= {f"hidden_T.{n}": draw.normal(rows, width) for n in range(4)}
    arrays |= {f"scores_T.{l}": draw.normal(2 * pairs, scale=scale) for l in range(3)}
    for l in range(3):
        arrays[f"scores_T.{l}"][0] = UNSEEN  # just too low
    settings = {"width": width, "heads": heads, "recipe": recipe, "weights": weights, "is_packed": is_packed}
    settings["share"] = draw.option("share", (True, False))
    own = {slot.name: draw.normal(*slot.shape) for slot in _objective_of_layers(settings).slots}
    return Inputs({**batch, **arrays, **own}, settings)


def _objective_of_layers(settings: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Intermediate:
    student = Config(hidden_size=4, num_attention_heads=settings["heads"], num_hidden_layers=2)
    teacher = Config(hidden_size=settings["width"], num_attention_heads=2, num_hidden_layers=3)
    return Intermediate(student, teacher, Recipe(**settings["recipe"]), settings["weights"] if weights is None else weights)


def _of_all_layers(objective: Intermediate, term: str) -> float:
    """λ of a term, which in the audit's draws is one for all layers."""
    weight = objective.weights[term]
    assert isinstance(weight, float)
    return weight


class _LayersCache(NamedTuple):
    inputs: Inputs
    terms: Callable[[Mapping[str, float] | None], Terms]  # of λ by term
    weights: dict[str, float]
    batch: Batch


def _layers_forward(**inputs: Any) -> tuple[dict[str, Array], _LayersCache]:
    drawn = _gathered(inputs)
    arrays, settings = drawn
    batch = _batch_of(drawn)
    if settings["share"]:
        batch = replace(batch, totals=Totals(*(2 * n + 1 for n in batch.totals)))
    there = batch.to(array_module(arrays["hidden_S.0"]))
    several = lambda name, count: [arrays[f"{name}.{i}"] for i in range(count)]
    student = Trace(hidden=several("hidden_S", 3), scores=several("scores_S", 2))
    teacher = Trace(hidden=several("hidden_T", 4), scores=several("scores_T", 3))
    terms = lambda weights: _objective_of_layers(settings, weights)(student, there, teacher, arrays)
    objective = _objective_of_layers(settings)
    return terms(None).losses, _LayersCache(drawn, terms, {name: _of_all_layers(objective, name) for name in _LEARNED}, batch)


def _layers_backward(dlosses: dict[str, Array], kept: _LayersCache) -> dict[str, Array | None]:
    """By the terms' λ, again; of a loss that nobody looks at the gradient is zero."""
    terms = kept.terms({name: kept.weights[name] * float(dlosses.get(name, 0.0)) for name in _LEARNED})
    seen = lambda term: bool(float(dlosses.get(term, 0.0)))
    unseen = set(_layers_declared(kept.inputs)) - set(_looked_at(kept.inputs.settings, seen))
    nothing: dict[str, Array | None] = {name: 0 * kept.inputs.arrays[name] for name in unseen}
    states = {f"hidden_S.{m}": d for m, d in enumerate(terms.dtrace.hidden or ()) if d is not None}
    scores = {f"scores_S.{l}": d for l, d in enumerate(terms.dtrace.scores or ()) if d is not None}
    return nothing | states | scores | dict(terms.dprojections)


_MAPS = {"split": ("fit_dense_embedding", *["fit_dense_hidden"] * 2), "shared": ("fit_dense",) * 3, "none": (None,) * 3}
_MAPS["layer"] = tuple(f"fit_denses.{m}" for m in range(3))


def _looked_at(settings: Mapping[str, Any], seen: Callable[[str], bool]) -> list[str]:
    """Names of what the terms that are seen look at, and of the maps between."""
    recipe = settings["recipe"]
    layers = [0] * seen("embedding") + [1, 2] * seen("hidden")
    maps = dict.fromkeys(_MAPS[recipe["projection"]][m] for m in layers)
    endings = (".weight", ".bias") if recipe["projection_bias"] else (".weight",)
    compared = seen("attention") and (settings["heads"] == 2 or recipe["heads"] == "average")
    scores = [f"scores_S.{l}" for l in range(2)] if compared else []
    return [f"hidden_S.{m}" for m in layers] + scores + [name + ending for name in maps if name for ending in endings]


def _layers_declared(inputs: Inputs) -> list[str]:
    weights = inputs.settings["weights"] or {}
    return _looked_at(inputs.settings, lambda term: weights.get(term, 1.0) != 0)


# ---------------------------------------------------------------------------------------------------------------- the optimiser


def _draw_adam(draw: Draw, preset: str) -> Inputs:
    """Parameters that decay and parameters that do not, and a gradient of each for each step. Some
    are larger than what the optimiser takes at a time; their numbers come again and again, and lie here once."""
    beyond, total = draw.option("size", ("beyond a stretch", "small")) == "beyond a stretch", draw.option("steps", (3, 2))
    # b.weight, the last that decays, fills its place to the end.
    sizes = {"a.weight": 331 if beyond else 15, "b.weight": 64, "a.bias": 331 if beyond else 7, "LayerNorm.weight": 6}
    arrays = {name: draw.normal(n) for name, n in sizes.items()}
    scale = {"large": 1.0, "small": 1e-4}[draw.option("the gradient's norm", ("large", "small"))]
    for name, n in sizes.items():
        arrays[f"gradient of {name}"] = scale * np.exp(draw.normal(total, 1)) * draw.normal(total, n)
    settings: dict[str, Any] = {"preset": preset, "schedule": draw.option("schedule", ("linear", "constant"))}
    settings["copies"] = {"a.weight": 1601, "b.weight": 1, "a.bias": 801, "LayerNorm.weight": 1} if beyond else dict.fromkeys(sizes, 1)
    settings |= {"lr": 0.1, "total": total, "warmup": draw.option("warm-up", (1, 0, 2)), "threads": draw.option("threads", (2, 1, 3))}
    return Inputs(arrays, settings)


def _adam_forward(
    preset: str, schedule: str, lr: float, total: int, warmup: int, threads: int, copies: dict[str, int], **arrays: Array
) -> tuple[dict[str, Array], None]:
    """θ, m and √v after all steps (v itself is smaller than a judge of float32 looks): of all the
    copies of a number the largest and the smallest, which are one."""
    first = arrays["a.weight"]
    xp = array_module(first)
    own = {name: xp.tile(a, copies[name]) for name, a in arrays.items() if name in copies}
    parameters = Parameters.zeros(Layout(Slot(name, a.shape) for name, a in own.items()), first.dtype, xp)
    for name, a in own.items():
        parameters[name][...] = a
    grads = parameters.zeros_like()
    with Workers(threads) as workers:
        adam = Adam(parameters, PRESETS[preset], workers)
        for i in range(total):
            for name in own:
                grads[name][...] = xp.tile(arrays[f"gradient of {name}"][i], copies[name])
            adam.step(grads, lr * SCHEDULES[schedule](i, total, warmup))
    kinds = {"θ": parameters, "m": adam.m, "√v": {name: xp.sqrt(adam.v[name]) for name in own}}
    by_copy = {f"{kind} of {name}": a.reshape(copies[name], -1) for kind, of in kinds.items() for name, a in of.items()}
    return {name: xp.stack([a.max(axis=0), a.min(axis=0)]) for name, a in by_copy.items()}, None


def _adam(preset: str, formula: str) -> Case:
    return Case(f"optim.{preset}", formula, lambda draw: _draw_adam(draw, preset), _adam_forward, None, draws=1)


_LAYERS = "λ_embd L_embd, Σ_m λ_hidn L_hidn + λ_attn L_attn of two drawn traces"

STEP_CASES = (
    Case(
        "distill.layers",
        _LAYERS,
        _draw_layers,
        _layers_forward,
        _layers_backward,
        lambda kept: {"batch": kept.batch},
        draws=1,
        declared=_layers_declared,
    ),
    _step("distill.intermediate", "Σ_m L_embd, L_hidn + L_attn, through W_e, W_h and the student", "intermediate", (*_HEAD, *_KEY_BIAS)),
    _step("distill.words", "the same, and L_pred of words", "words", _KEY_BIAS),
    _step("distill.prediction", "L_pred through the student", "prediction", _KEY_BIAS),
    _step("distill.tokens", "L_pred of words", "tokens", _KEY_BIAS),
    _step("distill.spans", "½ (L_pred of beginnings + L_pred of ends)", "spans", _SAME_EVERYWHERE),
    _step("train.supervised", "cross-entropy with classes, or the square of numbers' differences", "supervised", _KEY_BIAS),
    _step("train.mlm", "cross-entropy with the masked words", "mlm", _KEY_BIAS),
)
OPTIMISER_CASES = (
    _adam("adamw", "θ ← θ − lr (m̂/(√v̂ + ε) + λθ),  ε = 1e-8"),
    _adam("bert", "θ ← θ − lr (m/(√v + ε) + λθ),  ε = 1e-6"),
    _adam("bert-adam", "θ ← θ − lr (m/(√v + ε) + λθ),  each tensor's gradient clipped"),
)
