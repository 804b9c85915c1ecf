"""memory.add_rows, table[ids[t]] += rows[t], each sum in the order of t; and memory.added."""

from __future__ import annotations

import functools

import cupy

from ..device import Array, add_product
from .cuda import Kernel, contiguous

# A block for each t whose id no earlier one has: it looks for the later ones, 256 at a time, and adds what they hold in their order.
_ADD = Kernel(
    "add_rows",
    r"""
extern "C" __global__ void add_rows(const int* ids, const T* rows, T* table, int count, int D) {
    const int t = blockIdx.x, own = ids[t], lane = threadIdx.x;
    int earlier = 0;
    for (int s = lane; s < t; s += 256) earlier |= ids[s] == own;
    if (__syncthreads_or(earlier)) return;
    __shared__ int matches[256];
    for (int column = lane; column - lane < D; column += 256) {
        A sum = 0;
        for (int start = t; start < count; start += 256) {
            matches[lane] = start + lane < count && ids[start + lane] == own;
            if (!__syncthreads_or(matches[lane])) continue;
            const int stop = count - start < 256 ? count - start : 256;
            if (column < D) for (int s = 0; s < stop; ++s) if (matches[s]) sum += A(rows[(size_t)(start + s) * D + column]);
            __syncthreads();
        }
        if (column < D) table[(size_t)own * D + column] += T(sum);
    }
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
    _ADD.launch((len(ids),), (256,), table.dtype, (ids, rows, table, len(ids), table.shape[1]), ALIGNED=0)
