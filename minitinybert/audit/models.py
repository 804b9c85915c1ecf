"""Whole models for the audit: BERT with each head, padded and packed, dropout on, a random gradient
at every place of its trace; and the distillation objectives through teacher and student."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..distillation.distill import Intermediate, Prediction
from ..distillation.objectives import Objective
from ..distillation.recipes import Recipe
from ..distillation.tokens import SpanPrediction, TokenPrediction
from ..engine.batch import Batch, asking, packed, padded
from ..engine.device import Array, array_module, to_host
from ..model import encoder
from ..model.bert import Bert, layout
from ..model.bert import Cache as BertCache
from ..model.config import Config
from ..model.parameters import Layout, Parameters
from ..model.trace import Trace
from ..training.step import terms_of
from .case import Case, Draw, Inputs

_DROPOUT_KEY = 0x5EED


def draw_config(draw: Draw, head: str, **fixed: Any) -> dict[str, Any]:
    """The arguments of a small Config: odd head sizes, both GELUs, one or two segments. Neither
    very narrow nor with a tiny ε: where a row is nearly constant, layer norm bends faster than
    difference quotients can follow."""
    heads, d_k = draw.choice([(1, 5), (5, 1), (2, 3), (1, 7), (4, 2), (3, 3)])
    config = {
        "vocab_size": draw.integer(3, 11),
        "hidden_size": heads * d_k,
        "num_hidden_layers": draw.integer(1, 3),
        "num_attention_heads": heads,
        "intermediate_size": draw.integer(1, 9),
        "hidden_act": draw.choice(["gelu", "gelu_new"]),
        "hidden_dropout_prob": draw.choice([0.1, 0.3]),
        "attention_probs_dropout_prob": draw.choice([0.1, 0.3]),
        "classifier_dropout": draw.choice([None, 0.4]),
        "max_position_embeddings": 7,
        "type_vocab_size": draw.integer(1, 2),
        "layer_norm_eps": draw.choice([1e-3, 1e-2]),
        "head": head,
        "pooler": head == "classifier",
        "classifier_relu": False,
        "labels": draw.integer(1, 4),
    }
    return {**config, **({"labels": 2} if head == "spans" else {}), **fixed}


def make_config(raw: dict[str, Any]) -> Config:
    """From what JSON can hold: `labels` is how many there are."""
    rest = {name: value for name, value in raw.items() if name != "labels"}
    return Config(**rest, id2label={i: f"LABEL_{i}" for i in range(raw["labels"])})


def draw_parameters(draw: Draw, table: Layout, prefix: str = "") -> dict[str, np.ndarray]:
    """Random values for every tensor: gains are not 1, biases are not 0. The pooler stays away from
    0, where relu has a corner that difference quotients would smooth."""
    drawn = {}
    for name, view in Parameters.zeros(table).items():
        value = draw.normal(*view.shape, scale=0.2 if "pooler.dense.weight" in name else 1.0 if "_embeddings" in name else 0.4)
        if "LayerNorm.weight" in name:
            value += 1
        if "pooler.dense.bias" in name:
            value += np.where(value > 0, 0.8, -0.8)
        drawn[prefix + name] = value
    return drawn


def draw_batch(draw: Draw, vocab_size: int, segments: int) -> tuple[dict[str, np.ndarray], bool]:
    """A rectangle of ids with its mask, and whether it is to be packed; padding may lie anywhere
    but at the first token, unless so."""
    B, L, is_packed = draw.integer(1, 4), draw.integer(1, 6), draw.yes()
    mask = draw.mask(B, L)
    if is_packed:
        lengths = np.array([draw.integer(1, L) for _ in range(B)])
        mask = np.arange(L) < lengths[:, None]
    mask[:, 0] = True
    ids = {"input_ids": draw.ids(vocab_size, B, L), "token_type_ids": draw.ids(segments, B, L)}
    return {**ids, "attention_mask": mask}, is_packed


def make_batch(input_ids: Array, token_type_ids: Array, attention_mask: Array, is_packed: bool) -> Batch:
    ids, types, mask = (to_host(a) for a in (input_ids, token_type_ids, attention_mask))
    if not is_packed:
        return padded(ids, mask, types)
    lengths = mask.sum(1)
    return packed([row[:n] for row, n in zip(ids, lengths, strict=True)], [row[:n] for row, n in zip(types, lengths, strict=True)])


def make_model(config: Config, tensors: dict[str, Array], table: Layout | None = None) -> Bert:
    """A Bert of these values, in their dtype, on their device."""
    first = next(iter(tensors.values()))
    parameters = Parameters.zeros(table or layout(config), first.dtype, array_module(first))
    for name in parameters:
        parameters[name][...] = tensors[name]
    return Bert(config, parameters)


def trace_parts(trace: Trace) -> dict[str, Array]:
    """A trace as named arrays: embedding, hidden.0 …, scores.0 …, pooled, logits."""
    parts = {f"hidden.{i}": x for i, x in enumerate(trace.hidden or ())} | {f"scores.{i}": x for i, x in enumerate(trace.scores or ())}
    parts = {"embedding": trace.embedding, **parts, "pooled": trace.pooled, "logits": trace.logits}
    return {name: x for name, x in parts.items() if x is not None}


def trace_of(parts: dict[str, Array], layers: int) -> Trace:
    """The inverse of `trace_parts`; what is absent is None."""
    return Trace(
        parts.get("embedding"),
        [parts.get(f"hidden.{i}") for i in range(layers + 1)],
        [parts.get(f"scores.{i}") for i in range(layers)],
        parts.get("pooled"),
        parts.get("logits"),
    )


def dropout_masks(cache: BertCache) -> dict[str, Any]:
    """What was kept at each site, for the twin."""
    layers = [
        {
            "probabilities": [_all_queries(keep) for keep in probabilities],
            "attention_output": _all_rows(attended, layer.rows, len(cache.batch.input_ids)),
            "feed_forward_output": _all_rows(fed, layer.rows, len(cache.batch.input_ids)),
        }
        for layer in cache.layers
        for probabilities, attended, fed in [encoder.masks(layer)]
    ]
    classifier = None if cache.classifier is None else cache.classifier.dropout.keep
    tokens = None if cache.tokens is None else cache.tokens.dropout.keep
    return {"embedding": cache.embedding.dropout.keep, "layers": layers, "classifier": classifier, "tokens": tokens}


def _all_rows(keep: Array | None, rows: Array | None, T: int) -> Array | None:
    """Masks of the [CLS] rows (S, d) among those of all (T, d), of which nothing is seen: the twin
    works out every row."""
    if keep is None or rows is None:
        return keep
    full = array_module(keep).ones((T, keep.shape[-1]), bool)
    full[rows] = keep
    return full


def _all_queries(keep: Array | None) -> Array | None:
    """The like for (n, h, 1, L) among (n, h, L, L)."""
    if keep is None or keep.shape[2] == keep.shape[3]:
        return keep
    return array_module(keep).concatenate(
        [keep, array_module(keep).ones((*keep.shape[:2], keep.shape[3] - 1, keep.shape[3]), bool)], axis=2
    )


# ---------------------------------------------------------------------------------------------------------------- BERT


class _ModelCache(NamedTuple):
    model: Bert
    cache: BertCache


def _draw_bert(draw: Draw, head: str, relu: bool) -> Inputs:
    raw = draw_config(draw, head, classifier_relu=relu)
    batch, is_packed = draw_batch(draw, raw["vocab_size"], raw["type_vocab_size"])
    settings = {"config": raw, "is_packed": is_packed}
    if head in ("mlm", "tokens") and draw.yes():
        rows = batch["attention_mask"].sum() if is_packed else batch["input_ids"].size
        batch["positions"] = draw.ids(int(rows), draw.integer(1, 4))
    return Inputs({**batch, **draw_parameters(draw, layout(make_config(raw)))}, settings)


def _bert_forward(
    config: dict[str, Any], is_packed: bool, input_ids, token_type_ids, attention_mask, positions=None, **tensors: Array
) -> tuple[dict[str, Array], _ModelCache]:
    model = make_model(make_config(config), tensors)
    batch = make_batch(input_ids, token_type_ids, attention_mask, is_packed).to(array_module(model.parameters.flat))
    trace, cache = model.forward_batch(batch, _DROPOUT_KEY, positions=positions)
    return trace_parts(trace), _ModelCache(model, cache)


def _bert_backward(dy: dict[str, Array], kept: _ModelCache) -> Parameters:
    return kept.model.backward(kept.cache, trace_of(dy, kept.model.config.num_hidden_layers))


def _bert_given(kept: _ModelCache) -> dict[str, Any]:
    return {"batch": kept.cache.batch.to(np), "keep": dropout_masks(kept.cache)}


def _bert(name: str, formula: str, relu: bool = False) -> Case:
    draw = lambda source: _draw_bert(source, name.partition("-")[0], relu)
    return Case(f"bert.{name}", formula, draw, _bert_forward, _bert_backward, _bert_given, draws=8 if name == "tokens" else 4)


# ---------------------------------------------------------------------------------------------------------------- distillation


class _StepCache(NamedTuple):
    student: Bert
    cache: BertCache
    teacher_trace: Trace
    batch: Batch
    objective: Any  # weights by term -> Objective


def _draw_step(draw: Draw, intermediate: bool, head: str = "classifier") -> Inputs:
    student = draw_config(draw, head, num_hidden_layers=draw.integer(1, 2))
    shared = {name: student[name] for name in ("vocab_size", "type_vocab_size", "labels")}
    heads = student["num_attention_heads"] * draw.choice([1, 1, 2])
    teacher = draw_config(
        draw, head, **shared, num_attention_heads=heads, hidden_size=heads * draw.choice([3, 4]), num_hidden_layers=3
    )
    recipe: dict[str, Any] = {"temperature": draw.choice([1.0, 2.0]), "prediction_mean": draw.choice(["sentences", "elements"])}
    if intermediate:
        recipe = {
            "layers": draw.choice(["uniform", "top", "bottom"]),
            "projection": draw.choice(["shared", "layer", "split"]),
            "projection_bias": draw.yes(),
            "padding": draw.choice(["exclude", "count"]),
            "heads": "average",
        }
    batch, is_packed = draw_batch(draw, student["vocab_size"], student["type_vocab_size"])
    if head == "tokens":
        batch["asked"] = batch["attention_mask"] & draw.mask(*batch["attention_mask"].shape)
        batch["asked"][:, 0] = True
    settings = {"student": student, "teacher": teacher, "recipe": recipe, "is_packed": is_packed}
    student_tensors = draw_parameters(draw, _student_layout(settings), "student.")
    return Inputs({**batch, **student_tensors, **draw_parameters(draw, layout(make_config(teacher)), "teacher.")}, settings)


_PREDICTIONS = {"classifier": Prediction, "tokens": TokenPrediction, "spans": SpanPrediction}


def objective_of(settings: dict[str, Any], weights: dict[str, float] | None = None) -> Objective:
    """The objective of a drawn step."""
    recipe = Recipe(**settings["recipe"])
    if "projection" not in settings["recipe"]:
        return _PREDICTIONS[settings["student"]["head"]](recipe)
    return Intermediate(make_config(settings["student"]), make_config(settings["teacher"]), recipe, weights)


def _student_layout(settings: dict[str, Any]) -> Layout:
    return layout(make_config(settings["student"]), objective_of(settings).slots)


def distillation(inputs: Inputs) -> tuple[Bert, Bert, Batch]:
    """Student, teacher and batch of a drawn distillation step."""
    arrays, settings = inputs
    part = lambda prefix: {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
    student = make_model(make_config(settings["student"]), part("student."), _student_layout(settings))
    teacher = make_model(make_config(settings["teacher"]), part("teacher."))
    batch = make_batch(arrays["input_ids"], arrays["token_type_ids"], arrays["attention_mask"], settings["is_packed"])
    if "asked" in arrays:
        places = [np.flatnonzero(row) for row in to_host(arrays["asked"])[batch.sentences]]
        batch = asking(batch, places, [np.zeros(len(own), np.int64) for own in places])
    return student, teacher, batch.to(array_module(student.parameters.flat))


def _step_forward(student, teacher, recipe, is_packed, **arrays: Array) -> tuple[dict[str, Array], _StepCache]:
    settings = {"student": student, "teacher": teacher, "recipe": recipe, "is_packed": is_packed}
    student_model, teacher_model, batch = distillation(Inputs(arrays, settings))
    objective = objective_of(settings)
    assert objective.teacher_view is not None
    teacher_trace, _ = teacher_model.forward_batch(batch, keep_cache=False, **objective.teacher_view.arguments(batch))
    terms, cache = terms_of(objective, student_model, batch, teacher_trace, _DROPOUT_KEY)
    return terms.losses, _StepCache(student_model, cache, teacher_trace, batch, lambda weights: objective_of(settings, weights))


def _step_backward(dlosses: dict[str, Array], kept: _StepCache) -> dict[str, Array]:
    """The gradient of a loss is its weight λ in the total: student and objective are asked again,
    with these."""
    weights = {name: float(dlosses.get(name, 0.0)) for name in ("embedding", "hidden", "attention", "prediction")}
    terms, _ = terms_of(kept.objective(weights), kept.student, kept.batch, kept.teacher_trace, _DROPOUT_KEY)
    dtrace = terms.dtrace
    if "prediction" in dlosses:
        dtrace = Trace(logits=weights["prediction"] * dtrace.logits)  # type: ignore[operator]
    grads = kept.student.backward(kept.cache, dtrace)
    for name, gradient in terms.dprojections.items():
        grads[name][...] = gradient
    return {f"student.{name}": grads[name] for name in grads}


def _step_given(kept: _StepCache) -> dict[str, Any]:
    return {"batch": kept.batch.to(np), "keep": dropout_masks(kept.cache), "map": getattr(kept.objective(None), "map", ())}


def _step(name: str, formula: str, intermediate: bool, zero: tuple[str, ...], head: str = "classifier") -> Case:
    draw = lambda source: _draw_step(source, intermediate, head)
    return Case(name, formula, draw, _step_forward, _step_backward, _step_given, draws=3 if head == "classifier" else 6, zero=zero)


_HEAD = ("pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias")  # no intermediate loss contains them
_KEY_BIAS = ("self.key.bias",)  # adds the same number to a whole row of scores, which softmax does not see
# Nor does the softmax over a sentence's pieces see what is added to all of them (a large draw's student has two layers).
_SAME_EVERYWHERE = (*_KEY_BIAS, "qa_outputs.bias", "layer.1.output.LayerNorm.bias")


MODEL_CASES: tuple[Case, ...] = (
    _bert("none", "BERT: E, H_1 … H_M, A_1 … A_M"),
    _bert("classifier", "BERT → tanh(H_M[0] Wₚᵀ + bₚ) → z"),
    _bert("classifier-relu", "BERT → relu(tanh(H_M[0] Wₚᵀ + bₚ)) → z, as the released code has it", relu=True),
    _bert("mlm", "BERT → LayerNorm(GELU(H_M Wᵀ + b)) Eᵀ + c, E tied"),
    _bert("tokens", "BERT → H_M Wᵀ + b → z of words"),
    _bert("spans", "BERT → H_M Wᵀ + b → z of beginnings and ends"),
    _step("distill.intermediate", "Σ_m L_embd, L_hidn + L_attn, through W_e, W_h and the student", True, _HEAD),
    _step("distill.prediction", "L_pred through the student", False, _KEY_BIAS),
    _step("distill.tokens", "L_pred of words", False, _KEY_BIAS, "tokens"),
    _step("distill.spans", "½ (L_pred of beginnings + L_pred of ends)", False, _SAME_EVERYWHERE, "spans"),
)
