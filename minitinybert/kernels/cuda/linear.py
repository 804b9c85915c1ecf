"""ops/linear.py's three products, by cuBLAS without `cupy.matmul` before it: y = x Wᵀ + b,  dx = dy W,  dW = dyᵀ x,  db = Σ_t dy_t."""

from __future__ import annotations

import functools
from threading import get_ident

import cupy
import numpy as np

from ...engine.device import Array
from ...ops.linear import Affine, Cache
from .launch import contiguous
from .products import Products
from .rows import sum_rows


def forward(x: Array, W: Array, b: Array | None = None) -> tuple[Array, Cache]:
    x, W = contiguous(x, W)
    outer, inner = W.shape
    y = cupy.ndarray((*x.shape[:-1], outer), x.dtype)
    if y.size:
        _products(x.dtype).x_Wt(x.data.ptr, W.data.ptr, y.data.ptr, y.size // outer, inner, outer)
    if b is not None:
        y += b
    return y, Cache(x, W, b is not None)


def backward(dy: Array, cache: Cache, out: Affine | None = None) -> tuple[Array, Array, Array | None]:
    x, W, biased = cache
    (dy,) = contiguous(dy)
    (outer, inner), (dW, db) = W.shape, out if out is not None else (None, None)
    dx, dW = cupy.ndarray(x.shape, dy.dtype), cupy.ndarray(W.shape, W.dtype) if dW is None else dW
    assert dW.flags.c_contiguous, "a gradient without gaps"
    rows = dy.size // outer
    if rows:
        products = _products(dy.dtype)
        products.dy_W(dy.data.ptr, W.data.ptr, dx.data.ptr, rows, inner, outer)
        products.dyt_x(dy.data.ptr, x.data.ptr, dW.data.ptr, rows, inner, outer)
    else:
        dW.fill(0)
    return dx, dW, sum_rows(dy.reshape(-1, outer), db) if biased else None


def _products(dtype: np.dtype) -> Products:
    products = _products_of(dtype, cupy.cuda.runtime.getDevice(), get_ident())
    products.begin()
    return products


@functools.lru_cache(64)
def _products_of(dtype: np.dtype, device: int, thread: int) -> Products:
    return Products(dtype)
