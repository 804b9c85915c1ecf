"""Feed-forward:  y = GELU(x W₁ᵀ + b₁) W₂ᵀ + b₂      (paper eq. 4, with BERT's GELU in the place of max(0, ·))"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array
from . import gelu, linear
from .linear import Affine


class Cache(NamedTuple):
    up: linear.Cache
    activation: gelu.Cache
    down: linear.Cache


def forward(x: Array, W1: Array, b1: Array, W2: Array, b2: Array | None, approximate: str = "none") -> tuple[Array, Cache]:
    """x (..., d), W1 (f, d), b1 (f,), W2 (d, f), b2 (d,) or None -> y (..., d)."""
    u, up = linear.forward(x, W1, b1)
    a, activation = gelu.forward(u, approximate)
    y, down = linear.forward(a, W2, b2)
    return y, Cache(up, activation, down)


def backward(dy: Array, cache: Cache, out: tuple[Affine, Affine] | None = None) -> tuple[Array, ...]:
    """dy (..., d) -> dx (..., d), dW1 (f, d), db1 (f,), dW2 (d, f), db2 (d,), written into `out`,
    ((dW1, db1), (dW2, db2)), where given.

    The chain rule through the forward's three lines, last line first.
    """
    up, down = out if out is not None else (None, None)
    da, dW2, db2 = linear.backward(dy, cache.down, down)
    du = gelu.backward(da, cache.activation)
    dx, dW1, db1 = linear.backward(du, cache.up, up)
    return dx, dW1, db1, dW2, db2
