"""Whole models for the audit: BERT with each head, padded and packed, with dropout and without, a
random gradient at every place of its trace that is asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..engine.batch import Batch, packed, padded
from ..engine.device import Array, array_module, to_host
from ..model import encoder
from ..model.bert import Bert, layout
from ..model.bert import Cache as BertCache
from ..model.config import TOKEN_MAPS, Config
from ..model.parameters import Layout, Parameters
from ..model.trace import Trace
from .case import Case, Draw, Inputs

_DROPOUT_KEY = 0x5EED


def draw_config(draw: Draw, head: str, of: str = "", **fixed: Any) -> dict[str, Any]:
    """The arguments of a small Config: odd head sizes, both GELUs, one or two segments. Neither
    very narrow nor with a tiny ε: where a row is nearly constant, layer norm bends faster than
    difference quotients can follow. of: whose it is, where there are two."""
    heads, d_k = draw.choice([(1, 5), (5, 1), (2, 3), (1, 7), (4, 2), (3, 3)])
    config = {
        "vocab_size": draw.integer(3, 11),
        "hidden_size": heads * d_k,
        "num_hidden_layers": draw.integer(1, 3),
        "num_attention_heads": heads,
        "intermediate_size": draw.integer(1, 9),
        "hidden_act": draw.option(of + "GELU", ("gelu", "gelu_new")),
        "hidden_dropout_prob": draw.choice([0.1, 0.3]),
        "attention_probs_dropout_prob": draw.choice([0.1, 0.3]),
        "classifier_dropout": draw.option(of + "dropout of the classifier", (None, 0.4)),
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
    """A rectangle of ids with its mask, and whether it is to be packed. Padding lies anywhere but
    at the first token; or at the ends, to be packed; or nowhere."""
    lies = draw.option("batch", ("padded, with holes", "packed", "a rectangle without padding"), whole=True)
    B, L = draw.integer(2, 4), draw.integer(2, 6)
    mask = np.ones((B, L), bool)
    if lies == "packed":
        mask = np.arange(L) < np.array([L, *(draw.integer(1, L) for _ in range(B - 1))])[:, None]
    if lies == "padded, with holes":
        mask = draw.mask(B, L)
        mask[:, 0] = True
        mask[draw.integer(0, B - 1), draw.integer(1, L - 1)] = False
    ids = {"input_ids": draw.ids(vocab_size, B, L), "token_type_ids": draw.ids(segments, B, L)}
    return {**ids, "attention_mask": mask}, lies == "packed"


def make_batch(input_ids: Array, token_type_ids: Array, attention_mask: Array, is_packed: bool, labels: Array | None = None) -> Batch:
    ids, types, mask = (to_host(a) for a in (input_ids, token_type_ids, attention_mask))
    labels = None if labels is None else to_host(labels)
    if not is_packed:
        return padded(ids, mask, types, labels=labels)
    lengths = mask.sum(1)
    cut = lambda a: [row[:n] for row, n in zip(a, lengths, strict=True)]
    return packed(cut(ids), cut(types), labels=labels)


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
    is_rectangle: bool
    out: bool


def _draw_bert(draw: Draw, head: str, relu: bool) -> Inputs:
    pooler = head == "classifier" or (head == "none" and draw.option("pooler", (False, True)))
    raw = draw_config(draw, head, classifier_relu=relu, pooler=pooler)
    batch, is_packed = draw_batch(draw, raw["vocab_size"], raw["type_vocab_size"])
    call = _draw_call(draw, raw, is_packed)
    settings = {"config": raw, "is_packed": is_packed, "call": call}
    if head in ("mlm", "tokens") and draw.option("positions", (False, True)) and not call["rectangle"]:
        rows = batch["attention_mask"].sum() if is_packed else batch["input_ids"].size
        batch["positions"] = draw.ids(int(rows), draw.integer(1, 4))
    return Inputs({**batch, **draw_parameters(draw, layout(make_config(raw)))}, settings)


def _draw_call(draw: Draw, config: dict[str, Any], is_packed: bool) -> dict[str, Any]:
    """Which parts of the trace are asked for (of hidden and scores None: all), whether by
    `Bert.forward`, which has no dropout; dropout; and whether the gradient is written into arrays that hold
    something else."""
    M = config["num_hidden_layers"]
    views = {
        "all": (None, None, True),
        "the last layer's scores": ([], [M - 1], True),
        "the last hidden state": ([M], [], config["head"] in ("mlm", *TOKEN_MAPS)),
        "the first layer": ([0, 1], [0], False),
        "the head alone": ([], [], True),
    }
    if config["head"] == "none":
        views["the head alone"] = ([0], [], config["pooler"])
    hidden, scores, logits = views[draw.option("view", tuple(views))]
    way, out = draw.option("call", ("with dropout", "without", "Bert.forward")), draw.option("out", (True, False))
    if way == "Bert.forward" and not is_packed:
        hidden, scores, logits = views["all"]
    rectangle = way == "Bert.forward" and not is_packed
    return {"hidden": hidden, "scores": scores, "logits": logits, "rectangle": rectangle, "dropout": way == "with dropout", "out": out}


def _bert_forward(
    config: dict[str, Any], is_packed: bool, input_ids, token_type_ids, attention_mask, positions=None, call=None, **tensors: Array
) -> tuple[dict[str, Array], _ModelCache]:
    call = call or {}
    model, asked = make_model(make_config(config), tensors), {name: call[name] for name in ("hidden", "scores", "logits") if name in call}
    if call.get("rectangle"):
        trace, cache = model.forward(input_ids, attention_mask, token_type_ids)
    else:
        batch = make_batch(input_ids, token_type_ids, attention_mask, is_packed).to(array_module(model.parameters.flat))
        key = _DROPOUT_KEY if call.get("dropout") else None
        trace, cache = model.forward_batch(batch, key, positions=positions, **asked)
    return trace_parts(trace), _ModelCache(model, cache, call.get("rectangle", False), call.get("out", False))


def _bert_backward(dy: dict[str, Array], kept: _ModelCache) -> Parameters:
    out = kept.model.parameters.zeros_like() if kept.out else None
    if out is not None:
        out.flat.fill(7)
    return kept.model.backward(kept.cache, trace_of(dy, kept.model.config.num_hidden_layers), out)


def _bert_given(kept: _ModelCache) -> dict[str, Any]:
    return {"batch": kept.cache.batch.to(np), "keep": dropout_masks(kept.cache)}


def weights_of(inputs: Inputs, prefix: str = "") -> list[str]:
    """The names of a model's own tensors among a case's arrays."""
    return [name for name in inputs.arrays if name.startswith(prefix) and name.endswith((".weight", ".bias"))]


def _bert(name: str, formula: str, relu: bool = False) -> Case:
    draw = lambda source: _draw_bert(source, name.partition("-")[0], relu)
    return Case(f"bert.{name}", formula, draw, _bert_forward, _bert_backward, _bert_given, draws=4, declared=weights_of, apart=1)


BERT_CASES = (
    _bert("none", "BERT: E, H_1 … H_M, A_1 … A_M"),
    _bert("classifier", "BERT → tanh(H_M[0] Wₚᵀ + bₚ) → z"),
    _bert("classifier-relu", "BERT → relu(tanh(H_M[0] Wₚᵀ + bₚ)) → z, as the released code has it", relu=True),
    _bert("mlm", "BERT → LayerNorm(GELU(H_M Wᵀ + b)) Eᵀ + c, E tied"),
    _bert("tokens", "BERT → H_M Wᵀ + b → z of words"),
    _bert("spans", "BERT → H_M Wᵀ + b → z of beginnings and ends"),
)
