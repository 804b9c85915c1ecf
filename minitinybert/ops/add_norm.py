"""Add & Norm (paper section 2):  y = LayerNorm(x + dropout(a))

x is what goes round a sub-layer, a what comes out of it.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, fused
from . import dropout, layer_norm


class Cache(NamedTuple):
    dropout: dropout.Cache
    norm: layer_norm.Cache


@fused
def forward(
    a: Array, x: Array, gain: Array, bias: Array, eps: float, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, Cache]:
    """a, x (..., d), gain γ, bias β (d,), dropout with probability p by row keys (...) or None -> y
    (..., d)."""
    dropped, kept = dropout.forward(a, p, keys)
    y, norm = layer_norm.forward(x + dropped, gain, bias, eps)
    return y, Cache(kept, norm)


@fused
def backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array, Array]:
    """dy (..., d) -> da, dx (..., d), dγ, dβ (d,).

    Let s = x + dropout(a), and ds come from layer norm's backward. Both terms of the sum get it: dx
    = ds, and through dropout, which is diagonal, da = ds m/(1 − p).
    """
    ds, dgain, dbias = layer_norm.backward(dy, cache.norm)
    return dropout.backward(ds, cache.dropout), ds, dgain, dbias
