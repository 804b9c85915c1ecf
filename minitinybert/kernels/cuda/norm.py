"""ops/add_norm.py, embed_norm.py and layer_norm.py: a row stays in registers from the sum to the
result.

s = x + dropout(a), or W[id] + P[position] + S[segment], or x;   x̂ = (s − μ)/σ,   y = γ x̂ + β (the embeddings': dropout of it)
dx = (γdy − mean(γdy) − x̂ mean(γdy x̂))/σ,   da = dx m/(1 − p),   dγ = Σ dy x̂,   dβ = Σ dy

In a layer a has the bias b of the product before it, which is added here:  s = x + dropout(a + b),  db = Σ da
"""

from __future__ import annotations

import cupy
import numpy as np

from ...engine.device import Array
from ...ops import add_norm, dropout, embed_norm, embedding, layer_norm
from ...ops.embedding import Ids, Tables
from .dropout import undrawn
from .launch import Kernel, contiguous, groups_of, parts_dtype, sum_columns
from .launch import ids as as_ids

# From a row s, which each thread of the group has its fours of, to y in its place; x̂ and 1/σ where
# there is an array for them.
_NORMALISE = r"""
__device__ inline void normalise(A (&s)[N][4], const T* gain, const T* bias, T* x_hat, T* inverse_std, int row, int D, A eps) {
    A sum = 0, squares = 0, w[4], shift[4];
    EACH_FOUR(i, j) for (int c = 0; c < 4; ++c) sum += s[i][c];
    const A mean = over_row<Sum>(sum) / D;
    EACH_FOUR(i, j) for (int c = 0; c < 4; ++c) {
        s[i][c] -= mean;
        if (j + c < D) squares += s[i][c] * s[i][c];
    }
    const A inverse = 1 / sqrt(over_row<Sum>(squares) / D + eps);
    if (x_hat && LANE == 0) inverse_std[row] = T(inverse);
    EACH_FOUR(i, j) {
        for (int c = 0; c < 4; ++c) s[i][c] *= inverse;
        if (x_hat) store(x_hat + (size_t)row * D + j, D - j, s[i]);
        load(gain + j, D - j, w);
        load(bias + j, D - j, shift);
        for (int c = 0; c < 4; ++c) s[i][c] = w[c] * s[i][c] + shift[c];
    }
}
"""

_FORWARD = Kernel(
    "norm_forward",
    _NORMALISE
    + r"""
extern "C" __global__ void norm_forward(const T* a, const T* b, const T* x, const T* gain, const T* bias, const u64* keys, T* y,
                                        T* x_hat, T* inverse_std, u8* keep, int rows, int D, A eps, unsigned threshold, A scale) {
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        A s[N][4];
        EACH_FOUR(i, j) {
            load(x + start + j, D - j, s[i]);
            if (ADD) {
                A through[4], w[4];
                load(a + start + j, D - j, through);
                if (b) {
                    load(b + j, D - j, w);
                    for (int c = 0; c < 4; ++c) through[c] += w[c];
                }
                if (DROP) drop(through, keys[row], j / 4, threshold, scale, keep ? keep + start + j : keep, D - j);
                for (int c = 0; c < 4; ++c) s[i][c] += j + c < D ? through[c] : A(0);
            }
        }
        normalise(s, gain, bias, x_hat, inverse_std, row, D, eps);
        EACH_FOUR(i, j) store(y + start + j, D - j, s[i]);
    }
}
""",
)

_EMBED = Kernel(
    "embed_norm_forward",
    _NORMALISE
    + r"""
extern "C" __global__ void embed_norm_forward(const WORD* words, const PLACE* positions, const PART* segments, const T* W, const T* P,
                                              const T* S, const T* gain, const T* bias, const u64* keys, T* y, T* x_hat, T* inverse_std,
                                              u8* keep, int rows, int D, A eps, unsigned threshold, A scale) {
    EACH_ROW(row) {
        const T *word = W + (size_t)words[row] * D, *position = P + (size_t)positions[row] * D, *segment = S + (size_t)segments[row] * D;
        A s[N][4], v[4];
        EACH_FOUR(i, j) {
            load(word + j, D - j, s[i]);
            load(position + j, D - j, v);
            for (int c = 0; c < 4; ++c) s[i][c] += v[c];
            load(segment + j, D - j, v);
            for (int c = 0; c < 4; ++c) s[i][c] += v[c];
        }
        normalise(s, gain, bias, x_hat, inverse_std, row, D, eps);
        EACH_FOUR(i, j) {
            const size_t at = (size_t)row * D + j;
            if (DROP) drop(s[i], keys[row], j / 4, threshold, scale, keep ? keep + at : keep, D - j);
            store(y + at, D - j, s[i]);
        }
    }
}
""",
)

# DROP: a was dropped of; DROPPED: y was. BIASED: a sum for b too.
_BACKWARD = Kernel(
    "norm_backward",
    r"""
extern "C" __global__ void norm_backward(const T* dy, const T* x_hat, const T* inverse_std, const T* gain, const u8* keep, T* dx, T* da,
                                         A* parts, int rows, int D, A scale) {
    A of_gain[N][4] = {}, of_bias[N][4] = {}, of_b[N][4] = {};
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        A g[N][4], x[N][4], w[4], sum = 0, product = 0;
        EACH_FOUR(i, j) {
            load(dy + start + j, D - j, g[i]);
            if (DROPPED) drop_again(g[i], scale, keep + start + j, D - j);
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
                drop_again(g[i], scale, keep + start + j, D - j);
                store(da + start + j, D - j, g[i]);
            }
            if (BIASED) for (int c = 0; c < 4; ++c) of_b[i][c] += g[i][c];
        }
    }
    A* own = parts + (size_t)GROUP * (BIASED ? 3 : 2) * D;
    EACH_FOUR(i, j) {
        store(own + j, D - j, of_gain[i]);
        store(own + D + j, D - j, of_bias[i]);
        if (BIASED) store(own + 2 * D + j, D - j, of_b[i]);
    }
}
""",
)


_ALL = dropout.Cache(None, 1.0)  # nothing is dropped


def add_norm_forward(
    a: Array, x: Array, gain: Array, bias: Array, eps: float, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, add_norm.Cache]:
    a, x, gain, bias, keys = contiguous(a, x, gain, bias, keys)
    dropped, threshold = undrawn(a.shape, p, keys)
    y, norm = _forward(a, x, gain, bias, eps, keys, dropped, threshold)
    return y, add_norm.Cache(dropped, norm)


def layer_norm_forward(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, layer_norm.Cache]:
    x, gain, bias = contiguous(x, gain, bias)
    return _forward(None, x, gain, bias, eps, None, _ALL, 0)


def _forward(a, x, gain, bias, eps, keys, dropped, threshold) -> tuple[Array, layer_norm.Cache]:
    y, cache = cupy.empty(x.shape, x.dtype), _unset(x, gain)
    arrays = (a, None, x, gain, bias, keys, y, cache.x_hat, cache.inverse_std, dropped.keep)
    _by_rows(_FORWARD, arrays, y, eps, dropped, threshold, ADD=a is not None)
    return y, cache


def embed_norm_forward(
    ids: Ids, tables: Tables, gain: Array, bias: Array, eps: float, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, embed_norm.Cache]:
    looked_up, (W, P, S) = as_ids(*ids), contiguous(*tables)
    gain, bias, keys = contiguous(gain, bias, keys)
    y = cupy.empty((*ids.words.shape, W.shape[-1]), W.dtype)
    cache, (dropped, threshold) = _unset(y, gain), undrawn(y.shape, p, keys)
    arrays = (*looked_up, W, P, S, gain, bias, keys, y, cache.x_hat, cache.inverse_std, dropped.keep)
    types = dict(zip(("WORD", "PLACE", "PART"), (a.dtype for a in looked_up), strict=True))
    _by_rows(_EMBED, arrays, y, eps, dropped, threshold, **types)
    return y, embed_norm.Cache(embedding.Cache(ids, (len(W), len(P), len(S))), cache, dropped)


def _unset(x: Array, gain: Array) -> layer_norm.Cache:
    """The cache for rows like x, for a kernel to fill."""
    return layer_norm.Cache(cupy.empty(x.shape, x.dtype), cupy.empty((*x.shape[:-1], 1), x.dtype), gain)


def _by_rows(kernel: Kernel, arrays, y: Array, eps: float, dropped: dropout.Cache, threshold: int, **constants) -> None:
    d = y.shape[-1]
    rows = y.size // max(d, 1)
    scalars = (rows, d, float(eps), np.uint32(threshold), float(dropped.scale))
    kernel.by_rows(rows, d, y.dtype, (*arrays, *scalars), DROP=threshold > 0, **constants)


def add_norm_backward(dy: Array, cache: add_norm.Cache) -> tuple[Array, Array, Array, Array]:
    dx, da, dgain, dbias = _backward(dy, cache.norm, cache.dropout, drop="DROP")
    return da, dx, dgain, dbias


def layer_norm_backward(dy: Array, cache: layer_norm.Cache) -> tuple[Array, Array, Array]:
    dx, _, dgain, dbias = _backward(dy, cache, _ALL, drop="DROP")
    return dx, dgain, dbias


def embed_norm_backward(dy: Array, cache: embed_norm.Cache) -> tuple[Array, Array, Array]:
    de, _, dgain, dbias = _backward(dy, cache.norm, cache.dropout, drop="DROPPED")
    return de, dgain, dbias


def _backward(dy: Array, norm: layer_norm.Cache, dropped: dropout.Cache, drop: str) -> tuple[Array, Array, Array, Array]:
    """dx, da, dγ, dβ. Where nothing was dropped of a, da is dx."""
    d, ways = dy.shape[-1], {"DROP": False, "DROPPED": False, "BIASED": False}
    ways[drop] = dropped.keep is not None
    dy, x_hat, inverse_std, keep = contiguous(dy, norm.x_hat, norm.inverse_std, dropped.keep)
    rows, dx = dy.size // max(d, 1), cupy.empty(dy.shape, dy.dtype)
    da = cupy.empty(dy.shape, dy.dtype) if ways["DROP"] else dx
    groups = groups_of(rows, d, dy.dtype)
    parts, dgain, dbias = cupy.empty((groups, 2 * d), parts_dtype(dy.dtype)), cupy.empty(d, dy.dtype), cupy.empty(d, dy.dtype)
    arguments = (dy, x_hat, inverse_std, norm.gain, keep, dx, da, parts, rows, d, float(dropped.scale))
    _BACKWARD.by_rows(rows, d, dy.dtype, arguments, groups, **ways)
    sum_columns(parts, (dgain, dbias))
    return dx, da, dgain, dbias
