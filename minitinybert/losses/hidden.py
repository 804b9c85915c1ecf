"""Hidden loss (paper eq. 8):  L_hidn = MSE(H^S W_h, H^T)      W_h learned: from the student's width d′ to the teacher's d

W is stored (d, d′) as every linear map here, so H^S W_h is `linear.forward(H^S, W)`; the released
code adds a bias.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array
from ..ops import linear
from . import mse


class Cache(NamedTuple):
    projection: linear.Cache | None  # None: no projection, H^S itself is compared
    error: mse.Cache


def forward(
    H_S: Array, H_T: Array, W: Array | None, b: Array | None = None, mask: Array | None = None, count: float | None = None
) -> tuple[Array, Cache]:
    """H_S (..., d′), H_T (..., d), W (d, d′) or None (where d′ = d), b (d,) or None, mask (...) of
    rows -> loss ()."""
    projected, projection = (H_S, None) if W is None else linear.forward(H_S, W, b)
    loss, error = mse.forward(projected, H_T, None if mask is None else mask[..., None], count)
    return loss, Cache(projection, error)


def backward(dloss: float, cache: Cache) -> tuple[Array, Array | None, Array | None]:
    """dloss () -> dH_S (..., d′), dW (d, d′), db (d,); no dW and db without a projection.

    With Y = H^S Wᵀ + b:  dY = dloss · 2 m (Y − H^T)/n (mse.py), and from there the linear map's
    backward: dH^S = dY W, dW = dYᵀ H^S, db = dYᵀ 1.
    """
    dprojected = mse.backward(dloss, cache.error)
    if cache.projection is None:
        return dprojected, None, None
    return linear.backward(dprojected, cache.projection)
