"""device.matmul: products of many small matrices that lie as views in larger arrays (attention's heads), by cuBLAS, without a copy
(CuPy's `matmul` copies such views).   out = scale · a b

Matrices evenly spaced are one strided call. Others (a head within a row within a sentence) are called by a table of their addresses,
which a kernel writes, once for the same places.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import cupy
import numpy as np
from cupy.cuda import cublas
from cupy.cuda.device import get_cublas_handle

from ..device import Array
from .cuda import Kernel

_ADDRESSES = Kernel(
    "addresses",
    r"""
extern "C" __global__ void addresses(u64* out, u64 a, u64 b, u64 c, u64 a_n, u64 a_h, u64 b_n, u64 b_h, u64 c_n, u64 c_h, int n, int h) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, sentence = i / h, head = i % h;
    if (i >= n * h) return;
    out[i] = a + sentence * a_n + head * a_h;
    out[n * h + i] = b + sentence * b_n + head * b_h;
    out[2 * n * h + i] = c + sentence * c_n + head * c_h;
}
""",
)


def matmul(a: Array, b: Array, out: Array, scale: float = 1.0) -> Array:
    """a (…, m, k), b (…, k, n), out (…, m, n), at most two axes before the last two, equal in all three."""
    if not out.size or not a.size or a.dtype not in (np.float32, np.float64) or out.strides[-1] != out.itemsize:
        out[...] = cupy.matmul(a, b) * scale
        return out
    (m, k), n = a.shape[-2:], b.shape[-1]
    a, transpose_a, lda = _operand(a)
    b, transpose_b, ldb = _operand(b)
    ldc = max(out.strides[-2] // out.itemsize, n) if m > 1 else n
    alpha, beta = np.array(scale, a.dtype), np.array(0, a.dtype)
    # cuBLAS counts by columns: to it each matrix is its transpose, and outᵀ = bᵀ aᵀ.
    sizes = (get_cublas_handle(), transpose_b, transpose_a, n, m, k, alpha.ctypes.data)
    single = a.dtype == np.float32
    steps = [_step(x) for x in (b, a, out)]
    count = math.prod(out.shape[:-2])
    if None not in steps:
        call = cublas.sgemmStridedBatched if single else cublas.dgemmStridedBatched
        step_b, step_a, step_c = steps
        call(*sizes, b.data.ptr, ldb, step_b, a.data.ptr, lda, step_a, beta.ctypes.data, out.data.ptr, ldc, step_c, count)
        return out
    places = tuple(place for x in (b, a, out) for place in (x.data.ptr, *x.strides[:-2]))
    table = _addresses(out.device.id, places, *out.shape[:-2])
    at = [table.data.ptr + i * count * table.itemsize for i in range(3)]
    call = cublas.sgemmBatched if single else cublas.dgemmBatched
    call(*sizes, at[0], ldb, at[1], lda, beta.ctypes.data, at[2], ldc, count)
    return out


def _operand(x: Array) -> tuple[Array, int, int]:
    """x, whether cuBLAS has to transpose it, and the distance of its rows (or columns); a copy where neither are contiguous."""
    rows, columns = x.shape[-2:]
    s0, s1 = (s // x.itemsize for s in x.strides[-2:])
    if (s1 == 1 or columns == 1) and (s0 >= columns or rows == 1):
        return x, cublas.CUBLAS_OP_N, max(s0, columns) if rows > 1 else columns
    if (s0 == 1 or rows == 1) and (s1 >= rows or columns == 1):
        return x, cublas.CUBLAS_OP_T, max(s1, rows) if columns > 1 else rows
    return cupy.array(x, order="C"), cublas.CUBLAS_OP_N, columns


def _step(x: Array) -> int | None:
    """How many elements lie between the starts of neighbouring matrices; None where not always as many."""
    axes = [(n, s // x.itemsize) for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True) if n > 1]
    if len(axes) == 2 and axes[0][1] != axes[1][0] * axes[1][1]:
        return None
    return axes[-1][1] if axes else 0


@functools.lru_cache(maxsize=4096)
def _addresses(device: int, places: tuple[int, ...], n: int, h: int) -> Any:
    """(3, n·h) addresses of the matrices of three arrays, of which `places` has the start and the strides of the first two axes."""
    table = cupy.empty((3, n * h), np.uint64)
    (b, b_n, b_h), (a, a_n, a_h), (c, c_n, c_h) = places[:3], places[3:6], places[6:]
    numbers = [np.uint64(x % 2**64) for x in (b, a, c, b_n, b_h, a_n, a_h, c_n, c_h)]
    _ADDRESSES.launch((-(-n * h // 128),), (128,), np.float32, (table, *numbers, n, h), ALIGNED=0)
    return table
