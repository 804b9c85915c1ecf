"""ops/softmax.py: a row stays in registers.

p = softmax(s),  y = p m/(1 − rate);      dp = dy m/(1 − rate),  ds = p (dp − Σ dp p)
"""

from __future__ import annotations

import cupy
import numpy as np

from ..device import Array
from ..ops.softmax import Cache
from .cuda import Kernel, contiguous
from .dropout import undrawn

_FORWARD = Kernel(
    "softmax_forward",
    r"""
extern "C" __global__ void softmax_forward(const T* s, const u64* keys, T* p, T* dropped, u8* keep, int rows, int D, unsigned threshold,
                                           A scale) {
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        A v[N][4], most = -INFINITY, sum = 0;
        EACH_FOUR(i, j) {
            load(s + start + j, D - j, v[i]);
            for (int c = 0; c < 4; ++c) if (j + c < D) most = Max::of(v[i][c], most);
        }
        most = over_row<Max>(most);
        EACH_FOUR(i, j) for (int c = 0; c < 4; ++c) {
            v[i][c] = j + c < D ? exp(v[i][c] - most) : A(0);
            sum += v[i][c];
        }
        sum = over_row<Sum>(sum);
        EACH_FOUR(i, j) {
            for (int c = 0; c < 4; ++c) v[i][c] /= sum;
            store(p + start + j, D - j, v[i]);
            if (DROP) {
                u8 kept[4];
                draw(keys[row], j / 4, threshold, kept);
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
extern "C" __global__ void softmax_backward(const T* dy, const T* p, const u8* keep, T* ds, int rows, int D, A scale) {
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
            store(ds + start + j, D - j, g[i]);
        }
    }
}
""",
)


def forward(s: Array, bias: Array | None = None, rate: float = 0.0, keys: Array | None = None) -> tuple[Array, Cache]:
    s, keys = contiguous(s if bias is None else s + bias, keys)
    dropped, threshold = undrawn(s.shape, rate, keys)
    p, y, L = cupy.empty_like(s), cupy.empty_like(s) if threshold else None, s.shape[-1]
    rows = s.size // max(L, 1)
    _FORWARD.by_rows(
        rows, L, s.dtype, (s, keys, p, y, dropped.keep, rows, L, np.uint32(threshold), float(dropped.scale)), DROP=threshold > 0
    )
    return (p if y is None else y), Cache(p, dropped)


def backward(dy: Array, cache: Cache) -> Array:
    dy, p, keep = contiguous(dy, cache.p, cache.dropout.keep)
    ds, L = cupy.empty_like(dy), dy.shape[-1]
    rows = dy.size // max(L, 1)
    _BACKWARD.by_rows(rows, L, dy.dtype, (dy, p, keep, ds, rows, L, float(cache.dropout.scale)), DROP=keep is not None)
    return ds
