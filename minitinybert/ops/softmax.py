"""Softmax over the last axis, with attention's dropout:  y = dropout(p),   p_i = e^{s_i} / Σ_j e^{s_j}"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module
from ..engine.memory import new, row_blocks
from . import dropout


class Cache(NamedTuple):
    p: Array  # (..., L)
    dropout: dropout.Cache


def forward(s: Array, bias: Array | None = None, rate: float = 0.0, keys: Array | None = None) -> tuple[Array, Cache]:
    """s (..., L), bias to be added before (broadcast against s; a padding mask is a large negative bias), dropout with probability
    `rate` by row keys (...) or None -> y (..., L)."""
    xp = array_module(s)
    p = new(s.shape, s)
    if bias is not None:
        xp.add(s, bias, out=p)
    else:
        p[...] = s
    for rows in row_blocks(p_rows := p.reshape(-1, p.shape[-1])):
        block = p_rows[rows]
        block -= block.max(axis=-1, keepdims=True)  # softmax(s) = softmax(s − c): the largest exponent becomes 0, nothing overflows
        xp.exp(block, out=block)
        block /= block.sum(axis=-1, keepdims=True)
    cache = Cache(p, dropout.draw(p.shape, rate, keys))
    return again(cache), cache


def again(cache: Cache) -> Array:
    """y, from the cache: p is all that is kept."""
    return dropout.backward(cache.p, cache.dropout)


def backward(dy: Array, cache: Cache) -> Array:
    """dy (..., L) -> ds (..., L).

    Through dropout, which is diagonal: dp = dy m/(1 − rate). Then
    ∂p_i/∂s_j = p_i(δ_ij − p_j), so  ds_j = Σ_i dp_i p_i(δ_ij − p_j) = p_j (dp_j − Σ_i dp_i p_i) ; Σ_j ds_j = 0.
    """
    p, xp = cache.p, array_module(dy)
    dp = dropout.backward(dy, cache.dropout)
    ds = new(p.shape, p)
    p_rows, dp_rows, ds_rows = (a.reshape(-1, a.shape[-1]) for a in (p, dp, ds))
    for rows in row_blocks(p_rows):
        along = xp.einsum("ti,ti->t", dp_rows[rows], p_rows[rows])[:, None]  # Σ_i dp_i p_i
        xp.subtract(dp_rows[rows], along, out=ds_rows[rows])
        ds_rows[rows] *= p_rows[rows]
    return ds
