"""Feed-forward (paper eq. 4, with BERT's GELU):  y = GELU(x W₁ᵀ + b₁) W₂ᵀ + b₂"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Array
from . import gelu, linear


class Cache(NamedTuple):
    up: linear.Cache
    activation: gelu.Cache
    down: linear.Cache


def forward(x: Array, W1: Array, b1: Array, W2: Array, b2: Array, approximate: str = "none") -> tuple[Array, Cache]:
    """x (..., d), W1 (f, d), b1 (f,), W2 (d, f), b2 (d,) -> y (..., d)."""
    u, up = linear.forward(x, W1, b1)
    a, activation = gelu.forward(u, approximate)
    y, down = linear.forward(a, W2, b2)
    return y, Cache(up, activation, down)


def backward(dy: Array, cache: Cache, out: tuple[Array, Array, Array, Array] | None = None) -> tuple[Array, Array, Array, Array, Array]:
    """dy (..., d) -> dx (..., d), dW1, db1, dW2, db2 (written into `out` where given).

    The chain rule through the forward's three lines, last line first.
    """
    first, second = (out[:2], out[2:]) if out is not None else (None, None)
    da, dW2, db2 = linear.backward(dy, cache.down, second)
    du = gelu.backward(da, cache.activation)
    dx, dW1, db1 = linear.backward(du, cache.up, first)
    return dx, dW1, db1, dW2, db2
