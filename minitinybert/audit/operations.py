"""What the audit knows of each operation and loss: its equation, inputs worth drawing, how it is
called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..engine.batch import Run
from ..engine.device import Array, array_module
from ..engine.random import bits16
from ..losses import attention as attention_loss
from ..losses import cross_entropy, hidden, mlm, mse, prediction
from ..losses import embedding as embedding_loss
from ..model import self_attention
from ..ops import add_norm, dropout, embed_norm, embedding, feed_forward, gelu, layer_norm, linear, softmax
from ..ops.attention import Weights
from ..ops.embedding import Ids, Tables
from .case import Case, Draw, Inputs


def _named(names: str, backward: Callable[..., Any]) -> Callable[[dict[str, Array], Any], dict[str, Array]]:
    """The gradients that `backward(dy, cache)` returns, by their inputs' names in its order."""

    def call(dy: dict[str, Array], cache: Any) -> dict[str, Array]:
        gradients = backward(next(iter(dy.values())), cache)
        named = zip(names.split(), gradients if isinstance(gradients, tuple) else (gradients,), strict=True)
        return {name: gradient for name, gradient in named if gradient is not None}

    return call


def _operation(
    module: ModuleType, formula: str, names: str, draw: Callable[[Draw], Inputs], forward: Any = None, backward: Any = None, **more: Any
) -> Case:
    """y, cache = module.forward(…), looked up when it is called, as module.backward is where no
    others are given."""
    asked = forward or (lambda **inputs: module.forward(**inputs))

    def run(**inputs: Any) -> tuple[dict[str, Array], Any]:
        y, cache = asked(**inputs)
        return {"y": y}, cache

    named = _named(names, backward or (lambda dy, cache: module.backward(dy, cache)))
    return Case(module.__name__.removeprefix("minitinybert."), formula, draw, run, named, declared=lambda inputs: names.split(), **more)


def _loss(module: ModuleType, formula: str, names: str, draw: Callable[[Draw], Inputs]) -> Case:
    """loss, cache = module.forward(…), dloss a Python number."""

    def forward(**inputs: Any) -> tuple[dict[str, Array], Any]:
        loss, cache = module.forward(**inputs)
        return {"loss": loss}, cache

    backward = _named(names, lambda dloss, cache: module.backward(float(dloss), cache))
    return Case(module.__name__.removeprefix("minitinybert."), formula, draw, forward, backward, declared=lambda inputs: names.split())


# ---------------------------------------------------------------------------------------------------------------- operations


def _linear(draw: Draw) -> Inputs:
    d_in, d_out = draw.integer(1, 9), draw.integer(1, 9)
    arrays = {"x": draw.normal(*draw.rows(), d_in), "W": draw.normal(d_out, d_in)}
    return Inputs(arrays | ({"b": draw.normal(d_out)} if draw.option("bias", (True, False)) else {}), {})


def _embedding(draw: Draw) -> Inputs:
    d, V, positions, segments = draw.integer(1, 9), draw.integer(1, 9), draw.integer(1, 5), draw.integer(1, 2)
    rows = draw.rows()
    tables = {"W": draw.normal(V, d), "P": draw.normal(positions, d), "S": draw.normal(segments, d)}
    ids = {"word_ids": draw.ids(V, *rows), "position_ids": draw.ids(positions, *rows), "segment_ids": draw.ids(segments, *rows)}
    return Inputs(ids | tables, {})


def _embedding_forward(
    word_ids: Array, position_ids: Array, segment_ids: Array, W: Array, P: Array, S: Array
) -> tuple[Array, embedding.Cache]:
    return embedding.forward(Ids(word_ids, position_ids, segment_ids), Tables(W, P, S))


def _ramp(draw: Draw, d: int) -> np.ndarray:
    """Keeps a row away from constant, where σ, and with it every difference quotient, jumps."""
    return draw.rng.permutation(np.linspace(-1, 1, d))


def _norm(draw: Draw, d: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    eps = draw.option("eps", (1e-12, 1e-5, 1e-2)) if d > 1 else 1e-2  # of one number σ = √ε alone: 1/σ would magnify rounding
    return {"gain": 1 + draw.normal(d), "bias": draw.normal(d)}, {"eps": eps}


def _layer_norm(draw: Draw) -> Inputs:
    d = draw.integer(1, 9)
    x = draw.normal(*draw.rows(), d) + 3 * _ramp(draw, d)
    arrays, settings = _norm(draw, d)
    return Inputs({"x": x, **arrays}, settings)


def _rate(draw: Draw) -> float:
    return draw.option("dropout", (0.5, 0.1, 0.0))


def _embed_norm(draw: Draw) -> Inputs:
    arrays, _ = _embedding(draw)
    d = arrays["W"].shape[1]
    arrays["W"] += 5 * _ramp(draw, d)
    norm, settings = _norm(draw, d)
    return Inputs({**arrays, **norm, "keys": draw.keys(*arrays["word_ids"].shape)}, {**settings, "p": _rate(draw)})


def _embed_norm_forward(word_ids, position_ids, segment_ids, W, P, S, **more: Any) -> tuple[Array, embed_norm.Cache]:
    return embed_norm.forward(Ids(word_ids, position_ids, segment_ids), Tables(W, P, S), **more)


def _embed_norm_backward(dy: Array, cache: embed_norm.Cache) -> tuple[Array, ...]:
    """To the tables, too."""
    de, dgain, dbias = embed_norm.backward(dy, cache)
    return *embedding.backward(de, cache.lookup), dgain, dbias


def _add_norm(draw: Draw) -> Inputs:
    norm, p = _layer_norm(draw), _rate(draw)
    x = norm.arrays["x"].reshape(-1, norm.arrays["x"].shape[-1])
    T, d = x.shape
    arrays = {"a": 0.1 * draw.normal(T, d), "b": 0.1 * draw.normal(d), "x": x, "keys": draw.keys(T)}
    return Inputs(arrays | {name: norm.arrays[name] for name in ("gain", "bias")}, norm.settings | {"p": p})


def _add_norm_forward(a: Array, b: Array, **more: Any) -> tuple[Array, add_norm.Cache]:
    """The bias b of what comes out of the sub-layer is its linear map's, not this operation's: it
    is added before."""
    return add_norm.forward(a + b, **more)


def _add_norm_backward(dy: Array, cache: add_norm.Cache) -> tuple[Array, ...]:
    da, *others = add_norm.backward(dy, cache)
    return da, da.sum(axis=0), *others


def _gelu(draw: Draw) -> Inputs:
    f = draw.integer(1, 9)
    arrays = {"x": draw.normal(*draw.rows(), f, scale=2.0)}
    return Inputs(arrays | ({"b": draw.normal(f)} if draw.option("bias", (True, False)) else {}), {"approximate": _gelus(draw)})


def _gelus(draw: Draw) -> str:
    return draw.option("gelu", ("none", "tanh"))


def _gelu_forward(x: Array, approximate: str = "none", b: Array | None = None) -> tuple[Array, gelu.Cache]:
    return gelu.forward(x if b is None else x + b, approximate)


def _gelu_backward(dy: Array, cache: gelu.Cache) -> tuple[Array, Array]:
    dx = gelu.backward(dy, cache)
    return dx, dx.reshape(-1, dx.shape[-1]).sum(axis=0)


def _offset(draw: Draw) -> float:
    """Which no softmax sees; e to the power of it is no number of float32 or float64."""
    return draw.option("offset", (0.0, 800.0))


def _softmax(draw: Draw) -> Inputs:
    rows, L = draw.rows(), draw.integer(1, 9)
    s = draw.normal(*rows, L, scale=2.0) + _offset(draw)
    arrays = {"s": s, "keys": draw.keys(*rows)}
    if draw.option("mask", (True, False)):
        arrays["bias"] = np.where(draw.mask(rows[0], *[1] * (len(rows) - 1), L), 0.0, -1e9)
    return Inputs(arrays, {"rate": _rate(draw)})


def _softmax_forward(s: Array, keys: Array | None = None, rate: float = 0.0, bias: Array | None = None) -> tuple[Array, Weights]:
    """With a padding mask before it and dropout after it, as attention has it."""
    p, kept = softmax.forward(s if bias is None else s + bias)
    y, dropped = dropout.forward(p, rate, keys)
    return y, Weights(kept, dropped)


def _softmax_backward(dy: Array, cache: Weights) -> Array:
    return softmax.backward(dropout.backward(dy, cache.dropout), cache.softmax)


def _dropout(draw: Draw) -> Inputs:
    rows = draw.rows()
    x = {"x": draw.normal(*rows, draw.integer(1, 9))}
    keys = draw.keys(*rows)
    p = draw.option("dropout", (0.5, 0.1, 0.9, 0.0, "a number that is drawn"))
    if isinstance(p, str):  # the first of the row's: what is just as large stays
        p = float(bits16(keys, 1).flat[0]) / 65536
    return Inputs(x | ({"keys": keys} if draw.option("keys", (True, False)) else {}), {"p": min(p, 0.9)})


def _dropout_forward(x: Array, p: float, keys: Array | None = None) -> tuple[Array, dropout.Cache]:
    return dropout.forward(x, p, keys)


def _attention(draw: Draw) -> Inputs:
    heads, d_k = draw.integer(1, 3), draw.integer(1, 5)
    runs, start = [], 0
    for _ in range(draw.integer(1, 3)):
        run = Run(start, draw.integer(1, 3), draw.integer(1, 6))
        runs.append(list(run))
        start = run.stop
    every = draw.option("who asks", ("every token", "the first of each sentence")) == "every token"
    queries = start if every else sum(n for _, n, _ in runs)
    arrays = {"q": draw.normal(queries, heads * d_k), "kv": draw.normal(start, 2 * heads * d_k)}
    if draw.option("mask", (True, False), whole=True):
        arrays["attention_mask"] = np.concatenate([draw.mask(n, L).reshape(-1) for _, n, L in runs])
    if draw.option("keys", (True, False), whole=True):
        arrays["keys"] = draw.keys(queries)
    return Inputs(arrays, {"runs": runs, "heads": heads, "p": draw.option("dropout", (0.5, 0.1))})


class _Sentences(NamedTuple):
    """What attention sees of a batch."""

    runs: Sequence[Run]
    attention_mask: Array | None


class _AttentionCache(NamedTuple):
    q: Array
    attended: self_attention.Attended


def _attention_forward(
    q: Array, kv: Array, runs: list[list[int]], heads: int, p: float = 0.0, attention_mask: Array | None = None, keys: Array | None = None
) -> tuple[dict[str, Array], _AttentionCache]:
    d = q.shape[-1]
    sentences: Any = _Sentences([Run(*run) for run in runs], attention_mask)
    context, scores, cache = self_attention.attend(q, kv[:, :d], kv[:, d:], sentences, heads, p, keys)
    return {"context": context, "scores": scores}, _AttentionCache(q, cache)


def _attention_backward(dy: dict[str, Array], cache: _AttentionCache) -> dict[str, Array]:
    """A gradient of the scores alone comes with a context nobody looks at: zeros."""
    dcontext = dy["context"] if "context" in dy else cache.q * 0
    dq, dk, dv = self_attention.attend_backward(dcontext, dy.get("scores"), cache.attended)
    return {"q": dq, "kv": array_module(dq).concatenate([dk, dv], axis=1)}


def _attention_given(cache: _AttentionCache) -> dict[str, Any]:
    dropped = [rectangle.weights.dropout for rectangle in cache.attended.rectangles]
    return {"keep": [d.keep for d in dropped], "scale": dropped[0].scale}


def _feed_forward(draw: Draw) -> Inputs:
    d, f = draw.integer(1, 7), draw.integer(1, 9)
    arrays = {"x": draw.normal(*draw.rows(), d), "W1": draw.normal(f, d), "b1": draw.normal(f)}
    b2 = {"b2": draw.normal(d)} if draw.option("bias", (True, False)) else {}
    return Inputs(arrays | {"W2": draw.normal(d, f), **b2}, {"approximate": _gelus(draw)})


def _feed_forward_forward(b2: Array | None = None, **inputs: Any) -> tuple[Array, feed_forward.Cache]:
    return feed_forward.forward(b2=b2, **inputs)


# ---------------------------------------------------------------------------------------------------------------- losses


def _count(draw: Draw) -> dict[str, Any]:
    """A whole batch's count, of which these inputs are a part; or none."""
    return {"count": float(draw.integer(1, 50))} if draw.option("count", (True, False)) else {}


def _mse(draw: Draw) -> Inputs:
    rows, d = draw.rows(), draw.integer(1, 9)
    of_mask = draw.option("mask", ("entries", "rows", "none"))
    mask = {} if of_mask == "none" else {"mask": draw.mask(*rows, d if of_mask == "entries" else 1)}
    return Inputs({"x": draw.normal(*rows, d), "y": draw.normal(*rows, d), **mask}, _count(draw))


def _scores(draw: Draw) -> Inputs:
    n, h, L = draw.integer(1, 3), draw.integer(1, 4), draw.integer(1, 6)
    arrays = {"scores_S": draw.normal(n, h, L, L, scale=3.0), "scores_T": draw.normal(n, h, L, L, scale=3.0)}
    if draw.option("mask", (True, False)):
        real = draw.mask(n, 1, L)
        arrays["mask"] = real[..., :, None] & real[..., None, :]
    return Inputs(arrays, _count(draw))


def _hidden(draw: Draw) -> Inputs:
    """With a projection (with or without its bias), or of equal widths without one."""
    rows, d, d_student = draw.rows(), draw.integer(1, 9), draw.integer(1, 9)
    projection = draw.option("projection", ("with a bias", "without a bias", "none"))
    d_student = d if projection == "none" else d_student
    arrays = {"H_S": draw.normal(*rows, d_student), "H_T": draw.normal(*rows, d)}
    if projection != "none":
        arrays["W"] = draw.normal(d, d_student)
    if projection == "with a bias":
        arrays["b"] = draw.normal(d)
    if draw.option("mask", (True, False)):
        arrays["mask"] = draw.mask(*rows)
    return Inputs(arrays, _count(draw))


def _projected(module: ModuleType, formula: str) -> Case:
    case = _loss(module, formula, "H_S W b", _hidden)
    forward = case.forward
    return replace(case, forward=lambda W=None, **inputs: forward(W=W, **inputs))


def _prediction(draw: Draw) -> Inputs:
    B, C = draw.integer(1, 5), draw.integer(1, 5)
    logits = {"z_S": draw.normal(B, C, scale=2.0), "z_T": draw.normal(B, C, scale=2.0)}
    return Inputs(logits, {"temperature": draw.option("temperature", (2.0, 0.7, 1.0)), **_count(draw)})


def _cross_entropy(draw: Draw) -> Inputs:
    n, C = draw.integer(1, 6), draw.integer(1, 5)
    return Inputs({"z": draw.normal(n, C, scale=2.0) + _offset(draw), "labels": draw.ids(C, n)}, _count(draw))


def _mlm(draw: Draw) -> Inputs:
    rows, V = draw.rows(), draw.integer(1, 9)
    share = draw.option("asked", (0.5, 1.0, 0.0))
    labels = np.where(draw.rng.random(rows) < share, draw.ids(V, *rows), mlm.IGNORE)
    return Inputs({"z": draw.normal(*rows, V, scale=2.0), "labels": labels}, _count(draw))


CASES: tuple[Case, ...] = (
    _operation(linear, "y = x Wᵀ + b", "x W b", _linear),
    _operation(embedding, "y_t = W[id_t] + P[position_t] + S[segment_t]", "W P S", _embedding, _embedding_forward),
    _operation(layer_norm, "y = γ x̂ + β,  x̂ = (x − μ)/σ", "x gain bias", _layer_norm),
    _operation(
        embed_norm,
        "y = dropout(LayerNorm(W[id_t] + P[position_t] + S[segment_t]))",
        "W P S gain bias",
        _embed_norm,
        _embed_norm_forward,
        _embed_norm_backward,
        given=lambda cache: {"keep": cache.dropout.keep, "scale": cache.dropout.scale},
    ),
    _operation(
        add_norm,
        "y = LayerNorm(x + dropout(a))",
        "a b x gain bias",
        _add_norm,
        _add_norm_forward,
        _add_norm_backward,
        given=lambda cache: {"keep": cache.dropout.keep, "scale": cache.dropout.scale},
    ),
    _operation(gelu, "y = x Φ(x),  Φ(x) = ½(1 + erf(x/√2)),  Φ(x) = ½(1 + tanh(u))", "x b", _gelu, _gelu_forward, _gelu_backward),
    _operation(
        softmax,
        "p_i = e^{s_i} / Σ_j e^{s_j}",
        "s",
        _softmax,
        _softmax_forward,
        _softmax_backward,
        given=lambda cache: {"keep": cache.dropout.keep, "scale": cache.dropout.scale},
    ),
    _operation(
        dropout,
        "y = x m/(1 − p)",
        "x",
        _dropout,
        _dropout_forward,
        given=lambda cache: {"keep": cache.keep, "scale": cache.scale},
    ),
    Case(
        "ops.attention",
        "A = q kᵀ/√d_k,  P = softmax(A + mask),  c = dropout(P) v",
        _attention,
        _attention_forward,
        _attention_backward,
        given=_attention_given,
        declared=lambda inputs: ["q", "kv"],
    ),
    _operation(feed_forward, "y = GELU(x W₁ᵀ + b₁) W₂ᵀ + b₂", "x W1 b1 W2 b2", _feed_forward, _feed_forward_forward),
    _loss(mse, "L = (1/n) Σ_i m_i (x_i − y_i)²", "x", _mse),
    _loss(attention_loss, "L_attn = (1/h) Σ_i MSE(A_i^S, A_i^T)", "scores_S", _scores),
    _projected(hidden, "L_hidn = MSE(H^S W_h, H^T)"),
    _projected(embedding_loss, "L_embd = MSE(E^S W_e, E^T)"),
    _loss(prediction, "L_pred = CE(z^T/t, z^S/t) = −(1/n) Σ_b Σ_c p^T_bc log p^S_bc", "z_S", _prediction),
    _loss(cross_entropy, "L = −(1/n) Σ_b log p_b,y_b", "z", _cross_entropy),
    _loss(mlm, "L = −(1/n) Σ over masked positions of log p_{y}", "z", _mlm),
)
