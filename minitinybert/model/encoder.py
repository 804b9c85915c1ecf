"""One encoder layer (paper section 2), forward and, line for line in reverse, backward.

a = MultiHead(x)                       y = LayerNorm(x + dropout(a))
w = GELU(y W₁ᵀ + b₁) W₂ᵀ + b₂          z = LayerNorm(y + dropout(w))

Where only the [CLS] rows of the last layer are looked at, only they ask (`rows`): all else of that
layer is keys and values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..engine.batch import Batch
from ..engine.device import Array, fused
from ..ops import add_norm, feed_forward
from ..ops.linear import Affine
from . import self_attention
from .config import Config
from .parameters import Parameters, Slot
from .self_attention import Projections


class LayerArrays(NamedTuple):
    """The arrays of one layer: its weights, or their gradients."""

    attention: Projections
    attention_norm: Affine  # γ, β (d,)
    up: Affine  # W₁ (f, d), b₁ (f,)
    down: Affine  # W₂ (d, f), b₂ (d,)
    output_norm: Affine
    reading: dict[Any, Any] | None = None  # what a kernel keeps of weights that are only read; None: others may change them

    @classmethod
    def of(cls, parameters: Parameters, layer: int) -> LayerArrays:
        return parameters.once(layer, lambda: cls._of(parameters, f"encoder.layer.{layer}."))

    @classmethod
    def _of(cls, parameters: Parameters, prefix: str) -> LayerArrays:
        pair = lambda name: (parameters[f"{prefix}{name}.weight"], parameters[f"{prefix}{name}.bias"])
        q, k, v = (pair(f"attention.self.{name}") for name in ("query", "key", "value"))
        return cls(
            Projections(q, k, v, pair("attention.output.dense")),
            pair("attention.output.LayerNorm"),
            pair("intermediate.dense"),
            pair("output.dense"),
            pair("output.LayerNorm"),
            {} if parameters.by_columns else None,
        )


def slots(prefix: str, d: int, f: int) -> list[Slot]:
    """The tensors of one layer by their Hugging Face names, `prefix` ending in `encoder.layer.N.`.
    Query, key and value are adjacent, and under the name `qkv` one matrix (3d, d) and one bias
    (3d,)."""
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


class Cache(NamedTuple):
    rows: Array | None  # (S,) those that asked; None: all
    attention: self_attention.Cache
    attention_norm: add_norm.Cache
    feed_forward: feed_forward.Cache
    output_norm: add_norm.Cache


class Keep(NamedTuple):
    """What is asked of a layer besides its output; what is not comes back as None."""

    scores: bool = True
    cache: bool = True  # False: for a forward pass alone


@fused
def forward(
    x: Array, W: LayerArrays, batch: Batch, config: Config, keys: Array | None, rows: Array | None, keep: Keep
) -> tuple[Array, Array | None, Cache | None]:
    """x (T, d) -> z (T, d), or (S, d) of the rows (S,), one a sentence; the layer's attention
    scores, flat; cache.

    keys (3, T) uint64: the dropout keys of the layer's three sites, or None for no dropout.
    """
    asking = x if rows is None else x[rows]
    if keys is not None and rows is not None:
        keys = keys[:, rows]
    keys_P, keys_a, keys_w = (None, None, None) if keys is None else keys
    heads, eps = config.num_attention_heads, config.layer_norm_eps
    p_P, p = config.attention_probs_dropout_prob, config.hidden_dropout_prob
    a, A, c_attention = self_attention.forward(x, asking, W.attention, batch, heads, p_P, keys_P)
    y, c_norm_y = add_norm.forward(a, asking, *W.attention_norm, eps, p, keys_a)
    w, c_feed_forward = feed_forward.forward(y, *W.up, *W.down, config.gelu_approximation)
    z, c_norm_z = add_norm.forward(w, y, *W.output_norm, eps, p, keys_w)
    cache = Cache(rows, c_attention, c_norm_y, c_feed_forward, c_norm_z) if keep.cache else None
    return z, A if keep.scores else None, cache


@fused
def backward(dz: Array, dscores: Array | None, cache: Cache, dW: LayerArrays) -> Array:
    """dz shaped as z, dscores (flat, or None) -> dx (T, d); the gradients of the weights are
    written into dW.

    Each residual y + w hands its gradient to both terms: dy comes through the feed-forward and
    dy_round goes round it, and the gradient of y is their sum; dx, dasking and dx_round likewise.
    """
    dgain, dbias = dW.output_norm
    dw, dy_round, dgain[...], dbias[...] = add_norm.backward(dz, cache.output_norm)
    dy, *_ = feed_forward.backward(dw, cache.feed_forward, (dW.up, dW.down))
    dgain, dbias = dW.attention_norm
    da, dx_round, dgain[...], dbias[...] = add_norm.backward(dy + dy_round, cache.attention_norm)
    dx, dasking = self_attention.backward(da, dscores, cache.attention, dW.attention)
    if cache.rows is None:
        dx += dasking + dx_round
    else:
        dx[cache.rows] += dasking + dx_round
    return dx


@fused
def masks(cache: Cache) -> tuple[list[Array | None], Array | None, Array | None]:
    """What dropout left, for whoever computes the layer again: of the attention's weights, a run
    each (n, h, Q, L), of the attention's output and the feed-forward's, (T, d) or (S, d). None
    where nothing was dropped."""
    of_weights = [rectangle.weights.dropout.keep for rectangle in cache.attention.attended.rectangles]
    return of_weights, cache.attention_norm.dropout.keep, cache.output_norm.dropout.keep
