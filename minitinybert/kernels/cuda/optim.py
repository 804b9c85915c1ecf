"""optim.py over the flat arrays: the norms and the factors that clip by them stay on the device,
and Adam is one pass."""

from __future__ import annotations

import cupy
import numpy as np

from ...engine.device import Array
from ...training.optim import Scalars, Stretch
from .launch import BLOCK_SUMS, SUMS, Kernel, counters, parts_dtype

_NORM = (
    SUMS
    + r"""
// Σ flat[i]², i from first to last, as far as it is this thread's: gridDim.x blocks share it.
__device__ inline A squares_of(const T* flat, long long first, long long last) {
    A sum = 0;
    for (long long i = first + blockIdx.x * 256ll + threadIdx.x; i < last; i += gridDim.x * 256ll) sum += A(flat[i]) * A(flat[i]);
    return sum;
}
// optim.clip_factor
__device__ inline T clip_factor(A squares, A max_norm) {
    const A factor = max_norm / (sqrt(squares) + A(1e-6));
    return T(factor > 1 ? A(1) : factor);
}
"""
)

# blockIdx.y: which tensor, from bounds[2y] to bounds[2y + 1].
_SQUARES = Kernel(
    "squares",
    _NORM
    + r"""
extern "C" __global__ void squares(const T* flat, const long long* bounds, A* parts) {
    const A sum = over_row<Sum>(squares_of(flat, bounds[2 * blockIdx.y], bounds[2 * blockIdx.y + 1]));
    if (threadIdx.x == 0) parts[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}
""",
)
_NORM_FACTOR = Kernel(
    "norm_factor",
    _NORM
    + r"""
extern "C" __global__ void norm_factor(const T* flat, A* parts, unsigned* counter, T* out, long long size, A max_norm) {
    A sum = squares_of(flat, 0, size);
    if (sum_over_grid(sum, parts, counter) && threadIdx.x == 0) out[0] = clip_factor(sum, max_norm);
}
""",
)
_FACTORS = Kernel(
    "factors",
    _NORM
    + r"""
extern "C" __global__ void factors(const A* parts, T* out, int count, A max_norm) {
    const A sum = total_of(parts + (size_t)blockIdx.x * count, count);
    if (threadIdx.x == 0) out[blockIdx.x] = clip_factor(sum, max_norm);
}
""",
)
_SCALE = Kernel(
    "scale_tensors",
    r"""
extern "C" __global__ void scale_tensors(T* flat, const long long* bounds, const T* factors) {
    const long long last = bounds[2 * blockIdx.y + 1];
    const A factor = A(factors[blockIdx.y]);
    if (factor == 1) return;
    for (long long i = bounds[2 * blockIdx.y] + blockIdx.x * 256ll + threadIdx.x; i < last; i += gridDim.x * 256ll)
        flat[i] = T(A(flat[i]) * factor);
}
""",
)

# m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  θ ← (1 − lr λ) θ − lr/c₁ · m/(√v/√c₂ + ε)
_ADAM = cupy.ElementwiseKernel(
    "T gradient, raw T factor, bool clip, int64 decay_end, T beta1, T beta1_rest, T beta2, T beta2_rest, T root, T eps, T rate, T shrink",
    "T theta, T m, T v",
    """
    const T g = clip ? gradient * factor[0] : gradient;
    m = m * beta1 + g * beta1_rest;
    v = v * beta2 + g * g * beta2_rest;
    theta = (i < decay_end ? theta * shrink : theta) - m / (sqrt(v) * root + eps) * rate;
    """,
    "adam",
)


def _blocks(flat: Array, most: int) -> int:
    return max(1, min(most, len(flat) // 1024))


def norm_factor(flat: Array, max_norm: float) -> Array:
    out, parts = cupy.empty((), flat.dtype), cupy.empty(_blocks(flat, 1024), parts_dtype(flat.dtype))
    arguments = (flat, parts, counters(), out, np.int64(len(flat)), float(max_norm))
    _NORM_FACTOR.launch((len(parts),), (256,), flat.dtype, arguments, **BLOCK_SUMS)
    return out


def clip_tensors(flat: Array, bounds: Array, max_norm: float) -> None:
    split = _blocks(flat, 512)  # for each tensor: the largest, a vocabulary's, is a good part of all
    out, parts = cupy.empty(len(bounds), flat.dtype), cupy.empty((len(bounds), split), parts_dtype(flat.dtype))
    grid = (split, len(bounds))
    _SQUARES.launch(grid, (256,), flat.dtype, (flat, bounds, parts), **BLOCK_SUMS)
    _FACTORS.launch((len(bounds),), (256,), flat.dtype, (parts, out, split, float(max_norm)), **BLOCK_SUMS)
    _SCALE.launch(grid, (256,), flat.dtype, (flat, bounds, out), **BLOCK_SUMS)


def update(stretch: Stretch, scalars: Scalars, decay_end: int, factor: Array | None) -> None:
    theta, gradient, m, v = stretch
    numbers = [theta.dtype.type(a) for a in scalars]
    _ADAM(gradient, theta if factor is None else factor.reshape(1), factor is not None, decay_end, *numbers, theta, m, v)
