"""Mean squared error:  L = (1/n) Σ_i m_i (x_i − y_i)²      m a mask of 0 and 1 (1 without it), n = `count` (Σ m without it)

The regression loss of STS-B as it stands, and the measure inside the attention, hidden and
embedding losses.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused


class Cache(NamedTuple):
    difference: Array  # (...)  m (x − y)
    n: float  # what the mean divides by


@fused
def forward(x: Array, y: Array, mask: Array | None = None, count: float | None = None) -> tuple[Array, Cache]:
    """x, y (...) of one shape, y of any float dtype, mask broadcast against them -> loss ().

    >>> loss, cache = forward(np.array([1.0, 2.0]), np.array([0.0, 0.0]))
    >>> float(loss), backward(1.0, cache).tolist()
    (2.5, [1.0, 2.0])
    """
    xp = array_module(x)
    difference = (x - y).astype(x.dtype, copy=False)  # y may have more bits
    if mask is not None:
        difference *= mask
    if count is None:
        count = x.size if mask is None else float(xp.broadcast_to(mask, x.shape).sum())
    flat = difference.reshape(-1)
    return flat @ flat / count, Cache(difference, count)


@fused
def backward(dloss: float, cache: Cache) -> Array:
    """dloss () -> dx (...).    ∂L/∂x_i = 2 m_i² (x_i − y_i)/n, and m² = m, so  dx = dloss · 2 m (x − y)/n ;  dy = −dx."""
    return cache.difference * (2 * dloss / cache.n)
