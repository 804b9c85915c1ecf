"""ops/add_norm.py, embed_norm.py and layer_norm.py: a row stays in registers from the sum to the result.

s = x + dropout(a + b), or W[id] + P[position] + S[segment], or x;   x̂ = (s − μ)/σ,   y = γ x̂ + β (the embeddings': dropout of it)
dx = (γdy − mean(γdy) − x̂ mean(γdy x̂))/σ,   da = dx m/(1 − p),   dγ = Σ dy x̂,   dβ = Σ dy,   db = Σ da
"""

from __future__ import annotations

import cupy
import numpy as np

from ...engine.device import Array
from ...ops import add_norm, dropout, embed_norm, embedding, layer_norm
from .dropout import undrawn
from .launch import Kernel, contiguous, groups_of, ids, outputs, parts_dtype, sum_columns
from .rows import added

# From a row s, which each thread of the group has its fours of, to y in its place; x̂ and 1/σ where there is an array for them.
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
                load(b + j, D - j, w);
                for (int c = 0; c < 4; ++c) through[c] += w[c];
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


_ALL = dropout.Cache(None, 1.0)  # nothing is dropped


def add_norm_forward(
    a: Array,
    b: Array,
    x: Array,
    gain: Array,
    bias: Array,
    eps: float,
    p: float = 0.0,
    keys: Array | None = None,
    keep_cache: bool = True,
) -> tuple[Array, add_norm.Cache]:
    a, b, x, gain, bias, keys = contiguous(a, b, x, gain, bias, keys)
    dropped, threshold = undrawn(a.shape, p, keys, keep_cache)
    y, norm = _forward(a, b, x, gain, bias, eps, keys, dropped, threshold, keep_cache)
    return y, add_norm.Cache(dropped, norm)


def layer_norm_forward(x: Array, gain: Array, bias: Array, eps: float, keep_cache: bool = True) -> tuple[Array, layer_norm.Cache]:
    x, gain, bias = contiguous(x, gain, bias)
    return _forward(None, None, x, gain, bias, eps, None, _ALL, 0, keep_cache)


def _forward(a, b, x, gain, bias, eps, keys, dropped, threshold, keep_cache) -> tuple[Array, layer_norm.Cache]:
    y, cache = cupy.empty(x.shape, x.dtype), layer_norm.unset(x, gain, keep_cache)
    arrays = (a, b, x, gain, bias, keys, y, cache.x_hat, cache.inverse_std, dropped.keep)
    _by_rows(_FORWARD, arrays, y, eps, dropped, threshold, ADD=a is not None)
    return y, cache


def embed_norm_forward(
    word_ids: Array,
    position_ids: Array,
    segment_ids: Array,
    W: Array,
    P: Array,
    S: Array,
    gain: Array,
    bias: Array,
    eps: float,
    p: float = 0.0,
    keys: Array | None = None,
    keep_cache: bool = True,
) -> tuple[Array, embed_norm.Cache]:
    looked_up, tables = ids(word_ids, position_ids, segment_ids), contiguous(W, P, S)
    gain, bias, keys = contiguous(gain, bias, keys)
    y = cupy.empty((*word_ids.shape, W.shape[-1]), W.dtype)
    cache, (dropped, threshold) = layer_norm.unset(y, gain, keep_cache), undrawn(y.shape, p, keys, keep_cache)
    arrays = (*looked_up, *tables, gain, bias, keys, y, cache.x_hat, cache.inverse_std, dropped.keep)
    types = dict(zip(("WORD", "PLACE", "PART"), (a.dtype for a in looked_up), strict=True))
    _by_rows(_EMBED, arrays, y, eps, dropped, threshold, **types)
    lookup = embedding.Cache(word_ids, position_ids, segment_ids, (len(W), len(P), len(S)))
    return y, embed_norm.Cache(lookup, cache, dropped)


def _by_rows(kernel: Kernel, arrays, y: Array, eps: float, dropped: dropout.Cache, threshold: int, **constants) -> None:
    d = y.shape[-1]
    rows = y.size // max(d, 1)
    scalars = (rows, d, float(eps), np.uint32(threshold), float(dropped.scale))
    kernel.by_rows(rows, d, y.dtype, (*arrays, *scalars), DROP=threshold > 0, **constants)


def add_norm_backward(
    dy: Array, cache: add_norm.Cache, out: tuple[Array, Array, Array] | None = None, also: tuple[Array, ...] = ()
) -> tuple[Array, Array, Array, Array, Array]:
    d = dy.shape[-1]
    db, dgain, dbias = outputs(out, (d, d, d), dy.dtype)
    dx, da = _backward((dy, *also), cache.norm, cache.dropout, (dgain, dbias, db))
    return da, db, dx, dgain, dbias


def layer_norm_backward(dy: Array, cache: layer_norm.Cache, out: tuple[Array, Array] | None = None) -> tuple[Array, Array, Array]:
    return _normalised(dy, cache, _ALL, out)


def embed_norm_backward(
    dy: Array, cache: embed_norm.Cache, out: tuple[Array, Array] | None = None, also: tuple[Array, ...] = ()
) -> tuple[Array, Array, Array]:
    return _normalised(dy, cache.norm, cache.dropout, out, also)


def _normalised(dy: Array, norm: layer_norm.Cache, dropped: dropout.Cache, out, also=()) -> tuple[Array, Array, Array]:
    d = dy.shape[-1]
    dgain, dbias = outputs(out, (d, d), dy.dtype)
    dx, _ = _backward((dy, *also), norm, dropped, (dgain, dbias))
    return dx, dgain, dbias


def _backward(terms: tuple[Array, ...], norm: layer_norm.Cache, dropped: dropout.Cache, sums: tuple[Array, ...]) -> tuple[Array, Array]:
    """dx, da, and the sums over rows into `sums`: dγ, dβ (and db, where dropout is on the way in and not, as the embeddings', on the
    way out). Without dropout da is dx."""
    if len(terms) > 3:
        terms = added(*terms[2:]), *terms[:2]
    d, add, drop = terms[0].shape[-1], len(sums) == 3, dropped.keep is not None
    dy, dy_2, dy_3, x_hat, inverse_std, keep = contiguous(*(*terms, None, None)[:3], norm.x_hat, norm.inverse_std, dropped.keep)
    rows, dx = dy.size // max(d, 1), cupy.empty(dy.shape, dy.dtype)
    da = cupy.empty(dy.shape, dy.dtype) if add and drop else dx
    groups = groups_of(rows, d, dy.dtype)
    parts = cupy.empty((groups, len(sums) * d), parts_dtype(dy.dtype))
    arguments = (dy, dy_2, dy_3, x_hat, inverse_std, norm.gain, keep, dx, da, parts, rows, d, float(dropped.scale))
    ways = {"ADD": add, "DROP": add and drop, "DROPPED": drop and not add, "TERMS": len(terms)}
    _BACKWARD.by_rows(rows, d, dy.dtype, arguments, groups, **ways)
    sum_columns(parts, sums)
    return dx, da
