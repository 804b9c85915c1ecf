"""Dropout (Srivastava et al. 2014):  y = x m/(1 − p),   m_i = 0 with probability p, else 1

The mask is a function of a key for each row (see random.py), not of a generator's state: who computes a row does not matter.
p is rounded to a multiple of 2⁻¹⁶.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused
from ..engine.memory import new, row_blocks
from ..engine.random import bits16


class Cache(NamedTuple):
    keep: Array | None  # (..., d) bool, m; None: nothing was dropped, or not kept
    scale: float  # 1/(1 − p)


@fused
def forward(x: Array, p: float, keys: Array | None) -> tuple[Array, Cache]:
    """x (..., d), p in [0, 1), keys (...) uint64, one a row, or None (evaluation: y is x) -> y (..., d)."""
    cache = draw(x.shape, p, keys)
    return backward(x, cache), cache


@fused
def backward(dy: Array, cache: Cache) -> Array:
    """dy (..., d) -> dx (..., d).  y is linear in x with a diagonal Jacobian m/(1 − p), so the backward is the forward's line."""
    if cache.keep is None:
        return dy
    dx = array_module(dy).multiply(dy, cache.keep, out=new(dy.shape, dy))
    dx *= cache.scale
    return dx


def draw(shape: tuple[int, ...], p: float, keys: Array | None) -> Cache:
    """The mask alone, for rows of shape (..., d) with keys (...)."""
    threshold = round(p * 65536)
    if keys is None or threshold == 0:
        return Cache(None, 1.0)
    xp, d, flat = array_module(keys), shape[-1], keys.reshape(-1)
    keep = new(shape, keys, bool)
    for rows in row_blocks(keep_rows := keep.reshape(-1, d)):
        xp.greater_equal(bits16(flat[rows], d), threshold, out=keep_rows[rows])
    return Cache(keep, 65536 / (65536 - threshold))


def part(cache: Cache, rows: slice) -> Cache:
    """The mask of some rows of (T, d)."""
    return cache if cache.keep is None else cache._replace(keep=cache.keep[rows])
