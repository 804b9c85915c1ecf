"""Dropout (Srivastava et al. 2014):  y = x m/(1 − p),   m_i = 0 with probability p, else 1

The mask is a function of a key for each row (see random.py), not of a generator's state: who computes a row does not matter.
p is rounded to a multiple of 2⁻¹⁶.
"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Array
from ..random import bits16


class Cache(NamedTuple):
    keep: Array | None  # (..., d) bool, m; None: nothing was dropped
    scale: float  # 1/(1 − p)


def forward(x: Array, p: float, keys: Array | None) -> tuple[Array, Cache]:
    """x (..., d), p in [0, 1), keys (...) uint64, one a row, or None (evaluation: y is x) -> y (..., d)."""
    threshold = round(p * 65536)
    if keys is None or threshold == 0:
        return x, Cache(None, 1.0)
    keep = bits16(keys, x.shape[-1]) >= threshold
    cache = Cache(keep, 65536 / (65536 - threshold))
    return backward(x, cache), cache


def backward(dy: Array, cache: Cache) -> Array:
    """dy (..., d) -> dx (..., d).  y is linear in x with a diagonal Jacobian m/(1 − p), so the backward is the forward's line."""
    if cache.keep is None:
        return dy
    dx = dy * cache.keep
    dx *= cache.scale
    return dx
