"""A layer's attention (layer.py launches it): a head of a sentence, forward, and backward by
queries and by keys.

A = q kᵀ/√d_k,  P = softmax(A + mask),  D = P m/(1 − p),  c = D v
dA = (P (dD m/(1 − p) − Σ dD D) + dscores)/√d_k with dD = dc vᵀ;  dq = dA k;      dk = dAᵀ q,  dv = Dᵀ dc

One pass forward and two backward, whatever lengths the sentences have; no product of theirs is a
call of its own.
"""

from __future__ import annotations

import functools

import numpy as np

from ...errors import InputError
from .launch import Kernel, parts_dtype

# blockIdx.x: a sentence, blockIdx.y: a head. Of ONE a sentence, only its first token asks.
PLACE = r"""
struct Place { long long start; int L, Q; size_t scores; };  // a sentence: its first row, length, queries, and where its scores begin

__device__ inline Place place(const long long* starts, int sentences, int T_rows, int h) {
    const int s = blockIdx.x;
    Place at;
    at.start = starts[s];
    at.L = int((s + 1 < sentences ? starts[s + 1] : T_rows) - at.start);
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
"""

# A block of 128 threads has up to R queries (or R keys) of one head of one sentence, a warp has a
# row of them. rows[r][j] is what the block's row r and the sentence's row j have to do with each
# other, W the width of a head, M the longest sentence or more. Products come of tiles of K rows; a
# thread has the sums of QUADS rows and C (or four) columns, and reads shared memory in fours, rows
# of S numbers, an odd number of fours: neighbours lie in other banks. Where a quarter or half of
# the threads would do for the sums, SPLIT shares of them have a part of each tile's rows.
#
# Banks: 32 of them, a number (of 4 bytes) wide; a warp's access of a number each is served at once, of a four each eight lanes at a time.
# What asks a bank for two different numbers in that time waits. A row of `rows` is M + PAD numbers long, M a multiple of 32, so that
# rows[r][j] lies in bank (PAD r + j) mod 32:
# - `transpose` stores a four for row r and j = 4c, eight lanes' r and c being the next ones. From R = 8 on: eight r, one c, PAD = 4, the
#   banks from 4 r on, which are all 32, each once. R < 8: R of r, 8/R of c, PAD = 32/R: from (32/R) r + 4 c on, each once again.
#   (Numbers stored one by one, of which a warp has 32 r and one j, would be in bank (4 r + j) mod 32: four of them in each that is hit.)
# - `times` loads the four of row 4 k + c, the same c for all lanes: banks from 16 k on. Lanes of one k read the same four. FOURS
#   neighbours have one k: from 24 columns on, eight lanes have two k, next to each other, 16 banks apart. (Below, some wait.)
# - the softmax's lanes, and those that `against` stores the products of, have the next j each, 32 or 16 of them; the latter's two r are
#   four apart, and so 16 banks.
# A double has two banks: of its fours, which are two accesses, every second lane finds the bank taken.
_SHARED = (
    PLACE
    + r"""
constexpr int QUADS = R < 4 ? R : 4, C = R * K > 128 * QUADS ? R * K / (128 * QUADS) : 1, FOURS = (W + 3) / 4, S = 4 * (FOURS | 1);
constexpr int PAD = R < 8 ? 32 / R : 4;
#define EACH(j, count) for (int j = LANE; j < count; j += 32)
#define EACH_OF_WARP(r) for (int r = threadIdx.x / 32; r < R && first + r < Q; r += 4)
#define SHARED alignas(4 * sizeof(A)) __shared__ A
typedef A Rows[R][M + PAD];
typedef A Tile[K][S];

__device__ inline const Four<A>& four(const A& first) { return *(const Four<A>*)&first; }
__device__ inline Four<A>& four(A& first) { return *(Four<A>*)&first; }

// to[j][w] = from[first + j][w] + bias[w], 0 where there is none
template <int N> __device__ inline void take(const T* from, int stride, const T* bias, int first, int count, A (&to)[N][S]) {
    for (int i = threadIdx.x; i < N * S; i += 128) {
        const int j = i / S, w = i % S;
        const bool there = first + j < count && w < W;
        to[j][w] = there ? A(from[(size_t)(first + j) * stride + w]) + (bias ? A(bias[w]) : A(0)) : A(0);
    }
}

// rows[r][j] = Σ_w mine[r][w] of[j][w]; 0 for what of the last tile is not there
__device__ inline void against(const A (&mine)[R][S], Tile& tile, const T* of, int stride, const T* bias, int count, Rows& rows) {
    for (int start = 0; start < count; start += K) {
        __syncthreads();
        take(of, stride, bias, start, count, tile);
        __syncthreads();
        for (int i = threadIdx.x; i < K / C * (R / QUADS); i += 128) {
            const int j = i % (K / C), r = i / (K / C) * QUADS;
            A sum[QUADS][C] = {};
            for (int w = 0; w < 4 * FOURS; w += 4) {
                Four<A> x[QUADS], y[C];
                for (int c = 0; c < QUADS; ++c) x[c] = four(mine[r + c][w]);
                for (int e = 0; e < C; ++e) y[e] = four(tile[j + e * (K / C)][w]);
                for (int c = 0; c < QUADS; ++c) for (int e = 0; e < C; ++e)
                    for (int n = 0; n < 4; ++n) sum[c][e] += x[c].at[n] * y[e].at[n];
            }
            for (int c = 0; c < QUADS; ++c) for (int e = 0; e < C; ++e) rows[r + c][start + j + e * (K / C)] = sum[c][e];
        }
    }
    __syncthreads();
}

// out[r][w] = Σ_j rows[r][j] of[j][w], for the rows there are; rows are 0 from count to the end of its four
__device__ inline void times(const Rows& rows, Tile& tile, const T* of, int stride, const T* bias, int count, T* out, int out_stride,
                             int there) {
    constexpr int PIECES = FOURS * (R / QUADS), MANY = (PIECES + 127) / 128, OTHERS = (SPLIT - 1) * PIECES;
    const int piece = SPLIT == 1 ? threadIdx.x : threadIdx.x % PIECES, share = SPLIT == 1 ? 0 : threadIdx.x / PIECES;
    A sum[MANY][QUADS][4] = {};
    for (int start = 0; start < count; start += K) {
        __syncthreads();
        take(of, stride, bias, start, count, tile);
        __syncthreads();
#pragma unroll  // else `sum`, asked for its m-th, lies in memory
        for (int m = 0; m < MANY; ++m) {
            const int i = piece + 128 * m, w = i % FOURS * 4, r = i / FOURS * QUADS;
            if (i < PIECES && share < SPLIT) for (int j = 4 * share; j < K && start + j < count; j += 4 * SPLIT) {
                Four<A> x[QUADS], y[4];
                for (int c = 0; c < QUADS; ++c) x[c] = four(rows[r + c][start + j]);
                for (int n = 0; n < 4; ++n) y[n] = four(tile[j + n][w]);
                for (int c = 0; c < QUADS; ++c) for (int n = 0; n < 4; ++n)
                    for (int e = 0; e < 4; ++e) sum[m][c][e] += x[c].at[n] * y[n].at[e];
            }
        }
    }
    if (SPLIT > 1) {  // the first share's threads add what the others have
        A* others = &tile[0][0];
        __syncthreads();
        if (share && share < SPLIT) for (int c = 0; c < QUADS; ++c) for (int e = 0; e < 4; ++e)
            others[(4 * c + e) * OTHERS + (share - 1) * PIECES + piece] = sum[0][c][e];
        __syncthreads();
        if (share) return;
        for (int s = 0; s < SPLIT - 1; ++s) for (int c = 0; c < QUADS; ++c) for (int e = 0; e < 4; ++e)
            sum[0][c][e] += others[(4 * c + e) * OTHERS + s * PIECES + piece];
    }
#pragma unroll
    for (int m = 0; m < MANY; ++m) {
        const int i = piece + 128 * m, w = i % FOURS * 4, r = i / FOURS * QUADS;
        if (i < PIECES) for (int c = 0; c < QUADS; ++c) for (int e = 0; e < 4; ++e)
            if (r + c < there && w + e < W) out[(size_t)(r + c) * out_stride + w + e] = T(sum[m][c][e]);
    }
}
"""
)

FORWARD = Kernel(
    "attention_forward",
    _SHARED
    + r"""
extern "C" __global__ void attention_forward(const T* q, const T* kv, const T* bias, const long long* starts, const u8* real,
                                             const u64* keys, T* context,
                                             T* scores, T* p, u8* keep, int sentences, int rows_T, int h, int q_stride, int kv_stride,
                                             A factor, A lowest, u64 head_key, unsigned threshold, A scale) {
    const Place at = place(starts, sentences, rows_T, h);
    const int first = blockIdx.z * R, Q = at.Q, L = at.L, head = blockIdx.y, d = h * W;
    if (first >= Q) return;
    SHARED mine[R][S];
    SHARED tile[K][S];
    SHARED rows[R][M + PAD];
    const size_t query = (ONE ? blockIdx.x : at.start) + first;
    const T *k = kv + at.start * kv_stride + head * W, *b = bias ? bias + head * W : bias, *b_k = b ? b + d : b, *b_v = b ? b_k + d : b;
    take(q + query * q_stride + head * W, q_stride, b, 0, Q - first, mine);
    against(mine, tile, k, kv_stride, b_k, L, rows);
    EACH_OF_WARP(r) {
        const size_t start = at.scores + (size_t)(first + r) * L;
        A most = -INFINITY, sum = 0;
        EACH(j, L) {
            A v = rows[r][j] * factor;
            if (scores) scores[start + j] = T(v);
            if (MASK && !real[at.start + j]) v += lowest;
            rows[r][j] = v;
            most = Max::of(v, most);
        }
        most = over_row<Max>(most);
        EACH(j, L) sum += rows[r][j] = exp(rows[r][j] - most);
        const A inverse = 1 / over_row<Sum>(sum);  // one division a row, none an entry
        const u64 row_key = DROP ? mix((keys[query + r] + head * 0xD1B54A32D192ED03ull) * 0x9E3779B97F4A7C15ull + head_key) : 0;
        for (int base = 0; base < L; base += 128) {  // a lane draws for four columns and asks those that drew for its own
            const u64 drawn = DROP ? draw(row_key, base / 4 + LANE) : 0;
            for (int c = 0; c < 4; ++c) {
                const int j = base + 32 * c + LANE;
                const bool kept = !DROP || keeps(__shfl_sync(0xffffffffu, drawn, 8 * c + LANE / 4), j % 4, threshold);
                if (j >= L) continue;
                const A v = rows[r][j] * inverse;
                if (p) p[start + j] = T(v);
                if (DROP && keep) keep[start + j] = kept;
                rows[r][j] = !DROP ? v : kept ? v * scale : A(0);
            }
        }
    }
    __syncthreads();
    times(rows, tile, k + d, kv_stride, b_v, L, context + query * d + head * W, d, Q - first);
}
""",
)

BY_QUERIES = Kernel(
    "attention_backward_queries",
    _SHARED
    + r"""
extern "C" __global__ void attention_backward_queries(const T* dcontext, const T* kv, const T* bias, const long long* starts,
                                                      const T* p, const u8* keep,
                                                      const T* dscores, T* dA, T* dq, int sentences, int rows_T, int h, int dc_stride,
                                                      int kv_stride, int dq_stride, A factor, A scale) {
    const Place at = place(starts, sentences, rows_T, h);
    const int first = blockIdx.z * R, Q = at.Q, L = at.L, head = blockIdx.y, d = h * W;
    if (first >= Q) return;
    SHARED mine[R][S];
    SHARED tile[K][S];
    SHARED rows[R][M + PAD];
    const size_t query = (ONE ? blockIdx.x : at.start) + first;
    const T *k = kv + at.start * kv_stride + head * W, *b_k = bias ? bias + d + head * W : bias, *b_v = bias ? b_k + d : bias;
    take(dcontext + query * dc_stride + head * W, dc_stride, 0, 0, Q - first, mine);
    against(mine, tile, k + d, kv_stride, b_v, L, rows);
    EACH_OF_WARP(r) {
        const size_t start = at.scores + (size_t)(first + r) * L;
        A along = 0;
        EACH(j, L) {
            if (DROP) rows[r][j] = keep[start + j] ? rows[r][j] * scale : A(0);
            along += rows[r][j] * A(p[start + j]);
        }
        along = over_row<Sum>(along);
        EACH(j, L) {
            A g = (rows[r][j] - along) * A(p[start + j]);
            if (MORE) g += A(dscores[start + j]);
            g *= factor;
            rows[r][j] = g;
            dA[start + j] = T(g);
        }
    }
    __syncthreads();
    times(rows, tile, k, kv_stride, b_k, L, dq + query * dq_stride + head * W, dq_stride, Q - first);
}
""",
)

BY_KEYS = Kernel(
    "attention_backward_keys",
    _SHARED
    + r"""
// rows[r][q] = of(where the scores have query q and key first + r), for every query; 0 to the end of its four.
// A thread has four queries of a key: next to it is the next key, so that a warp reads of each query what lies together, and stores a
// row's four at once.
template <typename F> __device__ inline void transpose(Rows& rows, const Place& at, int first, int there, F of) {
    for (int i = threadIdx.x; i < (at.Q + 3) / 4 * R; i += 128) {
        const int r = i % R, q = i / R * 4;
        Four<A> v;
        for (int c = 0; c < 4; ++c) v.at[c] = r < there && q + c < at.Q ? of(at.scores + (size_t)(q + c) * at.L + first + r) : A(0);
        four(rows[r][q]) = v;
    }
}

extern "C" __global__ void attention_backward_keys(const T* dcontext, const T* q, const T* bias, const long long* starts,
                                                   const T* p, const u8* keep,
                                                   const T* dA, T* dkv, int sentences, int rows_T, int h, int dc_stride, int q_stride,
                                                   int dkv_stride, A scale) {
    const Place at = place(starts, sentences, rows_T, h);
    const int first = blockIdx.z * R, Q = at.Q, L = at.L, there = L - first, head = blockIdx.y;
    if (there <= 0) return;
    SHARED tile[K][S];
    SHARED rows[R][M + PAD];
    const size_t query = ONE ? blockIdx.x : at.start;
    T* dk = dkv + (at.start + first) * dkv_stride + head * W;
    transpose(rows, at, first, there, [&](size_t i) { return A(dA[i]); });
    times(rows, tile, q + query * q_stride + head * W, q_stride, bias ? bias + head * W : bias, Q, dk, dkv_stride, there);
    __syncthreads();
    transpose(rows, at, first, there, [&](size_t i) { return !DROP ? A(p[i]) : keep[i] ? A(p[i]) * scale : A(0); });
    times(rows, tile, dcontext + query * dc_stride + head * W, dc_stride, 0, Q, dk + h * W, dkv_stride, there);
}
""",
)


@functools.cache
def lowest(dtype: np.dtype) -> float:
    """What is added to the scores of masked keys."""
    return float(np.finfo(parts_dtype(dtype)).min)


@functools.cache
def sizes(longest: int, W: int, dtype: np.dtype, few: bool = False) -> dict[str, int]:
    """The constants of a kernel for sentences of up to `longest` tokens and heads W wide, as far as
    shared memory reaches."""
    M = max(32, 1 << (longest - 1).bit_length())
    S = 4 * (-(-W // 4) | 1)
    room = 46 * 1024 // (8 if dtype == np.float64 else 4)  # numbers in shared memory
    rows = [1] if few else [1, 2, 4, 8, 16] if longest <= 16 else [1, 2, 4, 8, 16, 32]
    of_row = lambda R: M + (32 // R if R < 8 else 4) + S  # with PAD
    choices = [(R * K, R, K) for R in rows for K in (4, 8, 16, 32, 64) if M >= K and room >= R * of_row(R) + K * S]
    if not choices:
        raise InputError(f"a sentence of {longest} tokens is too long for attention on a GPU, where a row of scores has 48 KB")
    _, R, K = max(choices)
    quads, pieces = min(R, 4), -(-W // 4) * -(-R // 4)
    split = max(n for n in (1, 2, 4, 8) if n == 1 or (n * pieces <= 128 and (n - 1) * pieces * quads * 4 <= K * S))
    return {"G": 32, "BLOCK": 128, "D": 0, "N": 1, "ALIGNED": 0, "W": W, "M": M, "K": K, "R": R, "SPLIT": split}
