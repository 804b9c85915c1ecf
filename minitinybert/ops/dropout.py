"""Dropout (Srivastava et al. 2014):  y = x m/(1 − p),   m_i = 0 with probability p, else 1

The mask is a function of a key for each row (engine/random.py), not of a generator's state: who
computes a row does not matter. p is rounded to a multiple of 2⁻¹⁶.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, fused
from ..engine.random import bits16


class Cache(NamedTuple):
    keep: Array | None  # (..., d) bool, m; None: nothing was dropped
    scale: float  # 1/(1 − p)


@fused
def forward(x: Array, p: float, keys: Array | None) -> tuple[Array, Cache]:
    """x (..., d), p in [0, 1), keys (...) uint64, one a row, or None (evaluation: y is x) -> y
    (..., d)."""
    cache = draw(x.shape[-1], p, keys)
    return backward(x, cache), cache


@fused
def backward(dy: Array, cache: Cache) -> Array:
    """dy (..., d) -> dx (..., d).  y is linear in x with the diagonal Jacobian m/(1 − p): the forward's own line."""
    return dy if cache.keep is None else dy * cache.keep * cache.scale


def draw(d: int, p: float, keys: Array | None) -> Cache:
    """The mask alone, for rows of width d with keys (...)."""
    threshold = threshold_of(p, keys)
    return Cache(bits16(keys, d) >= threshold if threshold else None, scale_of(threshold))


def threshold_of(p: float, keys: Array | None) -> int:
    """The 16-bit numbers below it drop: 65,536 p of them, none without keys."""
    return 0 if keys is None else round(p * 65536)


def scale_of(threshold: int) -> float:
    """1/(1 − p), of p as the threshold rounds it."""
    return 65536 / (65536 - threshold)
