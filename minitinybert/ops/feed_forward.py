"""Feed-forward, without the last bias (add_norm.py has it):  y = GELU(x W₁ᵀ + b₁) W₂ᵀ      (paper eq. 4, with BERT's GELU)"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array
from . import gelu, linear


class Cache(NamedTuple):
    up: linear.Cache
    activation: gelu.Cache
    down: linear.Cache


def forward(x: Array, W1: Array, b1: Array, W2: Array, approximate: str = "none", keep_cache: bool = True) -> tuple[Array, Cache]:
    """x (..., d), W1 (f, d), b1 (f,), W2 (d, f) -> y (..., d)."""
    u, up = linear.forward(x, W1)
    a, activation = gelu.forward(u, b1, approximate, keep_cache)
    y, down = linear.forward(a, W2)
    return y, Cache(up, activation, down)


def backward(dy: Array, cache: Cache, out: tuple[Array, Array, Array] | None = None) -> tuple[Array, Array, Array, Array]:
    """dy (..., d) -> dx (..., d), dW1, db1, dW2 (written into `out` where given).

    The chain rule through the forward's three lines, last line first.
    """
    dW1, db1, dW2 = out if out is not None else (None, None, None)
    da, dW2, _ = linear.backward(dy, cache.down, (dW2, None))  # type: ignore[arg-type]
    du, db1 = gelu.backward(da, cache.activation, db1)
    dx, dW1, _ = linear.backward(du, cache.up, (dW1, None))  # type: ignore[arg-type]
    return dx, dW1, db1, dW2  # type: ignore[return-value]
