"""Linear:  y = x Wᵀ + b      y_ti = Σ_j x_tj W_ij + b_i

W is stored (d_out, d_in), as in the files of BERT's weights.
"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Array, array_module, fused
from ..memory import new, sum_rows


class Cache(NamedTuple):
    x: Array  # (..., d_in)
    W: Array  # (d_out, d_in)
    biased: bool


@fused
def forward(x: Array, W: Array, b: Array | None = None, add: bool = True) -> tuple[Array, Cache]:
    """x (..., d_in), W (d_out, d_in), b (d_out,) or None -> y (..., d_out).

    add=False: whoever reads y adds b, whose gradient is the same.
    """
    rows = _rows(x)
    y = array_module(x).matmul(rows, W.T, out=new((len(rows), len(W)), x))  # [T, d_in] -> [T, d_out]
    if b is not None and add:
        y += b
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], W.shape[0]), Cache(x, W, b is not None)


@fused
def backward(dy: Array, cache: Cache, out: tuple[Array, Array | None] | None = None) -> tuple[Array, Array, Array | None]:
    """dy (..., d_out) -> dx (..., d_in), dW (d_out, d_in), db (d_out,), None without a bias; dW, db written into `out` where given.

    dx_tj = Σ_i dy_ti ∂y_ti/∂x_tj = Σ_i dy_ti W_ij      dx = dy W
    dW_ij = Σ_t dy_ti ∂y_ti/∂W_ij = Σ_t dy_ti x_tj      dW = dyᵀ x
    db_i  = Σ_t dy_ti ∂y_ti/∂b_i  = Σ_t dy_ti           db = dyᵀ 1
    """
    x, W, biased = cache
    xp = array_module(dy)
    dW, db = out if out is not None else (None, None)
    rows = _rows(dy)
    dx = xp.matmul(rows, W, out=new((len(rows), W.shape[1]), dy)).reshape(x.shape)
    dW = xp.matmul(rows.T, _rows(x), out=new(W.shape, W) if dW is None else dW)
    db = sum_rows(rows, db) if biased else None
    return dx, dW, db


def _rows(x: Array) -> Array:
    """(..., d) -> (T, d): one GEMM over all rows, never a batch of small ones."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
