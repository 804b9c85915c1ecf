"""embedding.add_rows, table[ids[t]] += rows[t]; memory.added; and sums over rows, for biases. Each
sum has one order."""

from __future__ import annotations

import functools

import cupy
import numpy as np

from ...engine.device import Array, add_product
from .launch import COLUMN_PARTS, COLUMNS, Kernel, by_columns, contiguous, counters, in_fours, sums_over_rows
from .launch import ids as as_ids

_PLACE = r"""
struct alignas(8) Place { int id, t; };  // rows[t] is for table[id]
"""

# The ids in order, and where each was; of one id, the earlier first. By the lowest eight bits, then
# by the next, as far as ids have bits: places that are sorted by what is below stay so (least
# significant digit first: Knuth, TAOCP 3, 5.2.5). One block does it, whose warps have a stretch of
# the places each: of each of the 256 digits they count theirs, a sum over digits and warps says
# where each warp's begin, and they put them there.
_SORT = Kernel(
    "sort_ids",
    _PLACE
    + r"""
// Which of the warp's lanes have this lane's digit, of those that have one.
__device__ inline unsigned alike(int digit, bool there) {
    unsigned lanes = __ballot_sync(0xffffffffu, there);
    for (int bit = 0; bit < 8; ++bit) {
        const unsigned ones = __ballot_sync(0xffffffffu, digit >> bit & 1);
        lanes &= digit >> bit & 1 ? ones : ~ones;
    }
    return lanes;
}
__device__ inline int sum_to(int v) {  // over the warp's lanes, up to this one
    for (int other = 1; other < 32; other *= 2) {
        const int before = __shfl_up_sync(0xffffffffu, v, other);
        if (threadIdx.x % 32 >= other) v += before;
    }
    return v;
}
extern "C" __launch_bounds__(1024) __global__ void sort_ids(const ID* ids, Place* places, int count, int passes) {
    __shared__ int begins[256][33], of_warp[32];  // of 32 warps; an odd number, so that digits lie in other banks
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, share = (count + 1023) / 1024 * 32;
    const int first = warp * share, last = min(count, first + share);
    for (int pass = 0; pass < passes; ++pass) {
        const Place* from = places + (size_t)(pass % 2) * count;
        Place* to = places + (size_t)(1 - pass % 2) * count;
        int* own = &begins[threadIdx.x / 4][threadIdx.x % 4 * 8];
        for (int i = 0; i < 8; ++i) own[i] = 0;
        __syncthreads();
        for (int placing = 0; placing < 2; ++placing) {
            for (int start = first; start < last; start += 32) {
                const int i = start + lane;
                const bool there = i < last;
                Place place = {0, i};
                if (there && pass) place = from[i];
                else if (there) place.id = int(ids[i]);
                const int digit = place.id >> 8 * pass & 255;
                const unsigned same = alike(digit, there), earlier = same & ((1u << lane) - 1);
                int& begin = begins[digit][warp];
                if (placing && there) to[begin + __popc(earlier)] = place;
                __syncwarp();
                if (there && !earlier) begin += __popc(same);
                __syncwarp();
            }
            __syncthreads();
            if (placing) break;
            int sum = 0;
            for (int i = 0; i < 8; ++i) sum += own[i];
            int before = sum_to(sum);
            if (lane == 31) of_warp[warp] = before;
            before -= sum;
            __syncthreads();
            for (int w = 0; w < warp; ++w) before += of_warp[w];
            for (int i = 0; i < 8; ++i) {
                const int many = own[i];
                own[i] = before;
                before += many;
            }
            __syncthreads();
        }
    }
}
""",
)

# A block for each place that is the first of its id. Its warps sum up every eighth row for that id,
# N fours of columns a lane; each lane looks up one of the warp's next 32. Then the block adds up
# its warps'.
_ADD = Kernel(
    "add_rows",
    _PLACE
    + r"""
extern "C" __global__ void add_rows(const Place* places, const T* rows, T* table, int count, int D) {
    const int first = blockIdx.x, own = places[first].id, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (first && places[first - 1].id == own) return;
    __shared__ A of_warp[8][128];
    for (int base = 0; base < D; base += 128 * N) {
        A sum[N][4] = {}, v[4];
        for (int start = first + warp, many = 32; many == 32; start += 256) {
            const int at = start + 8 * lane;
            const bool mine = at < count && places[at].id == own;
            const int t = mine ? places[at].t : 0;
            many = __popc(__ballot_sync(0xffffffffu, mine));  // they are the first lanes'
            for (int n = 0; n < many; ++n) {
                const T* row = rows + (size_t)__shfl_sync(0xffffffffu, t, n) * D;
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
    (rows,), d = contiguous(rows), table.shape[1]
    constants = {"N": min(8, -(-d // 128)), "ALIGNED": in_fours(d, (rows,))}
    _ADD.launch((len(ids),), (256,), table.dtype, (in_order(ids, len(table), table.dtype), rows, table, len(ids), d), **constants)


def in_order(numbers: Array, bound: int, dtype) -> Array:
    """ids (T,), each below `bound` -> (T, 2) int32: ids in order, and where each was, the earlier
    first; for kernels of `dtype`."""
    (numbers,) = as_ids(numbers)
    passes = max(1, -(-(bound - 1).bit_length() // 8))
    places = cupy.empty((2, len(numbers), 2), np.int32)  # each pass has them from one into the other
    _SORT.launch((1,), (1024,), dtype, (numbers, places, len(numbers), passes), ID=numbers.dtype, ALIGNED=0)
    return places[passes % 2]


def sum_rows(x: Array, out: Array | None = None) -> Array:
    """x (T, d) -> Σ_t x_t (d,), into `out` where given."""
    (x,) = contiguous(x)
    rows, d = x.shape
    out, parts = sums_over_rows(rows, d, x.dtype, out)
    by_columns(_SUM, (x, out, parts, counters()), rows, d, x.dtype, COLUMN_PARTS)
    return out
