"""Softmax over the last axis:  p_i = e^{s_i} / Σ_j e^{s_j}"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module


class Cache(NamedTuple):
    p: Array  # (..., L)


def forward(s: Array) -> tuple[Array, Cache]:
    """s (..., L) -> p (..., L).  softmax(s) = softmax(s − max s): the largest exponent is 0, nothing overflows.

    >>> p, cache = forward(np.array([0.0, np.log(3)]))
    >>> p.round(6).tolist()
    [0.25, 0.75]
    """
    e = array_module(s).exp(s - s.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, Cache(p)


def backward(dp: Array, cache: Cache) -> Array:
    """dp (..., L) -> ds (..., L).

    ∂p_i/∂s_j = p_i(δ_ij − p_j), so  ds_j = Σ_i dp_i p_i(δ_ij − p_j) = p_j (dp_j − Σ_i dp_i p_i) ; Σ_j ds_j = 0.
    """
    (p,) = cache
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))
