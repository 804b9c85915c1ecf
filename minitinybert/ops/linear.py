"""Linear:  y = x Wᵀ + b      y_ti = Σ_j x_tj W_ij + b_i

W is stored (d_out, d_in), as in the files of BERT's weights.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused

Affine = tuple[Array, Array]  # W (d_out, d_in) and b (d_out,), or their gradients


class Cache(NamedTuple):
    x: Array  # (..., d_in)
    W: Array  # (d_out, d_in)
    biased: bool


@fused
def forward(x: Array, W: Array, b: Array | None = None) -> tuple[Array, Cache]:
    """x (..., d_in), W (d_out, d_in), b (d_out,) or None -> y (..., d_out)."""
    y = _rows(x) @ W.T  # [T, d_in] -> [T, d_out]
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], len(W)), Cache(x, W, b is not None)


@fused
def backward(dy: Array, cache: Cache, out: Affine | None = None) -> tuple[Array, Array, Array | None]:
    """dy (..., d_out) -> dx (..., d_in), dW (d_out, d_in), db (d_out,). dW and db are written into
    `out` where given.

    dx_tj = Σ_i dy_ti ∂y_ti/∂x_tj = Σ_i dy_ti W_ij      dx = dy W
    dW_ij = Σ_t dy_ti ∂y_ti/∂W_ij = Σ_t dy_ti x_tj      dW = dyᵀ x
    db_i  = Σ_t dy_ti ∂y_ti/∂b_i  = Σ_t dy_ti           db = dyᵀ 1
    """
    x, W, biased = cache
    rows = _rows(dy)
    dx = (rows @ W).reshape(x.shape)
    dW, db = out if out is not None else (None, None)
    dW = array_module(dy).matmul(rows.T, _rows(x), out=dW)
    return dx, dW, rows.sum(axis=0, out=db) if biased else None


def _rows(x: Array) -> Array:
    """(..., d) -> (T, d): one product over all rows, never a batch of small ones."""
    return x.reshape(-1, x.shape[-1])
