"""ops/add_norm.py and ops/layer_norm.py: a row stays in registers from the sum to the result.

s = x + dropout(a + b) (layer norm alone: s = x),   x̂ = (s − μ)/σ,   y = γ x̂ + β
dx = (γdy − mean(γdy) − x̂ mean(γdy x̂))/σ,   da = dx m/(1 − p),   dγ = Σ dy x̂,   dβ = Σ dy,   db = Σ da
"""

from __future__ import annotations

import cupy
import numpy as np

from ..device import Array
from ..ops import add_norm, dropout, layer_norm
from .cuda import Kernel, contiguous, groups_of, outputs, parts_dtype, sum_columns
from .dropout import undrawn

_FORWARD = Kernel(
    "norm_forward",
    r"""
extern "C" __global__ void norm_forward(const T* a, const T* b, const T* x, const T* gain, const T* bias, const u64* keys, T* y,
                                        T* x_hat, T* inverse_std, u8* keep, int rows, int D, A eps, unsigned threshold, A scale) {
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        A s[N][4], w[4], sum = 0, squares = 0;
        EACH_FOUR(i, j) {
            load(x + start + j, D - j, s[i]);
            if (ADD) {
                A through[4];
                load(a + start + j, D - j, through);
                load(b + j, D - j, w);
                for (int c = 0; c < 4; ++c) through[c] += w[c];
                if (DROP) {
                    u8 kept[4];
                    draw(keys[row], j / 4, threshold, kept);
                    store(keep + start + j, D - j, kept);
                    for (int c = 0; c < 4; ++c) through[c] = kept[c] ? through[c] * scale : A(0);
                }
                for (int c = 0; c < 4; ++c) s[i][c] += j + c < D ? through[c] : A(0);
            }
            for (int c = 0; c < 4; ++c) sum += s[i][c];
        }
        const A mean = over_row<Sum>(sum) / D;
        EACH_FOUR(i, j) for (int c = 0; c < 4; ++c) {
            s[i][c] -= mean;
            if (j + c < D) squares += s[i][c] * s[i][c];
        }
        const A inverse = 1 / sqrt(over_row<Sum>(squares) / D + eps);
        if (LANE == 0) inverse_std[row] = T(inverse);
        EACH_FOUR(i, j) {
            A shift[4];
            for (int c = 0; c < 4; ++c) s[i][c] *= inverse;
            store(x_hat + start + j, D - j, s[i]);
            load(gain + j, D - j, w);
            load(bias + j, D - j, shift);
            for (int c = 0; c < 4; ++c) w[c] = w[c] * s[i][c] + shift[c];
            store(y + start + j, D - j, w);
        }
    }
}
""",
)

_BACKWARD = Kernel(
    "norm_backward",
    r"""
extern "C" __global__ void norm_backward(const T* dy, const T* dy_2, const T* dy_3, const T* x_hat, const T* inverse_std, const T* gain,
                                         const u8* keep, T* dx, T* da, A* parts, int rows, int D, A scale) {
    A of_gain[N][4] = {}, of_bias[N][4] = {}, of_b[N][4] = {};
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        A g[N][4], x[N][4], w[4], sum = 0, product = 0;
        EACH_FOUR(i, j) {
            load(dy + start + j, D - j, g[i]);
            if (TERMS > 1) {
                load(dy_2 + start + j, D - j, x[i]);
                for (int c = 0; c < 4; ++c) g[i][c] += x[i][c];
            }
            if (TERMS > 2) {
                load(dy_3 + start + j, D - j, x[i]);
                for (int c = 0; c < 4; ++c) g[i][c] += x[i][c];
            }
            load(x_hat + start + j, D - j, x[i]);
            load(gain + j, D - j, w);
            for (int c = 0; c < 4; ++c) {
                of_gain[i][c] += g[i][c] * x[i][c];
                of_bias[i][c] += g[i][c];
                g[i][c] *= w[c];
                sum += g[i][c];
                product += g[i][c] * x[i][c];
            }
        }
        const A mean = over_row<Sum>(sum) / D, projection = over_row<Sum>(product) / D, inverse = A(inverse_std[row]);
        EACH_FOUR(i, j) {
            for (int c = 0; c < 4; ++c) g[i][c] = (g[i][c] - mean - x[i][c] * projection) * inverse;
            store(dx + start + j, D - j, g[i]);
            if (DROP) {
                u8 kept[4];
                load(keep + start + j, D - j, kept);
                for (int c = 0; c < 4; ++c) g[i][c] = kept[c] ? g[i][c] * scale : A(0);
                store(da + start + j, D - j, g[i]);
            }
            if (ADD) for (int c = 0; c < 4; ++c) of_b[i][c] += g[i][c];
        }
    }
    A* own = parts + (size_t)GROUP * (ADD ? 3 : 2) * D;
    EACH_FOUR(i, j) {
        store(own + j, D - j, of_gain[i]);
        store(own + D + j, D - j, of_bias[i]);
        if (ADD) store(own + 2 * D + j, D - j, of_b[i]);
    }
}
""",
)


def add_norm_forward(
    a: Array, b: Array, x: Array, gain: Array, bias: Array, eps: float, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, add_norm.Cache]:
    a, b, x, gain, bias, keys = contiguous(a, b, x, gain, bias, keys)
    dropped, threshold = undrawn(a.shape, p, keys)
    y, norm = _forward(a, b, x, gain, bias, eps, keys, dropped, threshold)
    return y, add_norm.Cache(dropped, norm)


def layer_norm_forward(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, layer_norm.Cache]:
    x, gain, bias = contiguous(x, gain, bias)
    return _forward(None, None, x, gain, bias, eps, None, dropout.Cache(None, 1.0), 0)


def _forward(a, b, x, gain, bias, eps, keys, dropped, threshold) -> tuple[Array, layer_norm.Cache]:
    d = x.shape[-1]
    y, cache = cupy.empty_like(x), layer_norm.Cache(cupy.empty_like(x), cupy.empty((*x.shape[:-1], 1), x.dtype), gain)
    arrays = (a, b, x, gain, bias, keys, y, cache.x_hat, cache.inverse_std, dropped.keep)
    rows = x.size // max(d, 1)
    scalars = (rows, d, float(eps), np.uint32(threshold), float(dropped.scale))
    _FORWARD.by_rows(rows, d, x.dtype, (*arrays, *scalars), ADD=a is not None, DROP=threshold > 0)
    return y, cache


def add_norm_backward(
    dy: Array, cache: add_norm.Cache, out: tuple[Array, Array, Array] | None = None, also: tuple[Array, ...] = ()
) -> tuple[Array, Array, Array, Array, Array]:
    d = dy.shape[-1]
    db, dgain, dbias = outputs(out, (d, d, d), dy.dtype)
    dx, da = _backward((dy, *also), cache.norm, cache.dropout, (dgain, dbias, db))
    return da, db, dx, dgain, dbias


def layer_norm_backward(dy: Array, cache: layer_norm.Cache, out: tuple[Array, Array] | None = None) -> tuple[Array, Array, Array]:
    d = dy.shape[-1]
    dgain, dbias = outputs(out, (d, d), dy.dtype)
    dx, _ = _backward((dy,), cache, dropout.Cache(None, 1.0), (dgain, dbias))
    return dx, dgain, dbias


def _backward(terms: tuple[Array, ...], norm: layer_norm.Cache, dropped: dropout.Cache, sums: tuple[Array, ...]) -> tuple[Array, Array]:
    """dx, da, and the sums over rows into `sums`: dγ, dβ (and db). Without dropout da is dx."""
    while len(terms) > 3:
        terms = terms[0] + terms[1], *terms[2:]
    d = terms[0].shape[-1]
    dy, dy_2, dy_3, x_hat, inverse_std, keep = contiguous(*(*terms, None, None)[:3], norm.x_hat, norm.inverse_std, dropped.keep)
    rows, dx = dy.size // max(d, 1), cupy.empty_like(dy)
    da = dx if keep is None else cupy.empty_like(dy)
    groups = groups_of(rows, d)
    parts = cupy.empty((groups, len(sums) * d), parts_dtype(dy.dtype))
    arguments = (dy, dy_2, dy_3, x_hat, inverse_std, norm.gain, keep, dx, da, parts, rows, d, float(dropped.scale))
    _BACKWARD.by_rows(rows, d, dy.dtype, arguments, groups, ADD=len(sums) == 3, DROP=keep is not None, TERMS=len(terms))
    sum_columns(parts, sums)
    return dx, da
