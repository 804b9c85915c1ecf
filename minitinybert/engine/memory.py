"""Sums that a GPU has a kernel for, and NumPy a line."""

from __future__ import annotations

from functools import reduce

from .device import Array, fused


@fused
def added(x: Array, *terms: Array) -> Array:
    """x + all terms, of one shape; x itself where there are none."""
    return reduce(lambda a, b: a + b, terms, x)
