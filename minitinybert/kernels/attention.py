"""ops/attention.py: one pass forward and two backward, whatever lengths the sentences have; no product of theirs is a call of its own.

A = q kᵀ/√d_k,  P = softmax(A + mask),  D = P m/(1 − p),  c = D v
dA = (P (dD m/(1 − p) − Σ dD D) + dscores)/√d_k with dD = dc vᵀ;  dq = dA k;      dk = dAᵀ q,  dv = Dᵀ dc
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cupy
import numpy as np

from ..batch import Run
from ..device import Array
from ..errors import InputError
from ..ops import dropout, softmax
from ..ops.attention import Cache
from ..random import key
from .cuda import Kernel, contiguous, parts_dtype
from .dropout import undrawn

# A block of 128 threads has up to R queries (or R keys) of one head of one sentence, a warp has a row of them.
# rows[r][j] is what the block's row r and the sentence's row j have to do with each other, W the width of a head, M the longest sentence
# or more. Of ONE a sentence, only its first token asks.
_SHARED = r"""
#define QUADS (R < 4 ? R : 4)  // rows a thread works on at once
#define EACH(j, count) for (int j = 4 * (threadIdx.x % 32); j < count; j += 128)
#define EACH_OF_WARP(r) for (int r = threadIdx.x / 32; r < R && first + r < Q; r += 4)

struct Place { long long start; int L, Q; size_t scores; };  // a sentence: its first row, length, queries, and where its scores begin

__device__ inline Place place(const long long* starts, int S, int T_rows, int h) {
    const int s = blockIdx.z;
    Place at;
    at.start = starts[s];
    at.L = int((s + 1 < S ? starts[s + 1] : T_rows) - at.start);
    at.Q = ONE ? 1 : at.L;
    unsigned long long before = 0;
    if (ONE) before = at.start;
    else {
        for (int i = threadIdx.x % 32; i < s; i += 32) before += (starts[i + 1] - starts[i]) * (starts[i + 1] - starts[i]);
        for (int other = 16; other; other >>= 1) before += __shfl_xor_sync(0xffffffffu, before, other);
    }
    at.scores = h * before + (size_t)blockIdx.y * at.Q * at.L;
    return at;
}

// from[j][w], and what is to be added to it
__device__ inline A entry(const T* from, int stride, const T* bias, int j, int w) {
    return A(from[(size_t)j * stride + w]) + (bias ? A(bias[w]) : A(0));
}

__device__ inline void take(const T* from, int stride, const T* bias, int count, A (&mine)[R][W]) {
    for (int i = threadIdx.x; i < R * W; i += 128) mine[i / W][i % W] = i / W < count ? entry(from, stride, bias, i / W, i % W) : A(0);
}

// rows[r][j] = Σ_w mine[r][w] of[j][w]
__device__ inline void against(const A (&mine)[R][W], const T* of, int stride, const T* bias, int count, A (&rows)[R][M + 1]) {
    __shared__ A tile[K][W + 1];
    for (int start = 0; start < count; start += K) {
        __syncthreads();
        for (int i = threadIdx.x; i < K * W; i += 128)
            tile[i / W][i % W] = start + i / W < count ? entry(of, stride, bias, start + i / W, i % W) : A(0);
        __syncthreads();
        for (int i = threadIdx.x; i < K * (R / QUADS); i += 128) {
            const int j = i % K, r = i / K * QUADS;
            A sum[QUADS] = {};
            for (int w = 0; w < W; ++w) for (int c = 0; c < QUADS; ++c) sum[c] += mine[r + c][w] * tile[j][w];
            if (start + j < count) for (int c = 0; c < QUADS; ++c) rows[r + c][start + j] = sum[c];
        }
    }
    __syncthreads();
}

// out[r][w] = Σ_j rows[r][j] of[j][w], for the rows there are
__device__ inline void times(const A (&rows)[R][M + 1], const T* of, int stride, const T* bias, int count, T* out, int out_stride,
                             int there) {
    for (int i = threadIdx.x; i < W * (R / QUADS); i += 128) {
        const int w = i % W, r = i / W * QUADS;
        A sum[QUADS] = {};
        for (int j = 0; j < count; ++j) {
            const A x = entry(of, stride, bias, j, w);
            for (int c = 0; c < QUADS; ++c) sum[c] += rows[r + c][j] * x;
        }
        for (int c = 0; c < QUADS; ++c) if (r + c < there) out[(size_t)(r + c) * out_stride + w] = T(sum[c]);
    }
}
"""

_FORWARD = Kernel(
    "attention_forward",
    _SHARED
    + r"""
extern "C" __global__ void attention_forward(const T* q, const T* kv, const T* bias, const long long* starts, const u8* real,
                                             const u64* keys, T* context,
                                             T* scores, T* p, u8* keep, int S, int rows_T, int h, int q_stride, int kv_stride, A factor,
                                             A lowest, u64 head_key, unsigned threshold, A scale) {
    const Place at = place(starts, S, rows_T, h);
    const int first = blockIdx.x * R, Q = at.Q, L = at.L, head = blockIdx.y, d = h * W;
    if (first >= Q) return;
    __shared__ A mine[R][W], rows[R][M + 1];
    const size_t query = (ONE ? blockIdx.z : at.start) + first;
    const T *k = kv + at.start * kv_stride + head * W, *b = bias ? bias + head * W : bias, *b_k = b ? b + d : b, *b_v = b ? b_k + d : b;
    take(q + query * q_stride + head * W, q_stride, b, Q - first, mine);
    against(mine, k, kv_stride, b_k, L, rows);
    EACH_OF_WARP(r) {
        const size_t start = at.scores + (size_t)(first + r) * L;
        A most = -INFINITY, sum = 0;
        EACH(j, L) for (int c = 0; c < 4 && j + c < L; ++c) {
            A v = rows[r][j + c] * factor;
            scores[start + j + c] = T(v);
            if (MASK) v += real[at.start + j + c] ? A(0) : lowest;
            rows[r][j + c] = v;
            most = Max::of(v, most);
        }
        most = over_row<Max>(most);
        EACH(j, L) for (int c = 0; c < 4 && j + c < L; ++c) sum += rows[r][j + c] = exp(rows[r][j + c] - most);
        sum = over_row<Sum>(sum);
        const u64 row_key = DROP ? mix((keys[query + r] + head * 0xD1B54A32D192ED03ull) * 0x9E3779B97F4A7C15ull + head_key) : 0;
        EACH(j, L) {
            u8 kept[4];
            if (DROP) draw(row_key, j / 4, threshold, kept);
            for (int c = 0; c < 4 && j + c < L; ++c) {
                const A v = rows[r][j + c] / sum;
                p[start + j + c] = T(v);
                if (DROP) keep[start + j + c] = kept[c];
                rows[r][j + c] = !DROP ? v : kept[c] ? v * scale : A(0);
            }
        }
    }
    __syncthreads();
    times(rows, k + d, kv_stride, b_v, L, context + query * d + head * W, d, Q - first);
}
""",
)

_BY_QUERIES = Kernel(
    "attention_backward_queries",
    _SHARED
    + r"""
extern "C" __global__ void attention_backward_queries(const T* dcontext, const T* kv, const T* bias, const long long* starts,
                                                      const T* p, const u8* keep,
                                                      const T* dscores, T* dA, T* dq, int S, int rows_T, int h, int dc_stride,
                                                      int kv_stride, int dq_stride, A factor, A scale) {
    const Place at = place(starts, S, rows_T, h);
    const int first = blockIdx.x * R, Q = at.Q, L = at.L, head = blockIdx.y, d = h * W;
    if (first >= Q) return;
    __shared__ A mine[R][W], rows[R][M + 1];
    const size_t query = (ONE ? blockIdx.z : at.start) + first;
    const T *k = kv + at.start * kv_stride + head * W, *b_k = bias ? bias + d + head * W : bias, *b_v = bias ? b_k + d : bias;
    take(dcontext + query * dc_stride + head * W, dc_stride, 0, Q - first, mine);
    against(mine, k + d, kv_stride, b_v, L, rows);
    EACH_OF_WARP(r) {
        const size_t start = at.scores + (size_t)(first + r) * L;
        A along = 0;
        EACH(j, L) for (int c = 0; c < 4 && j + c < L; ++c) {
            if (DROP) rows[r][j + c] = keep[start + j + c] ? rows[r][j + c] * scale : A(0);
            along += rows[r][j + c] * A(p[start + j + c]);
        }
        along = over_row<Sum>(along);
        EACH(j, L) for (int c = 0; c < 4 && j + c < L; ++c) {
            A g = (rows[r][j + c] - along) * A(p[start + j + c]);
            if (MORE) g += A(dscores[start + j + c]);
            g *= factor;
            rows[r][j + c] = g;
            dA[start + j + c] = T(g);
        }
    }
    __syncthreads();
    times(rows, k, kv_stride, b_k, L, dq + query * dq_stride + head * W, dq_stride, Q - first);
}
""",
)

_BY_KEYS = Kernel(
    "attention_backward_keys",
    _SHARED
    + r"""
extern "C" __global__ void attention_backward_keys(const T* dcontext, const T* q, const T* bias, const long long* starts,
                                                   const T* p, const u8* keep,
                                                   const T* dA, T* dkv, int S, int rows_T, int h, int dc_stride, int q_stride,
                                                   int dkv_stride, A scale) {
    const Place at = place(starts, S, rows_T, h);
    const int first = blockIdx.x * R, Q = at.Q, L = at.L, there = L - first, head = blockIdx.y;
    if (there <= 0) return;
    __shared__ A rows[R][M + 1];
    const size_t query = ONE ? blockIdx.z : at.start;
    T* dk = dkv + (at.start + first) * dkv_stride + head * W;
    for (int i = threadIdx.x; i < Q * R; i += 128) {
        const size_t j = at.scores + (size_t)(i / R) * L + first + i % R;
        rows[i % R][i / R] = i % R < there ? A(dA[j]) : A(0);
    }
    __syncthreads();
    times(rows, q + query * q_stride + head * W, q_stride, bias ? bias + head * W : bias, Q, dk, dkv_stride, there);
    __syncthreads();
    for (int i = threadIdx.x; i < Q * R; i += 128) {
        const size_t j = at.scores + (size_t)(i / R) * L + first + i % R;
        rows[i % R][i / R] = i % R >= there ? A(0) : !DROP ? A(p[j]) : keep[j] ? A(p[j]) * scale : A(0);
    }
    __syncthreads();
    times(rows, dcontext + query * dc_stride + head * W, dc_stride, 0, Q, dk + h * W, dkv_stride, there);
}
""",
)


def forward(
    q: Array,
    kv: Array,
    runs: Sequence[Run],
    heads: int,
    attention_mask: Array | None = None,
    p: float = 0.0,
    keys: Array | None = None,
    starts: Array | None = None,
    bias: Array | None = None,
) -> tuple[Array, Array, Cache]:
    q, kv = _in_rows(q), _in_rows(kv)
    attention_mask, keys = contiguous(attention_mask, keys)
    if starts is None:
        starts = cupy.asarray(np.concatenate([run.start + run.length * np.arange(run.n) for run in runs]))
    one, W = len(q) < runs[-1].stop, q.shape[1] // heads
    size = heads * sum(run.n * run.length * (1 if one else run.length) for run in runs)
    context, scores, P = (cupy.empty(shape, q.dtype) for shape in (q.shape, size, size))
    dropped, threshold = undrawn(size, p, keys)
    arrays = (q, kv, bias, starts, attention_mask, keys, context, scores, P, dropped.keep)
    numbers = (len(starts), runs[-1].stop, heads, _stride(q), _stride(kv), 1 / math.sqrt(W), float(np.finfo(parts_dtype(q.dtype)).min))
    more = (np.uint64(key(0, 0)), np.uint32(threshold), float(dropped.scale))
    _launch(_FORWARD, runs, heads, W, q.dtype, (*arrays, *numbers, *more), one, one, MASK=attention_mask is not None, DROP=threshold > 0)
    return context, scores, Cache(q, kv, runs, heads, _by_run(P, dropped, runs, heads, one), starts, bias)


def backward(dcontext: Array, cache: Cache, dscores: Array | None = None, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
    q, kv, runs, heads, weights, starts, bias = cache
    dcontext, (dscores,) = _in_rows(dcontext), contiguous(dscores)
    dq, dkv = out if out is not None else (cupy.empty(q.shape, q.dtype), cupy.empty(kv.shape, kv.dtype))
    assert dq.strides[1] == dkv.strides[1] == dq.itemsize, "rows without gaps"
    one, W = len(q) < runs[-1].stop, q.shape[1] // heads
    assert starts is not None
    p, (keep, scale) = weights[0]  # the first run's; the others' lie behind
    dA = cupy.empty(sum(w.p.size for w in weights), q.dtype)
    sizes, dropped = (len(starts), runs[-1].stop, heads), keep is not None
    numbers = (*sizes, _stride(dcontext), _stride(kv), _stride(dq), 1 / math.sqrt(W), float(scale))
    strides = _stride(dcontext), _stride(q), _stride(dkv)
    arrays = (dcontext, kv, bias, starts, p, keep, dscores, dA, dq)
    _launch(_BY_QUERIES, runs, heads, W, q.dtype, (*arrays, *numbers), one, one, DROP=dropped, MORE=dscores is not None)
    _launch(
        _BY_KEYS,
        runs,
        heads,
        W,
        q.dtype,
        (dcontext, q, bias, starts, p, keep, dA, dkv, *sizes, *strides, float(scale)),
        one,
        False,
        DROP=dropped,
    )
    return dq, dkv


def _launch(kernel: Kernel, runs, heads, W, dtype, arguments, one: bool, few: bool, **constants: bool) -> None:
    """A block for each stretch of rows of the longest sentence (a single one where `few`), each head, each sentence."""
    longest = max(run.length for run in runs)
    sizes = _sizes(longest, W, dtype)
    grid = (1 if few else -(-longest // sizes["R"]), heads, sum(run.n for run in runs))
    kernel.launch(grid, (128,), dtype, arguments, **sizes, ONE=one, **constants)


def _sizes(longest: int, W: int, dtype) -> dict[str, int]:
    """The constants of a kernel for sentences of up to `longest` tokens and heads W wide, as far as shared memory reaches."""
    M = max(32, 1 << (longest - 1).bit_length())
    room = 46 * 1024 // (8 if dtype == np.float64 else 4)  # numbers in shared memory
    K = max(k for k in (1, 2, 4, 8, 16, 32) if k == 1 or k * (W + 1) <= room // 4)
    R = max(r for r in (1, 2, 4, 8, 16) if r == 1 or r * (M + 1 + W) + K * (W + 1) <= room)
    if room < R * (M + 1 + W) + K * (W + 1):
        raise InputError(f"a sentence of {longest} tokens is too long for attention on a GPU, where a row of scores has 48 KB")
    return {"G": 32, "BLOCK": 128, "D": 0, "N": 1, "ALIGNED": 0, "W": W, "M": M, "K": K, "R": R}


def _by_run(p: Array, dropped: dropout.Cache, runs: Sequence[Run], heads: int, one: bool) -> list[softmax.Cache]:
    """P and its mask as views a run, (n, h, Q, L)."""
    caches, start = [], 0
    for _, n, L in runs:
        shape = (n, heads, 1 if one else L, L)
        part = slice(start, start := start + math.prod(shape))
        keep = None if dropped.keep is None else dropped.keep[part].reshape(shape)
        caches.append(softmax.Cache(p[part].reshape(shape), dropout.Cache(keep, dropped.scale)))
    return caches


def _in_rows(x: Array) -> Array:
    """x as kernels read it: each row without gaps, the rows evenly spaced."""
    return x if x.strides[1] == x.itemsize and x.strides[0] > 0 else cupy.ascontiguousarray(x)


def _stride(x: Array) -> int:
    return x.strides[0] // x.itemsize
