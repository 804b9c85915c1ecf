"""memory.add_rows, table[ids[t]] += rows[t]; memory.sum_rows; memory.added. Each sum has one order."""

from __future__ import annotations

import functools

import cupy

from ...engine.device import Array, add_product
from .launch import COLUMN_PARTS, COLUMNS, Kernel, by_columns, contiguous, counters, in_fours, sums_over_rows

# A block for each t whose id no earlier one has. Its warps look for the later ones, 32 at a time each, and sum up what they hold, N fours
# of columns a lane; then the block adds up its warps'.
_ADD = Kernel(
    "add_rows",
    r"""
extern "C" __global__ void add_rows(const int* ids, const T* rows, T* table, int count, int D) {
    const int t = blockIdx.x, own = ids[t], lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int earlier = 0;
    for (int s = threadIdx.x; s < t; s += 256) earlier |= ids[s] == own;
    if (__syncthreads_or(earlier)) return;
    __shared__ A of_warp[8][128];
    for (int base = 0; base < D; base += 128 * N) {
        A sum[N][4] = {}, v[4];
        for (int start = t + 32 * warp; start < count; start += 256) {
            unsigned matches = __ballot_sync(0xffffffffu, start + lane < count && ids[start + lane] == own);
            for (; matches; matches &= matches - 1) {
                const T* row = rows + (size_t)(start + __ffs(matches) - 1) * D;
                for (int i = 0, j = base + 4 * lane; i < N; ++i, j += 128) if (j < D) {
                    load(row + j, D - j, v);
                    for (int c = 0; c < 4; ++c) sum[i][c] += v[c];
                }
            }
        }
        for (int i = 0, j = base + threadIdx.x; i < N; ++i, j += 128) {
            __syncthreads();
            for (int c = 0; c < 4; ++c) of_warp[warp][4 * lane + c] = sum[i][c];
            __syncthreads();
            if (threadIdx.x >= 128 || j >= D) continue;
            A total = 0;
            for (int w = 0; w < 8; ++w) total += of_warp[w][threadIdx.x];
            table[(size_t)own * D + j] += T(total);
        }
    }
}
""",
)

_SUM = Kernel(
    "sum_rows",
    COLUMNS
    + r"""
extern "C" __global__ void sum_rows(const T* x, T* out, A* parts, unsigned* counters, int rows, int D) {
    const int j = 4 * (blockIdx.x * blockDim.x + threadIdx.x), n = D - j;
    A sum[4] = {0, 0, 0, 0}, v[4];
    for (int row = blockIdx.y; row < rows && n > 0; row += gridDim.y) {
        load(x + (size_t)row * D + j, n, v);
        for (int c = 0; c < 4; ++c) sum[c] += v[c];
    }
    sum_over_rows(sum, out, parts, counters, j, D);
}
""",
)

# A small table, whose rows are asked again and again: a GEMM with the ids as unit vectors.
_FEW_ROWS = 1024
_ONE_HOT = cupy.ElementwiseKernel("raw I ids, int32 count", "T hot", "hot = T(ids[i % count] == i / count)", "one_hot")


@functools.cache
def _sum_of(count: int) -> cupy.ElementwiseKernel:
    names = [f"x{i}" for i in range(count)]
    return cupy.ElementwiseKernel(", ".join(f"T {name}" for name in names), "T y", f"y = {' + '.join(names)}", "sum_of")


def added(x: Array, *terms: Array) -> Array:
    while terms:  # a kernel for each number of terms, but not for as many as there may be
        x, terms = _sum_of(1 + len(terms[:7]))(x, *terms[:7]), terms[7:]
    return x


def add_rows(table: Array, ids: Array, rows: Array) -> None:
    if not len(ids) or not rows.size:
        return
    if len(table) <= _FEW_ROWS:
        hot = cupy.empty((len(table), len(ids)), table.dtype)
        _ONE_HOT(ids, len(ids), hot)
        add_product(hot, rows, table)
        return
    ids, rows = contiguous(ids.astype(cupy.int32, copy=False), rows)
    d = table.shape[1]
    constants = {"N": min(8, -(-d // 128)), "ALIGNED": in_fours(d, (rows,))}
    _ADD.launch((len(ids),), (256,), table.dtype, (ids, rows, table, len(ids), d), **constants)


def sum_rows(x: Array, out: Array | None = None) -> Array:
    (x,) = contiguous(x)
    rows, d = x.shape
    out, parts = sums_over_rows(rows, d, x.dtype, out)
    by_columns(_SUM, (x, out, parts, counters()), rows, d, x.dtype, COLUMN_PARTS)
    return out
