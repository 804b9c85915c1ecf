"""losses/mse.py, cross_entropy.py, prediction.py, distillation/scores.py: one pass, and the sum of
what its blocks or rows summed up.

L = Σ (m(x − y))²/n      L = −Σ_b log p_b,y_b/n      L = −Σ_b Σ_c p^T_bc log p^S_bc/n
"""

from __future__ import annotations

import math
from inspect import unwrap

import cupy
import numpy as np

from ...distillation import scores as attention_scores
from ...distillation.scores import Comparison
from ...engine.batch import Batch
from ...engine.device import Array
from ...losses import attention, cross_entropy, mse, prediction
from .attention import PLACE
from .launch import BLOCK_SUMS, SUMS, Kernel, contiguous, counters, ids, parts_dtype

_MSE = Kernel(
    "mse_forward",
    SUMS
    + r"""
extern "C" __global__ void mse_forward(const T* x, const Y* y, const u8* mask, T* difference, A* parts, unsigned* counter, T* out,
                                       A n, A slope, long long size, long long n1, long long n2, long long n3, long long m0, long long m1,
                                       long long m2, long long m3) {
    A sum = 0;
    for (long long i = blockIdx.x * 256ll + threadIdx.x; i < size; i += gridDim.x * 256ll) {
        A e = A(x[i]) - A(y[i]);
        if (MASK) {
            const long long r = i / n3, q = r / n2;
            if (!mask[q / n1 * m0 + q % n1 * m1 + r % n2 * m2 + i % n3 * m3]) e = 0;
        }
        difference[i] = T(e * slope);
        sum += e * e;
    }
    if (sum_over_grid(sum, parts, counter) && threadIdx.x == 0) out[0] = T(sum / n);
}
""",
)

# e = A^S − A^T of what counts: PADDING: all, but what is not visible as 0; MASK: what real queries
# have to do with real keys; else all, and then no entry has to know its sentence. A warp has a row
# of a sentence's head, every (8 gridDim.z)-th.
_COMPARE = Kernel(
    "compare_scores",
    PLACE
    + SUMS
    + r"""
extern "C" __global__ void compare_scores(const T* scores, const Y* target, const long long* starts, const u8* real, T* dscores, A* parts,
                                          unsigned* counter, T* loss, long long size, int sentences, int rows_T, int h, A slope, A of_loss,
                                          A unseen) {
    A sum = 0;
    const auto compare = [&](size_t i, bool query, bool key) {
        A own = A(scores[i]), other = A(target[i]);
        bool moves = query && key;
        if (PADDING) {
            moves = key && own > unseen;
            own = moves ? own : A(0);
            other = key && other > unseen ? other : A(0);
        }
        const A e = PADDING || moves ? own - other : A(0);
        sum += e * e;
        dscores[i] = T(moves ? e * slope : A(0));
    };
    if (PADDING || MASK) {
        const Place at = place(starts, sentences, rows_T, h);
        for (int row = 8 * blockIdx.z + threadIdx.x / 32; row < at.L; row += 8 * gridDim.z)
            for (int j = threadIdx.x % 32; j < at.L; j += 32)
                compare(at.scores + (size_t)row * at.L + j, !MASK || real[at.start + row], !MASK || real[at.start + j]);
    } else {
        for (long long i = blockIdx.x * 256ll + threadIdx.x; i < size; i += gridDim.x * 256ll) compare(i, true, true);
    }
    if (sum_over_grid(sum, parts, counter) && threadIdx.x == 0) *loss = T(sum * of_loss);
}
""",
)

_TOTAL = Kernel(
    "total",
    SUMS
    + r"""
extern "C" __global__ void total(const A* parts, T* out, int count, A n) {
    const A sum = total_of(parts, count);
    if (threadIdx.x == 0) out[0] = T(sum / n);
}
""",
)

# A row of logits: TEACHER: against the teacher's, p^T = softmax(z_T/t); else against the label's
# own. It is read again for each pass: a vocabulary's row does not fit in registers, and unrolled
# over them takes the compiler minutes; a few classes' is in the cache. There is a division a row,
# none a logit.
_ENTROPY = Kernel(
    "entropy_forward",
    r"""
template <typename Z> __device__ A exponentials(const Z* z, int D, A by_t, A& most) {  // Σ e^((z − most)/t), most = max z
    A own = -INFINITY, sum = 0, v[4];
    EACH_FOUR_IN_MEMORY(j) {
        load(z + j, D - j, v);
        for (int c = 0; c < 4; ++c) if (j + c < D) own = Max::of(v[c], own);
    }
    most = over_row<Max>(own);
    EACH_FOUR_IN_MEMORY(j) {
        load(z + j, D - j, v);
        for (int c = 0; c < 4; ++c) if (j + c < D) sum += exp((v[c] - most) * by_t);
    }
    return over_row<Sum>(sum);
}
extern "C" __global__ void entropy_forward(const T* z, const Y* z_T, const LABEL* labels, T* p, T* p_T, A* parts, int rows, int D, A by_t) {
    EACH_ROW(row) {
        const size_t start = (size_t)row * D;
        A v[4], teacher[4], most, most_T = 0, entropy = 0;
        const A sum = exponentials(z + start, D, by_t, most), log_sum = log(sum), by_sum = 1 / sum;
        const A by_sum_T = TEACHER ? 1 / exponentials(z_T + start, D, by_t, most_T) : A(1);
        EACH_FOUR_IN_MEMORY(j) {
            load(z + start + j, D - j, v);
            if (TEACHER) {
                load(z_T + start + j, D - j, teacher);
                for (int c = 0; c < 4; ++c) {
                    teacher[c] = exp((teacher[c] - most_T) * by_t) * by_sum_T;
                    if (j + c < D) entropy -= teacher[c] * ((v[c] - most) * by_t - log_sum);
                }
                store(p_T + start + j, D - j, teacher);
            }
            for (int c = 0; c < 4; ++c) v[c] = exp((v[c] - most) * by_t) * by_sum;
            store(p + start + j, D - j, v);
        }
        if (TEACHER) entropy = over_row<Sum>(entropy);
        else entropy = log_sum - (A(z[start + labels[row]]) - most) * by_t;
        if (LANE == 0) parts[row] = entropy;
    }
}
""",
)
_ENTROPY_BACKWARD = cupy.ElementwiseKernel(
    "T p, raw I labels, int32 C, T scale", "T dz", "dz = (p - T(labels[i / C] == i % C)) * scale", "cross_entropy_backward"
)
_PREDICTION_BACKWARD = cupy.ElementwiseKernel("T p_S, T p_T, T scale", "T dz", "dz = (p_S - p_T) * scale", "prediction_backward")
_SCALE = cupy.ElementwiseKernel("T difference, T scale", "T dx", "dx = difference * scale", "mse_backward")


def mse_forward(x: Array, y: Array, mask: Array | None = None, count: float | None = None) -> tuple[Array, mse.Cache]:
    x, y = contiguous(x, y)
    seen, strides = None, [0] * 4
    if mask is not None:
        seen = cupy.broadcast_to(mask.astype(bool, copy=False), x.shape)
        if count is None:
            count = float(seen.sum())
        if seen.ndim > 4:
            seen = seen.reshape(-1)
        strides = [0] * (4 - seen.ndim) + list(seen.strides)
    count = x.size if count is None else count
    shape = (1,) * (4 - x.ndim) + x.shape if x.ndim <= 4 else (1, 1, 1, x.size)
    difference, blocks = cupy.empty(x.shape, x.dtype), max(1, min(512, -(-x.size // 1024)))
    parts, out = cupy.empty(blocks, parts_dtype(x.dtype)), cupy.empty((), x.dtype)
    numbers = (float(count), 2 / count, *(np.int64(n) for n in (x.size, *shape[1:], *strides)))
    arguments = (x, y, seen, difference, parts, counters(), out, *numbers)
    _MSE.launch((blocks,), (256,), x.dtype, arguments, MASK=seen is not None, Y=y.dtype, **BLOCK_SUMS)
    return out, mse.Cache(difference, 2.0)  # the gradient for dloss = 1, by the same formula


def mse_backward(dloss: float, cache: mse.Cache) -> Array:
    if 2 * dloss == cache.n:
        return cache.difference
    return _SCALE(cache.difference, cache.difference.dtype.type(2 * dloss / cache.n))


def compare_scores(scores_S: Array, scores_T: Array, batch: Batch, how: Comparison) -> tuple[Array, Array]:
    if not how.heads.same:  # means of heads come first
        return unwrap(attention_scores.compare)(scores_S, scores_T, batch, how)
    own, target, starts, mask = contiguous(scores_S, scores_T, batch.cls_rows, batch.attention_mask)
    masked, padding = mask is not None, how.count_padding
    if masked or padding:
        grid = batch.size, how.heads.S, -(-batch.longest // 32)
    else:
        grid = max(1, min(512, -(-own.size // 1024))), 1, 1
    dscores, loss = cupy.empty(own.shape, own.dtype), cupy.empty((), own.dtype)
    parts = cupy.empty(math.prod(grid), parts_dtype(own.dtype))
    of_loss = how.weight / how.entries
    numbers = (np.int64(own.size), batch.size, batch.runs[-1].stop, how.heads.S, 2 * of_loss, of_loss, attention.UNSEEN)
    arguments = (own, target, starts, mask, dscores, parts, counters(), loss, *numbers)
    ways = {"MASK": masked, "PADDING": padding, "ONE": 0, "Y": target.dtype}
    _COMPARE.launch(grid, (256,), own.dtype, arguments, **ways, **BLOCK_SUMS)
    return loss, dscores


def cross_entropy_forward(z: Array, labels: Array, count: float | None = None) -> tuple[Array, cross_entropy.Cache]:
    (z,), (labels,) = contiguous(z), ids(labels)
    p, parts = cupy.empty(z.shape, z.dtype), cupy.empty(len(z), parts_dtype(z.dtype))
    n, C = z.shape
    arguments = (z, None, labels, p, None, parts, n, C, 1.0)
    _ENTROPY.by_rows(n, C, z.dtype, arguments, TEACHER=0, LABEL=labels.dtype, Y=z.dtype)
    count = len(z) if count is None else count
    return total(parts, z.dtype, count), cross_entropy.Cache(p, labels, count)


def cross_entropy_backward(dloss: float, cache: cross_entropy.Cache) -> Array:
    p = cache.p
    return _ENTROPY_BACKWARD(p, cache.labels, p.shape[1], p.dtype.type(dloss / cache.n))


def prediction_forward(z_S: Array, z_T: Array, temperature: float = 1.0, count: float | None = None) -> tuple[Array, prediction.Cache]:
    z_S, z_T = contiguous(z_S, z_T)
    p_S, p_T, parts = cupy.empty(z_S.shape, z_S.dtype), cupy.empty(z_S.shape, z_S.dtype), cupy.empty(len(z_S), parts_dtype(z_S.dtype))
    n, C = z_S.shape
    arguments = (z_S, z_T, None, p_S, p_T, parts, n, C, 1 / temperature)
    _ENTROPY.by_rows(n, C, z_S.dtype, arguments, TEACHER=1, LABEL=np.dtype(np.int32), Y=z_T.dtype)
    count = len(z_S) if count is None else count
    return total(parts, z_S.dtype, count), prediction.Cache(p_S, p_T, temperature, count)


def prediction_backward(dloss: float, cache: prediction.Cache) -> Array:
    return _PREDICTION_BACKWARD(cache.p_S, cache.p_T, cache.p_S.dtype.type(dloss / (cache.n * cache.temperature)))


def total(parts: Array, dtype, n: float) -> Array:
    """Σ parts / n, a 0-d array."""
    out = cupy.empty((), dtype)
    _TOTAL.launch((1,), (256,), dtype, (parts, out, len(parts), float(n)), **BLOCK_SUMS)
    return out
