"""ops/gelu.py in one pass a direction.  y = x Φ(x),  slope = Φ(x) + x φ(x);   dx = dy · slope

In a layer x has the bias b of the product before it, which is added here:  x + b in the place of x,  db = Σ_t dx_t
"""

from __future__ import annotations

from typing import NamedTuple

import cupy

from ...engine.device import Array
from .launch import COLUMNS, Kernel, by_columns, contiguous


class Cache(NamedTuple):
    slope: Array  # (..., f)  y′(x)


_FORWARD = Kernel(
    "gelu_forward",
    r"""
extern "C" __global__ void gelu_forward(const T* x, const T* b, T* y, T* slope, int rows, int D) {
    const int j = 4 * (blockIdx.x * blockDim.x + threadIdx.x), n = D - j;
    if (n <= 0) return;
    A bias[4] = {0, 0, 0, 0}, v[4], out[4], s[4];
    if (b) load(b + j, n, bias);
    for (int row = blockIdx.y; row < rows; row += gridDim.y) {
        const size_t at = (size_t)row * D + j;
        load(x + at, n, v);
        for (int c = 0; c < 4; ++c) {
            const A w = v[c] + bias[c];
            if (TANH) {  // t = tanh(√(2/π)(w + 0.044715 w³)),  y = ½w(1 + t),  y′ = ½(1 + t) + ½w(1 − t²)u′
                const A root = A(0.79788456080286535588), cubic = A(0.044715), square = w * w;
                const A t = tanh(root * w * (1 + cubic * square));
                out[c] = A(0.5) * w * (1 + t);
                s[c] = A(0.5) * (1 + t) + A(0.5) * w * (1 - t * t) * (root * (1 + 3 * cubic * square));
            } else {  // Φ(w) = ½(1 + erf(w/√2)),  φ(w) = e^(−w²/2)/√(2π)
                const A phi = A(0.5) * (1 + erf(w * A(0.70710678118654752440)));
                out[c] = w * phi;
                s[c] = phi + w * exp(A(-0.5) * w * w) * A(0.39894228040143267794);
            }
        }
        store(y + at, n, out);
        if (slope) store(slope + at, n, s);
    }
}
""",
)

_BACKWARD = Kernel(
    "gelu_backward",
    COLUMNS
    + r"""
extern "C" __global__ void gelu_backward(const T* dy, const T* slope, T* dx, T* db, A* parts, unsigned* counters, int rows, int D) {
    const int j = 4 * (blockIdx.x * blockDim.x + threadIdx.x), n = D - j;
    A sum[4] = {0, 0, 0, 0}, g[4], s[4];
    for (int row = blockIdx.y; row < rows && n > 0; row += gridDim.y) {
        const size_t at = (size_t)row * D + j;
        load(dy + at, n, g);
        load(slope + at, n, s);
        for (int c = 0; c < 4; ++c) sum[c] += g[c] *= s[c];
        store(dx + at, n, g);
    }
    if (BIASED) sum_over_rows(sum, db, parts, counters, j, D);
}
""",
)
_ROW_BLOCKS = 1024  # enough for every GPU


def forward(x: Array, approximate: str = "none") -> tuple[Array, Cache]:
    (x,) = contiguous(x)
    f, y, slope = x.shape[-1], cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, x.dtype)
    by_columns(_FORWARD, (x, None, y, slope), x.size // max(f, 1), f, x.dtype, _ROW_BLOCKS, TANH=approximate == "tanh")
    return y, Cache(slope)


def backward(dy: Array, cache: Cache) -> Array:
    dy, slope = contiguous(dy, cache.slope)
    f, dx = dy.shape[-1], cupy.empty(dy.shape, dy.dtype)
    arrays = (dy, slope, dx, None, None, None)
    by_columns(_BACKWARD, arrays, dy.size // max(f, 1), f, dy.dtype, _ROW_BLOCKS, BIASED=False)
    return dx
