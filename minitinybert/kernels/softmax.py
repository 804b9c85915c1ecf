"""ops/softmax.py, and what ops/attention.py does with scores (`weigh`, `through_weights`): a row stays in registers.

p = softmax(s + mask),  D = p m/(1 − rate);      dp = dD m/(1 − rate),  ds = (p (dp − Σ dp p) + dscores) · factor
"""

from __future__ import annotations

import math

import cupy
import numpy as np

from ..device import Array
from ..ops import dropout
from ..ops.softmax import Cache
from ..random import key
from .cuda import Kernel, contiguous

# Rows of (n, h, Q): real (n, D), what is not real gets the lowest float as BERT's mask has it. Dropout keys: one a row (h = 0), or one
# a query (n, Q), of which each head makes its own (ops/attention.py: _keys).
_FORWARD = Kernel(
    "softmax_forward",
    r"""
extern "C" __global__ void softmax_forward(const T* s, const u8* real, const u64* keys, T* p, T* dropped, u8* keep, int rows, int D,
                                           int h, int Q, A lowest, u64 head_key, unsigned threshold, A scale) {
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        const int sentence = row / (h * Q), head = row / Q % h;
        A v[N][4], most = -INFINITY, sum = 0;
        EACH_FOUR(i, j) {
            load(s + start + j, D - j, v[i]);
            if (MASK) {
                u8 seen[4];
                load(real + (size_t)sentence * D + j, D - j, seen);
                for (int c = 0; c < 4; ++c) v[i][c] += seen[c] ? A(0) : lowest;
            }
            for (int c = 0; c < 4; ++c) if (j + c < D) most = Max::of(v[i][c], most);
        }
        most = over_row<Max>(most);
        EACH_FOUR(i, j) for (int c = 0; c < 4; ++c) {
            v[i][c] = j + c < D ? exp(v[i][c] - most) : A(0);
            sum += v[i][c];
        }
        sum = over_row<Sum>(sum);
        u64 row_key = 0;
        if (DROP == 1) row_key = keys[row];
        if (DROP == 2) row_key = mix((keys[sentence * Q + row % Q] + head * 0xD1B54A32D192ED03ull) * 0x9E3779B97F4A7C15ull + head_key);
        EACH_FOUR(i, j) {
            for (int c = 0; c < 4; ++c) v[i][c] /= sum;
            store(p + start + j, D - j, v[i]);
            if (DROP) {
                u8 kept[4];
                draw(row_key, j / 4, threshold, kept);
                store(keep + start + j, D - j, kept);
                for (int c = 0; c < 4; ++c) v[i][c] = kept[c] ? v[i][c] * scale : A(0);
                store(dropped + start + j, D - j, v[i]);
            }
        }
    }
}
""",
)

_BACKWARD = Kernel(
    "softmax_backward",
    r"""
extern "C" __global__ void softmax_backward(const T* dy, const T* p, const u8* keep, const T* dscores, T* ds, int rows, int D, A scale,
                                            A factor) {
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        A g[N][4], w[N][4], along = 0;
        EACH_FOUR(i, j) {
            load(dy + start + j, D - j, g[i]);
            load(p + start + j, D - j, w[i]);
            if (DROP) {
                u8 kept[4];
                load(keep + start + j, D - j, kept);
                for (int c = 0; c < 4; ++c) g[i][c] = kept[c] ? g[i][c] * scale : A(0);
            }
            for (int c = 0; c < 4; ++c) along += g[i][c] * w[i][c];
        }
        along = over_row<Sum>(along);
        EACH_FOUR(i, j) {
            for (int c = 0; c < 4; ++c) g[i][c] = (g[i][c] - along) * w[i][c];
            if (MORE) {
                load(dscores + start + j, D - j, w[i]);
                for (int c = 0; c < 4; ++c) g[i][c] += w[i][c];
            }
            for (int c = 0; c < 4; ++c) g[i][c] *= factor;
            store(ds + start + j, D - j, g[i]);
        }
    }
}
""",
)


def forward(s: Array, bias: Array | None = None, rate: float = 0.0, keys: Array | None = None) -> tuple[Array, Cache]:
    return _forward(s if bias is None else s + bias, None, rate, keys, None)


def weigh(A: Array, real: Array | None, rate: float, keys: Array | None) -> tuple[Array, Cache]:
    """A (n, h, Q, L), real (n, L) bool, keys (n, Q)."""
    return _forward(A, real, rate, keys, A.shape[1:3])


def _forward(s: Array, real: Array | None, rate: float, keys: Array | None, heads_queries: tuple[int, int] | None) -> tuple[Array, Cache]:
    s, real, keys = contiguous(s, real, keys)
    L, threshold = s.shape[-1], 0 if keys is None else round(rate * 65536)
    p, y = cupy.empty_like(s), None
    dropped = dropout.Cache(None, 1.0)
    if threshold:
        y, dropped = cupy.empty_like(s), dropout.Cache(cupy.empty(s.shape, bool), 65536 / (65536 - threshold))
    rows, (h, Q) = s.size // max(L, 1), heads_queries or (1, 1)
    mode = 0 if not threshold else 1 if heads_queries is None else 2
    scalars = (rows, L, h, Q, float(np.finfo(s.dtype).min), np.uint64(key(0, 0)), np.uint32(threshold), dropped.scale)
    _FORWARD.by_rows(rows, L, s.dtype, (s, real, keys, p, y, dropped.keep, *scalars), MASK=real is not None, DROP=mode)
    return (p if y is None else y), Cache(p, dropped)


def backward(dy: Array, cache: Cache) -> Array:
    return _backward(dy, cache, None, 1.0)


def through_weights(dD: Array, cache: Cache, dscores: Array | None, head_width: int) -> Array:
    """dD (n, h, Q, L), dscores flat or None."""
    return _backward(dD, cache, dscores, 1 / math.sqrt(head_width))


def _backward(dy: Array, cache: Cache, dscores: Array | None, factor: float) -> Array:
    dy, p, keep, dscores = contiguous(dy, cache.p, cache.dropout.keep, dscores)
    ds, L = cupy.empty_like(dy), dy.shape[-1]
    arguments = (dy, p, keep, dscores, ds, dy.size // max(L, 1), L, cache.dropout.scale, factor)
    _BACKWARD.by_rows(dy.size // max(L, 1), L, dy.dtype, arguments, DROP=keep is not None, MORE=dscores is not None)
    return ds
