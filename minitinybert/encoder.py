"""One encoder layer (paper section 2), forward and, line for line in reverse, backward.

a = attention(x) Wₒᵀ + bₒ        y = LayerNorm(x + dropout(a))
u = feed_forward(y)              z = LayerNorm(y + dropout(u))
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .batch import Batch
from .device import Array
from .ops import attention, dropout, feed_forward, layer_norm, linear
from .parameters import Parameters, Slot


class LayerArrays(NamedTuple):
    """The arrays of one layer: its weights, or their gradients. q, k and v are one matrix (3d, d) and one bias (3d,)."""

    qkv: tuple[Array, Array]
    output: tuple[Array, Array]
    attention_norm: tuple[Array, Array]
    feed_forward: tuple[Array, Array, Array, Array]
    output_norm: tuple[Array, Array]

    @classmethod
    def of(cls, parameters: Parameters, layer: int) -> LayerArrays:
        prefix = f"encoder.layer.{layer}."
        pair = lambda name: (parameters[f"{prefix}{name}.weight"], parameters[f"{prefix}{name}.bias"])
        return cls(
            pair("attention.self.qkv"),
            pair("attention.output.dense"),
            pair("attention.output.LayerNorm"),
            pair("intermediate.dense") + pair("output.dense"),
            pair("output.LayerNorm"),
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
    """What a layer drops: probabilities, and the keys of its three sites (T,) each; None for no dropout."""

    hidden: float
    attention: float
    keys: tuple[Any, Any, Any]


NO_DROPOUT = Dropout(0.0, 0.0, (None, None, None))


class Cache(NamedTuple):
    qkv: linear.Cache
    attention: attention.Cache
    output: linear.Cache
    output_dropout: dropout.Cache
    attention_norm: layer_norm.Cache
    feed_forward: feed_forward.Cache
    feed_forward_dropout: dropout.Cache
    output_norm: layer_norm.Cache


def forward(
    x: Array, W: LayerArrays, batch: Batch, heads: int, eps: float, approximate: str, drop: Dropout = NO_DROPOUT
) -> tuple[Array, Array, Cache]:
    """x (T, d) -> z (T, d), the layer's attention scores (flat), cache."""
    qkv, c_qkv = linear.forward(x, *W.qkv)  # [T, d] -> [T, 3d]
    context, scores, c_attention = attention.forward(qkv, batch.runs, heads, batch.attention_mask, drop.attention, drop.keys[0])
    a, c_output = linear.forward(context, *W.output)
    a, c_drop_a = dropout.forward(a, drop.hidden, drop.keys[1])
    a += x
    y, c_norm_y = layer_norm.forward(a, *W.attention_norm, eps)
    u, c_feed_forward = feed_forward.forward(y, *W.feed_forward, approximate)
    u, c_drop_u = dropout.forward(u, drop.hidden, drop.keys[2])
    u += y
    z, c_norm_z = layer_norm.forward(u, *W.output_norm, eps)
    return z, scores, Cache(c_qkv, c_attention, c_output, c_drop_a, c_norm_y, c_feed_forward, c_drop_u, c_norm_z)


def backward(dz: Array, dscores: Array | None, cache: Cache, dW: LayerArrays) -> Array:
    """dz (T, d), dscores (flat, or None) -> dx (T, d); the gradients of the weights are written into dW.

    Each residual y + u hands its gradient to both terms: dy gathers what comes through the feed-forward and what goes round it.
    """
    du, _, _ = layer_norm.backward(dz, cache.output_norm, dW.output_norm)
    dy, *_ = feed_forward.backward(dropout.backward(du, cache.feed_forward_dropout), cache.feed_forward, dW.feed_forward)
    dy += du
    da, _, _ = layer_norm.backward(dy, cache.attention_norm, dW.attention_norm)
    dcontext, _, _ = linear.backward(dropout.backward(da, cache.output_dropout), cache.output, dW.output)
    dqkv = attention.backward(dcontext, cache.attention, dscores)
    dx, _, _ = linear.backward(dqkv, cache.qkv, dW.qkv)
    dx += da
    return dx
