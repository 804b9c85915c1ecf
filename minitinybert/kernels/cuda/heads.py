"""heads.py's tanh: y = tanh(u + b),  dx = dy (1 − y²)"""

from __future__ import annotations

import cupy

from ...engine.device import Array
from .launch import Kernel, contiguous

_TANH = Kernel(
    "biased_tanh",
    r"""
extern "C" __global__ void biased_tanh(T* u, const T* b, int rows, int D) {
    EACH_ROW(row) EACH_FOUR(i, j) {
        A v[4], bias[4];
        load(u + (size_t)row * D + j, D - j, v);
        load(b + j, D - j, bias);
        for (int c = 0; c < 4; ++c) v[c] = tanh(v[c] + bias[c]);
        store(u + (size_t)row * D + j, D - j, v);
    }
}
""",
)
_THROUGH_TANH = cupy.ElementwiseKernel("T dy, T y", "T dx", "dx = dy * (1 - y * y)", "through_tanh")


def biased_tanh(u: Array, b: Array) -> Array:
    u, b = contiguous(u, b)
    rows, d = u.shape
    _TANH.by_rows(rows, d, u.dtype, (u, b, rows, d))
    return u


def through_tanh(dy: Array, y: Array) -> Array:
    return _THROUGH_TANH(dy, y)
