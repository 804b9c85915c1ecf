"""One encoder layer (paper section 2), forward and, line for line in reverse, backward.

a = attention(x) Wₒᵀ             y = LayerNorm(x + dropout(a + bₒ))
u = GELU(y W₁ᵀ + b₁) W₂ᵀ         z = LayerNorm(y + dropout(u + b₂))

Where only the [CLS] rows of the last layer are looked at, only they ask (`rows`): all else of that layer is keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .batch import Batch
from .device import Array, fused
from .memory import new
from .ops import add_norm, attention, feed_forward, linear
from .parameters import Parameters, Slot


class LayerArrays(NamedTuple):
    """The arrays of one layer: its weights, or their gradients. q, k and v are one matrix (3d, d) and one bias (3d,)."""

    qkv: tuple[Array, Array]
    output: Array  # Wₒ
    attention_norm: tuple[Array, Array, Array]  # bₒ, γ, β
    feed_forward: tuple[Array, Array, Array]  # W₁, b₁, W₂
    output_norm: tuple[Array, Array, Array]  # b₂, γ, β

    @classmethod
    def of(cls, parameters: Parameters, layer: int) -> LayerArrays:
        return parameters.once(layer, lambda: cls._of(parameters, layer))

    @classmethod
    def _of(cls, parameters: Parameters, layer: int) -> LayerArrays:
        get = lambda name: parameters[f"encoder.layer.{layer}.{name}"]
        pair = lambda name: (get(f"{name}.weight"), get(f"{name}.bias"))
        return cls(
            pair("attention.self.qkv"),
            get("attention.output.dense.weight"),
            (get("attention.output.dense.bias"), *pair("attention.output.LayerNorm")),
            (*pair("intermediate.dense"), get("output.dense.weight")),
            (get("output.dense.bias"), *pair("output.LayerNorm")),
        )


def slots(prefix: str, d: int, f: int) -> list[Slot]:
    """The tensors of one layer by their Hugging Face names, `prefix` ending in `encoder.layer.N.`."""
    qkv = [f"{prefix}attention.self.{name}" for name in ("query", "key", "value")]
    listed = [
        Slot(f"{prefix}attention.self.qkv.weight", (3 * d, d), tuple(name + ".weight" for name in qkv)),
        Slot(f"{prefix}attention.self.qkv.bias", (3 * d,), tuple(name + ".bias" for name in qkv)),
    ]
    for name, shape in (
        ("attention.output.dense", (d, d)),
        ("attention.output.LayerNorm", (d,)),
        ("intermediate.dense", (f, d)),
        ("output.dense", (d, f)),
        ("output.LayerNorm", (d,)),
    ):
        listed += [Slot(f"{prefix}{name}.weight", shape), Slot(f"{prefix}{name}.bias", (shape[0],))]
    return listed


class Dropout(NamedTuple):
    """What a layer drops: probabilities, and the keys of its three sites (3, T), or three times None for no dropout."""

    hidden: float
    attention: float
    keys: Any


Attend = Callable[..., tuple[Array, Any, attention.Cache]]  # called as `ops.attention.forward`, but for its last two arguments
NO_DROPOUT = Dropout(0.0, 0.0, (None, None, None))


class Cache(NamedTuple):
    rows: Array | None
    projections: tuple[linear.Cache, ...]  # of q, k and v together; of q, and of k and v, where only some rows ask
    attention: attention.Cache
    output: linear.Cache
    attention_norm: add_norm.Cache
    feed_forward: feed_forward.Cache
    output_norm: add_norm.Cache


@fused
def forward(
    x: Array,
    W: LayerArrays,
    batch: Batch,
    heads: int,
    eps: float,
    approximate: str,
    drop: Dropout = NO_DROPOUT,
    rows: Array | None = None,
    keep_cache: bool = True,
    keep_scores: bool = True,
    attend: Attend | None = None,
) -> tuple[Array, Any, Cache]:
    """x (T, d) -> z (T, d), or (S, d) of the rows (S,), one a sentence; the layer's attention scores (flat), None where they are not to be
    kept; cache. `attend` stands for `ops.attention.forward`, and what it gives in the place of the scores is handed on.
    """
    asking = x if rows is None else x[rows]
    q, kv, projections = _project(x, asking, W.qkv)
    keys = drop.keys if rows is None or drop.keys[0] is None else drop.keys[:, rows]
    attended = q, kv, batch.runs, heads, batch.attention_mask, drop.attention, keys[0], batch.cls_rows, W.qkv[1]
    context, A, c_attention = attend(*attended) if attend else attention.forward(*attended, keep_scores, keep_cache)
    a, c_output = linear.forward(context, W.output)
    y, c_norm_y = add_norm.forward(a, W.attention_norm[0], asking, *W.attention_norm[1:], eps, drop.hidden, keys[1], keep_cache)
    u, c_feed_forward = feed_forward.forward(y, *W.feed_forward, approximate, keep_cache)
    z, c_norm_z = add_norm.forward(u, W.output_norm[0], y, *W.output_norm[1:], eps, drop.hidden, keys[2], keep_cache)
    return z, A, Cache(rows, projections, c_attention, c_output, c_norm_y, c_feed_forward, c_norm_z)


@fused
def backward(dz: tuple[Array, ...], dscores: Array | None, cache: Cache, dW: LayerArrays) -> tuple[Array, ...]:
    """dz, terms shaped as z that add up to its gradient, dscores (flat, or None) -> dx, terms (T, d) likewise; the gradients of the
    weights are written into dW.

    Each residual y + u hands its gradient to both terms: dy is what comes through the feed-forward and what goes round it.
    """
    du, _, dy_round, _, _ = add_norm.backward(dz[0], cache.output_norm, dW.output_norm, dz[1:])
    dy, _, _, _ = feed_forward.backward(du, cache.feed_forward, dW.feed_forward)
    da, _, dx_round, _, _ = add_norm.backward(dy, cache.attention_norm, dW.attention_norm, (dy_round,))
    dcontext, _, _ = linear.backward(da, cache.output, (dW.output, None))
    dx, dx_rows = _project_backward(dcontext, dscores, cache, dW.qkv)
    if dx_rows is None:
        return dx, dx_round
    dx[cache.rows] += dx_rows + dx_round
    return (dx,)


@fused
def masks(cache: Cache) -> tuple[list[Array | None], Array | None, Array | None]:
    """What dropout left, for whoever computes the layer again: of the probabilities, a run each (n, h, Q, L), of the attention's output
    and the feed-forward's, (T, d) or (S, d). None where nothing was dropped."""
    return [w.dropout.keep for w in cache.attention.weights], cache.attention_norm.dropout.keep, cache.output_norm.dropout.keep


def _project(x: Array, asking: Array, W: tuple[Array, Array]) -> tuple[Array, Array, tuple[linear.Cache, ...]]:
    """q, kv without their bias, by one GEMM, or, where only some rows ask, by two."""
    d = x.shape[-1]
    if asking is x:
        qkv, cache = linear.forward(x, *W, add=False)  # [T, d] -> [T, 3d]
        return qkv[:, :d], qkv[:, d:], (cache,)
    q, c_q = linear.forward(asking, W[0][:d], W[1][:d], add=False)
    kv, c_kv = linear.forward(x, W[0][d:], W[1][d:], add=False)
    return q, kv, (c_q, c_kv)


def _project_backward(dcontext: Array, dscores: Array | None, cache: Cache, dW: tuple[Array, Array]) -> tuple[Array, Array | None]:
    """Through attention and the projections: dx (T, d), and what comes on top at the rows that asked, where only some did."""
    d = dcontext.shape[-1]
    if cache.rows is None:
        dqkv = new((len(dcontext), 3 * d), dcontext)
        attention.backward(dcontext, cache.attention, dscores, (dqkv[:, :d], dqkv[:, d:]))
        dx, _, _ = linear.backward(dqkv, cache.projections[0], dW)
        return dx, None
    dq, dkv = attention.backward(dcontext, cache.attention, dscores)
    dx, _, _ = linear.backward(dkv, cache.projections[1], (dW[0][d:], dW[1][d:]))
    dx_rows, _, _ = linear.backward(dq, cache.projections[0], (dW[0][:d], dW[1][:d]))
    return dx, dx_rows
