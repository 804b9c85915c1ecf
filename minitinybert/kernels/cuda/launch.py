"""What the kernels share: how CUDA C is compiled for a dtype, how rows are shared out among
threads, sums over columns.

T is the dtype of the arrays, A that of the arithmetic (float for T narrower than it). A row of D
elements belongs to a group of G threads, a warp or a block of 256; thread `lane` has the four
columns from 4·lane, and on in strides of 4·G, N fours in all. Four 16-bit random numbers come of
one 64-bit word (random.py), hence the four. Every sum has one order: results are the same at every
run.
"""

from __future__ import annotations

import ctypes
import functools
import re
import struct
import threading
from collections.abc import Callable, Mapping
from threading import get_ident
from typing import Any

import cupy
import numpy as np
from cupy.cuda import driver

from ...engine.device import Array

MIX = r"""
typedef unsigned long long u64;
// random.mix
__device__ inline u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}
"""

PRELUDE = (
    MIX
    + r"""
typedef unsigned char u8;
#ifndef INFINITY  // NVRTC has no <math.h>
#define INFINITY __int_as_float(0x7f800000)
#endif

template <typename S, int MANY> struct alignas(MANY * sizeof(S)) Some { S at[MANY]; };
template <typename S> using Four = Some<S, 4>;

// Four neighbours of a row, of which n lie in it: in one access where all rows are so aligned, in two, or in four (ALIGNED: `in_fours`).
constexpr int AT_ONCE = ALIGNED == 1 ? 4 : ALIGNED == 2 ? 2 : 1;
template <typename S, typename V> __device__ inline void load(const S* p, int n, V (&v)[4]) {
    for (int start = 0; start < 4; start += AT_ONCE) {
        if (AT_ONCE == 4 || start < n) {
            const Some<S, AT_ONCE> some = *(const Some<S, AT_ONCE>*)(p + start);
            for (int c = 0; c < AT_ONCE; ++c) v[start + c] = V(some.at[c]);
        } else {
            for (int c = 0; c < AT_ONCE; ++c) v[start + c] = V(0);
        }
    }
}
template <typename S, typename V> __device__ inline void store(S* p, int n, const V (&v)[4]) {
    for (int start = 0; start < 4; start += AT_ONCE) if (AT_ONCE == 4 || start < n) {
        Some<S, AT_ONCE> some;
        for (int c = 0; c < AT_ONCE; ++c) some.at[c] = S(v[start + c]);
        *(Some<S, AT_ONCE>*)(p + start) = some;
    }
}

// The four numbers of random.bits16 from column 4·word on, and whether the one at `place` is kept.
__device__ inline u64 draw(u64 key, int word) { return mix(key + (u64)(word + 1) * 0x9E3779B97F4A7C15ull); }
__device__ inline bool keeps(u64 drawn, int place, unsigned threshold) { return ((drawn >> (16 * place)) & 0xffff) >= threshold; }
__device__ inline void scale_kept(A (&v)[4], const u8 (&kept)[4], A scale) {
    for (int c = 0; c < 4; ++c) v[c] = kept[c] ? v[c] * scale : A(0);
}
// v m/(1 − p): m drawn, and put into `keep` where there is an array for it; or m as it was put there.
__device__ inline void drop(A (&v)[4], u64 key, int word, unsigned threshold, A scale, u8* keep, int n) {
    const u64 drawn = draw(key, word);
    u8 kept[4];
    for (int c = 0; c < 4; ++c) kept[c] = keeps(drawn, c, threshold);
    if (keep) store(keep, n, kept);
    scale_kept(v, kept, scale);
}
__device__ inline void drop_again(A (&v)[4], A scale, const u8* keep, int n) {
    u8 kept[4];
    load(keep, n, kept);
    scale_kept(v, kept, scale);
}
"""
)

ROWS = r"""
#define LANE ((int)threadIdx.x % G)
#define GROUP (blockIdx.x * (BLOCK / G) + threadIdx.x / G)
#define EACH_ROW(row) for (int row = GROUP; row < rows; row += gridDim.x * (BLOCK / G))
#define EACH_FOUR_IN_MEMORY(j) for (int j = 4 * LANE; j < D; j += 4 * G)  // of rows too wide to be held
#define EACH_FOUR(i, j) _Pragma("unroll") for (int i = 0, j = 4 * LANE; i < N; ++i, j += 4 * G) if (j < D)

struct Sum { __device__ static A of(A x, A y) { return x + y; } };
struct Max { __device__ static A of(A x, A y) { return x > y ? x : y; } };

// Over the warp's threads, the block's, the group's; each gets the result.
template <typename F> __device__ inline A over_warp(A v) {
    for (int other = 16; other; other >>= 1) v = F::of(v, __shfl_xor_sync(0xffffffffu, v, other));
    return v;
}
template <typename F> __device__ inline A over_block(A v) {
    v = over_warp<F>(v);
    __shared__ A of_warp[BLOCK / 32];
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    A all = of_warp[0];
    for (int w = 1; w < BLOCK / 32; ++w) all = F::of(all, of_warp[w]);
    return all;
}
template <typename F> __device__ inline A over_row(A v) { return G == 32 ? over_warp<F>(v) : over_block<F>(v); }
"""

LAST = r"""
// Whether this block is the last of `blocks` to come here: it sees what the others wrote before. The counter is 0 again afterwards.
__device__ inline bool comes_last(unsigned* counter, unsigned blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
    __syncthreads();
    if (last) __threadfence();
    return last;
}
"""

COLUMNS = (
    LAST
    + r"""
// A block has four columns a thread, from j on, and every gridDim.y-th row of them. Σ over the rows of what the threads have summed up of
// theirs, into out: by the last block of these columns to come.
__device__ inline void sum_over_rows(A (&sum)[4], T* out, A* parts, unsigned* counters, int j, int D) {
    A part[4];
    if (j < D) store(parts + (size_t)blockIdx.y * D + j, D - j, sum);
    if (!comes_last(counters + blockIdx.x, gridDim.y) || j >= D) return;
    for (int c = 0; c < 4; ++c) sum[c] = 0;
#pragma unroll 16
    for (int p = 0; p < (int)gridDim.y; ++p) {
        load(parts + (size_t)p * D + j, D - j, part);
        for (int c = 0; c < 4; ++c) sum[c] += part[c];
    }
    store(out + j, D - j, sum);
}
"""
)

SUMS = (
    LAST
    + r"""
// Σ parts over a block; each of its threads gets the result.
__device__ inline A total_of(const A* parts, int count) {
    A sum = 0;
    for (int i = threadIdx.x; i < count; i += BLOCK) sum += parts[i];
    return over_block<Sum>(sum);
}
// Σ of what each thread of the grid brings, by a part for each block: true in the last block to come, whose threads get the result.
__device__ inline bool sum_over_grid(A& sum, A* parts, unsigned* counter) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x, blocks = gridDim.x * gridDim.y * gridDim.z;
    sum = over_block<Sum>(sum);
    if (threadIdx.x == 0) parts[block] = sum;
    if (!comes_last(counter, blocks)) return false;
    sum = total_of(parts, blocks);
    return true;
}
"""
)
BLOCK_SUMS = {"G": 256, "BLOCK": 256, "ALIGNED": 0}  # the constants of kernels of sums alone

_OF_A_LANE = 128  # bytes of a row that a lane can hold, beside the sums that it may have of as many columns: wider rows get a block
_SOME_GROUPS = 1024  # of a kernel whose groups sum up columns each: two warps for each of a large GPU's schedulers


class Kernel:
    """CUDA C, compiled for a dtype and constants when it is first launched with them."""

    def __init__(self, name: str, source: str):
        self.name, self.source = name, source

    def launch(self, grid: tuple[int, ...], block: tuple[int, ...], dtype: Any, arguments: tuple[Any, ...], **constants: Any) -> None:
        """Arguments are arrays (contiguous), None for no array, and numbers. Constants are
        integers, and dtypes for types."""
        device, thread = cupy.cuda.runtime.getDevice(), get_ident()
        launcher = _launcher(self.source, self.name, np.dtype(dtype), tuple(constants.items()), device, thread)
        launcher(grid, block, arguments)

    def by_rows(self, rows: int, width: int, dtype: Any, arguments: tuple[Any, ...], groups: int | None = None, **constants: Any) -> None:
        """A group of threads a row; or `groups`, as `groups_of` gives them, with several rows each."""
        if not rows or not width:
            return
        shared = sharing(width, dtype)
        grid = -(-(rows if groups is None else groups) * shared["G"] // shared["BLOCK"])
        self.launch((grid,), (shared["BLOCK"],), dtype, arguments, **shared, ALIGNED=in_fours(width, arguments), **constants)


class Table:
    """The arguments of several kernels, eight bytes each, in one block of the host's memory. CUDA
    asks a launch where each argument lies: so a launch that is bound to its places once has nothing
    to pack, check or convert. `constants` are written once, as a launch's arguments are given
    elsewhere; all other arguments are addresses and counts, and are written by `fill`."""

    _PLACES = 96

    def __init__(self, dtype: np.dtype, constants: Mapping[str, Any]):
        self.dtype, self.names = dtype, dict[str, None]()  # of what `fill` writes, in order
        self._memory = ctypes.create_string_buffer(8 * self._PLACES)
        self._address = ctypes.addressof(self._memory)
        self._constants = {name: self._PLACES - 1 - i for i, name in enumerate(constants)}
        self._bound: list[Any] = []
        arithmetic = parts_dtype(dtype)
        for name, value in constants.items():
            value = np.int64(value) if isinstance(value, int) else arithmetic(value) if isinstance(value, float) else value
            struct.pack_into("8s", self._memory, 8 * self._constants[name], value.tobytes())  # CUDA's hosts put the low bytes first

    def bind(self, kernel: Kernel, block: tuple[int, int], arguments: str, **constants: Any) -> Callable[..., None]:
        """kernel's launch(stream, grid's x, y, z), its arguments by name in the order in which it
        takes them."""
        names = arguments.split()
        if len(names) != len(_parameters(kernel.source, kernel.name)):
            raise TypeError(f"{kernel.name} takes other arguments than {arguments}")
        self.names |= dict.fromkeys(name for name in names if name not in self._constants)
        if len(self.names) + len(self._constants) > self._PLACES:
            raise TypeError(f"more than {self._PLACES} arguments in a table")
        order = {**{name: i for i, name in enumerate(self.names)}, **self._constants}
        places = (ctypes.c_void_p * len(names))(*(self._address + 8 * order[name] for name in names))
        function = _compiled(kernel.source, kernel.name, self.dtype, tuple(constants.items())).kernel
        parameters = ctypes.addressof(places)
        pointer, (block_x, block_y), launch_kernel = function.ptr, block, driver.launchKernel
        self._bound.append((places, function))  # which have to live as long
        self._packed = struct.Struct(f"{len(self.names)}Q")

        def launch(stream: int, x: int, y: int = 1, z: int = 1) -> None:
            launch_kernel(pointer, x, y, z, block_x, block_y, 1, 0, stream, parameters, 0)

        return launch

    def fill(self, values: Mapping[str, int]) -> None:
        self._packed.pack_into(self._memory, 0, *[values[name] for name in self.names])


def in_fours(width: int, arguments: tuple[Any, ...]) -> int:
    """1: every four of every row lies where one access reads it. 2: every two of it does, as where
    there are 30,522 words. 0: neither. Integers (keys, labels) are read one by one, wherever they
    lie."""
    if width % 2:
        return 0
    arrays = [a for a in arguments if isinstance(a, cupy.ndarray) and a.size and a.dtype.kind not in "iu"]
    lie = lambda many: width % many == 0 and not any(a.data.ptr % (many * a.itemsize) for a in arrays)
    return 1 if lie(4) else 2 if lie(2) else 0


def groups_of(rows: int, width: int, dtype: Any) -> int:
    """How many groups share out so many rows where each sums up its own."""
    shared = sharing(width, dtype)
    in_block = shared["BLOCK"] // shared["G"]
    return -(-min(rows, _SOME_GROUPS) // in_block) * in_block


def sharing(width: int, dtype: Any) -> dict[str, int]:
    """Threads a row, threads a block, fours a thread. Beyond 8192 columns, 4096 of float64,
    registers no longer suffice."""
    G, block = (32, 128) if width * np.dtype(parts_dtype(dtype)).itemsize <= 32 * _OF_A_LANE else (256, 256)
    return {"G": G, "BLOCK": block, "N": -(-width // (4 * G))}


_TYPES = {  # T, A, and what has to be included for T
    "float32": ("float", "float", ""),
    "float64": ("double", "double", ""),
    "float16": ("__half", "float", "#include <cuda_fp16.h>\n"),
    "bfloat16": ("__nv_bfloat16", "float", "#include <cuda_bf16.h>\n"),
    "int32": ("int", "", ""),
    "int64": ("long long", "", ""),
}


OPTIONS = ("-std=c++14",)


@functools.cache
def _compiled(source: str, name: str, dtype: np.dtype, constants: tuple[tuple[str, Any], ...]) -> cupy.RawKernel:
    return cupy.RawKernel(code_of(source, dtype, dict(constants)), name, OPTIONS)


# How a number lies in the eight bytes of its place, by its C type.
_PACKED = {"*": "Q", "u64": "Q", "long long": "q", "int": "i4x", "unsigned": "I4x", "float": "f4x", "double": "d"}


@functools.lru_cache(1024)
def _launcher(
    source: str, name: str, dtype: np.dtype, constants: tuple[tuple[str, Any], ...], device: int, thread: int
) -> Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]:
    """A kernel's launch(grid, block, arguments) on a device, by one thread alone: the arguments'
    places are its own."""
    function, types = _compiled(source, name, dtype, constants).kernel, _parameters(source, name)
    arithmetic = "double" if dtype == np.float64 else "float"
    packed = struct.Struct("".join(_PACKED[arithmetic if a == "A" else a] for a in types))
    memory = ctypes.create_string_buffer(packed.size)
    first = ctypes.addressof(memory)
    places = (ctypes.c_void_p * len(types))(*range(first, first + packed.size, 8))
    pointer, at, array = function.ptr, ctypes.addressof(places), cupy.ndarray

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        packed.pack_into(memory, 0, *[a.data.ptr if type(a) is array else 0 if a is None else a for a in arguments])
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        driver.launchKernel(pointer, *grid, *block, 0, cupy.cuda.get_current_stream().ptr, at, 0)

    launch.held = function, places  # type: ignore[attr-defined]
    return launch


@functools.cache
def _parameters(source: str, name: str) -> tuple[str, ...]:
    """The C types of a kernel's arguments; "*": an address."""
    declared = re.search(rf"__global__ void {name}\(([^)]*)\)", source)
    assert declared, name
    return tuple("*" if "*" in one else one.rsplit(maxsplit=1)[0].strip() for one in declared[1].split(","))


def code_of(source: str, dtype: np.dtype, constants: dict[str, Any]) -> str:
    """What the compiler gets of a kernel's source. A constant that is a dtype is a type there, all
    others are integers."""
    types = {"T": dtype, **{key: value for key, value in constants.items() if isinstance(value, np.dtype)}}
    named = {key: _TYPES[value.name] for key, value in types.items()}
    header = "".join(sorted({include for _, _, include in named.values()})) + f"typedef {named['T'][1]} A;\n"
    header += "".join(f"typedef {name} {key};\n" for key, (name, _, _) in named.items())
    header += "".join(f"constexpr int {key} = {int(value)};\n" for key, value in constants.items() if key not in named)
    return header + PRELUDE + (ROWS if "G" in constants else "") + source


_COLUMNS = Kernel(
    "column_sums",
    r"""
extern "C" __global__ void column_sums(const A* parts, T* first, T* second, T* third, int rows, int width, int D) {
    __shared__ A of_lane[16][33];
    const int column = blockIdx.x * 32 + threadIdx.x;
    A sum = 0;
    if (column < width)
        for (int row = threadIdx.y; row < rows; row += 16) sum += parts[(size_t)row * width + column];
    of_lane[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= width) return;
    for (int lane = 1; lane < 16; ++lane) sum += of_lane[lane][threadIdx.x];
    (column < D ? first : column < 2 * D ? second : third)[column % D] = T(sum);
}
""",
)


def sum_columns(parts: Array, out: tuple[Array, ...]) -> None:
    """parts (groups, k·d) -> k of `out` (d,): the sums over the groups, side by side. Formula:
    parts.sum(axis=0)."""
    width, d = parts.shape[1], len(out[0])
    targets = (*out, None, None)[:3]
    if width:
        _COLUMNS.launch((-(-width // 32),), (32, 16), out[0].dtype, (parts, *targets, len(parts), width, d), ALIGNED=0)


def counters() -> Array:
    """Zeros for `comes_last`, of the thread and its current device and stream: on one stream, a
    kernel has them when the one before is done. Of the thread too: per-thread default streams,
    which run at once, have one address in all threads."""
    stream = cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream().ptr
    if stream not in _counters.of:
        _counters.of[stream] = cupy.zeros(1024, np.uint32)
    return _counters.of[stream]


class _Counters(threading.local):
    def __init__(self) -> None:
        self.of: dict[tuple[int, int], Array] = {}


_counters = _Counters()


BY_COLUMNS = 128  # threads a block, with four columns each
COLUMN_PARTS = 128  # of sums over rows: one block adds up those of its columns


def by_columns(
    kernel: Kernel, arrays: tuple[Array | None, ...], rows: int, width: int, dtype: Any, row_blocks: int, **constants: int
) -> None:
    """Blocks that have four columns a thread, and up to `row_blocks` of them to share the rows."""
    if rows and width:
        grid = -(-width // (4 * BY_COLUMNS)), min(rows, row_blocks)
        kernel.launch(grid, (BY_COLUMNS,), dtype, (*arrays, rows, width), ALIGNED=in_fours(width, arrays), **constants)


def sums_over_rows(rows: int, width: int, dtype: Any, out: Array | None) -> tuple[Array, Array]:
    """The array for sums over `rows` rows (width,), `out` where given, 0 where there are no rows;
    and one for the blocks' parts."""
    out = cupy.empty(width, dtype) if out is None else out
    if not rows:
        out[...] = 0
    return out, cupy.empty((min(rows, COLUMN_PARTS), width), parts_dtype(dtype))


def ids(*arrays: Array) -> list[Array]:
    """Integers as kernels read them: contiguous, of 32 or 64 bits."""
    return [a if a.dtype in (np.int32, np.int64) else a.astype(np.int64) for a in contiguous(*arrays)]


def contiguous(*arrays: Array | None) -> list[Any]:
    """Each as kernels need them: copied where it has gaps."""
    return [a if a is None else cupy.ascontiguousarray(a) for a in arrays]


def parts_dtype(dtype: Any) -> Any:
    """A, for the sums of groups."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32
