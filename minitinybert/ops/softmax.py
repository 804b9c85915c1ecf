"""Softmax over the last axis:  p_i = e^{s_i} / Σ_j e^{s_j}"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Array, array_module


class Cache(NamedTuple):
    p: Array  # (..., L)


def forward(s: Array, bias: Array | None = None) -> tuple[Array, Cache]:
    """s (..., L), bias to be added before (broadcast against s; a padding mask is a large negative bias) -> p (..., L)."""
    xp = array_module(s)
    p = s + bias if bias is not None else s.copy()
    p -= p.max(axis=-1, keepdims=True)  # softmax(s) = softmax(s − c): the largest exponent becomes 0, nothing overflows
    xp.exp(p, out=p)
    p /= p.sum(axis=-1, keepdims=True)
    return p, Cache(p)


def backward(dp: Array, cache: Cache) -> Array:
    """dp (..., L) -> ds (..., L).

    ∂p_i/∂s_j = p_i(δ_ij − p_j), so  ds_j = Σ_i dp_i p_i(δ_ij − p_j) = p_j (dp_j − Σ_i dp_i p_i) ; Σ_j ds_j = 0.
    """
    p = cache.p
    ds = dp * p
    ds -= p * ds.sum(axis=-1, keepdims=True)
    return ds
