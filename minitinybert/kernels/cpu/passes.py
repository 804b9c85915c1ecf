"""The loops. All compiled code is in this file: numba keeps it until the file of a function
changes, and would not see that another did.

Arrays are (rows, width), or flat where rows do not matter. What stands for "no array" has no
elements.

A sum is taken in a loop that writes nothing: of one that writes, the compiler makes two, one for
arrays that lie so close together that they might overlap, and each adds in an order of its own. Then
the same numbers would give other bits at another place in memory.

numba has no exponential or error function that a loop could do for several numbers at once; those
of float32 are written out here, of operations that the processor has for vectors. float64 has the C
library's, one number after the other.
"""

from __future__ import annotations

import functools
import math

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.cgutils import get_or_insert_function
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

from .compiled import EXACT_ORDER, OPTIONS, compiled

_BLOCK = 4096  # elements: several passes over as many stay in the fastest cache

# ---------------------------------------------------------------------------------------------------------------------- functions


@intrinsic
def _power_of_two(typing, n):
    """2ⁿ of int32 n from −126 to 127, in float32: n + 127 is the exponent's bits."""

    def code(context, builder, signature, arguments):
        exponent = builder.add(arguments[0], ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return types.float32(types.int32), code


@intrinsic
def _larger(typing, a, b):
    """The larger of two numbers; NaN where either is, which a loop over vectors can keep up, as it
    cannot `a if a > b else b`."""

    def code(context, builder, signature, arguments):
        kind = arguments[0].type
        return builder.call(builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind])), arguments)

    return a(a, a), code


def _exp(x):
    """eˣ of x ≤ 0."""


def _normal(x):
    """Φ(x) = ½(1 + erf(x/√2))."""


def _logistic(u):
    """½(1 + tanh(u)) = 1/(1 + e^(−2u))."""


_ONE, _HALF, _TWO, _ZERO = np.float32(1), np.float32(0.5), np.float32(2), np.float32(0)
_LOWEST = np.float32(-87.3)  # below it eˣ is smaller than any normal number: 0
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)  # ln 2 in two parts
# eʳ = 1 + r + r² Σ _E[k] rᵏ on |r| ≤ ½ ln 2: the coefficients of Cephes' expf (Moshier)
_E = tuple(np.float32(c) for c in (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4))
_E0, _E1, _E2, _E3, _E4, _E5 = _E


def _exp32(x):
    near = x if x > _LOWEST else _LOWEST  # a number even if x is none
    n = np.int32(near * _LOG2_E - _HALF)  # the nearest integer: towards zero from half below it
    r = x - np.float32(n) * _LN2_HIGH - np.float32(n) * _LN2_LOW
    series = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
    return _ZERO if x < _LOWEST else (series * r * r + r + _ONE) * _power_of_two(n)


@overload(_exp, jit_options=EXACT_ORDER)
def _(x):
    return _exp32 if x == types.float32 else lambda x: math.exp(x)


# 1 − Φ(x) = e^(−x²/2) Σ _R[k] tᵏ⁺¹,  t = 1/(1 + _C x),  x ≥ 0: the form of Abramowitz and Stegun 26.2.17. Fitted on x ≤ 6 to
# erfcx(x/√2)/2; without float32's rounding, 1 − Φ is right to 5e-9.
_C = np.float32(0.328125)
_R0, _R1, _R2, _R3, _R4, _R5, _R6 = (
    np.float32(c)
    for c in (
        0.13214912814292218,
        0.11619887737680443,
        0.18977831447138613,
        -0.10704114422996654,
        0.3494895753589026,
        -0.226683227377759,
        0.046108480592559786,
    )
)


def _normal32(x):
    t = _ONE / (_ONE + _C * abs(x))
    series = (((((_R6 * t + _R5) * t + _R4) * t + _R3) * t + _R2) * t + _R1) * t + _R0
    above = series * t * _exp(-_HALF * x * x)
    return above if x < _ZERO else _ONE - above


@overload(_normal, jit_options=EXACT_ORDER)
def _(x):
    return _normal32 if x == types.float32 else lambda x: 0.5 * (1 + math.erf(x * math.sqrt(0.5)))


def _logistic32(u):
    e = _exp(-_TWO * abs(u))
    above = e / (_ONE + e)
    return above if u < _ZERO else _ONE - above


@overload(_logistic, jit_options=EXACT_ORDER)
def _(u):
    return _logistic32 if u == types.float32 else lambda u: 0.5 * (1 + math.tanh(u))


# ---------------------------------------------------------------------------------------------------------------------- GELU

_DENSITY = 1 / math.sqrt(2 * math.pi)
_ROOT, _CUBIC = math.sqrt(2 / math.pi), 0.044715


@compiled
def gelu_forward(x, y, phi):
    for i in range(x.size):
        phi[i] = _normal(x[i])
        y[i] = x[i] * phi[i]


@compiled
def gelu_backward(dy, x, phi, dx):
    number = x.dtype.type
    half, density = number(0.5), number(_DENSITY)
    for i in range(x.size):
        dx[i] = dy[i] * (phi[i] + x[i] * (_exp(-half * x[i] * x[i]) * density))


@compiled
def gelu_tanh_forward(x, y, phi):
    number = x.dtype.type
    one, root, cubic = number(1), number(_ROOT), number(_CUBIC)
    for i in range(x.size):
        phi[i] = _logistic(root * x[i] * (one + cubic * x[i] * x[i]))
        y[i] = x[i] * phi[i]


@compiled
def gelu_tanh_backward(dy, x, phi, dx):
    number = x.dtype.type
    one, two, root, cubic = number(1), number(2), number(_ROOT), number(3 * _CUBIC)
    for i in range(x.size):
        slope = two * phi[i] * (one - phi[i]) * (root * (one + cubic * x[i] * x[i]))
        dx[i] = dy[i] * (phi[i] + x[i] * slope)


# ---------------------------------------------------------------------------------------------------------------------- dropout

_GOLDEN, _M1, _M2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@numba.njit
def _draw(keys, threshold, words, keep):
    """keep (rows, width) from a key each: engine/random.py's bits16, of which `words` (rows ·
    ⌈width/4⌉ at least) holds them."""
    rows, width = keep.shape
    count = (width + 3) // 4
    for r in range(rows):
        key = keys[r]
        for w in range(count):
            words[r * count + w] = key + np.uint64(w + 1) * _GOLDEN
    for i in range(rows * count):
        z = words[i]
        z = (z ^ (z >> _30)) * _M1
        z = (z ^ (z >> _27)) * _M2
        words[i] = z ^ (z >> _31)
    bits = words.view(np.uint16)
    for r in range(rows):
        first = 4 * count * r
        for j in range(width):
            keep[r, j] = bits[first + j] >= threshold


@compiled
def dropout_forward(x, keys, threshold, scale, y, keep):
    rows, width = x.shape
    step = max(1, _BLOCK // width)
    words = np.empty(step * ((width + 3) // 4), np.uint64)
    number = x.dtype.type
    for first in range(0, rows, step):
        last = min(first + step, rows)
        _draw(keys[first:last], np.uint16(threshold), words, keep[first:last])
        for r in range(first, last):
            for j in range(width):
                y[r, j] = x[r, j] * (number(scale) if keep[r, j] else number(0))


@compiled
def dropout_backward(dy, keep, scale, dx):
    number = dy.dtype.type
    for i in range(dy.size):
        dx[i] = dy[i] * (number(scale) if keep[i] else number(0))  # a product, so that NaN is seen where it is dropped too


# ---------------------------------------------------------------------------------------------------------------------- layer norm


@numba.njit(**OPTIONS)
def _normalise(s, gain, bias, eps, y):
    """The row s becomes x̂, and y is set; 1/σ."""
    number, d = s.dtype.type, s.size
    total, squares = number(0), number(0)
    for j in range(d):
        total += s[j]
    mean = number(total / d)
    for j in range(d):
        s[j] -= mean
        squares += s[j] * s[j]
    inverse = number(1 / math.sqrt(squares / d + eps))
    for j in range(d):
        s[j] *= inverse
        y[j] = gain[j] * s[j] + bias[j]
    return inverse


@compiled
def layer_norm_forward(x, gain, bias, eps, y, x_hat, inverse_std):
    for r in range(len(x)):
        x_hat[r] = x[r]
        inverse_std[r] = _normalise(x_hat[r], gain, bias, eps, y[r])


@compiled
def add_norm_forward(a, x, gain, bias, eps, keys, threshold, scale, y, x_hat, inverse_std, keep):
    rows, d = x.shape
    words = np.empty((d + 3) // 4, np.uint64)
    number = x.dtype.type
    for r in range(rows):
        s, through, beside = x_hat[r], a[r], x[r]
        if threshold:
            _draw(keys[r : r + 1], np.uint16(threshold), words, keep[r : r + 1])
            kept = keep[r]
            for j in range(d):
                s[j] = beside[j] + through[j] * (number(scale) if kept[j] else number(0))
        else:
            for j in range(d):
                s[j] = beside[j] + through[j]
        inverse_std[r] = _normalise(s, gain, bias, eps, y[r])


@compiled
def norm_backward(dy, x_hat, inverse_std, gain, dx, dgain, dbias, keep, scale, da):
    """da besides dx where keep has elements. Sums over rows are taken in stretches, in each of
    which few terms are added to many."""
    rows, d = dy.shape
    number = dy.dtype.type
    of_gain, of_bias = np.empty(d, dy.dtype), np.empty(d, dy.dtype)
    dgain[:] = 0
    dbias[:] = 0
    for first in range(0, rows, 64):
        of_gain[:] = 0
        of_bias[:] = 0
        for r in range(first, min(first + 64, rows)):
            g, z, out = dy[r], x_hat[r], dx[r]
            total, along = number(0), number(0)
            for j in range(d):
                out[j] = gain[j] * g[j]  # rounded before its mean is taken from it: of one column, nothing must be left
            for j in range(d):
                total += out[j]
                along += out[j] * z[j]
            for j in range(d):
                of_bias[j] += g[j]
                of_gain[j] += g[j] * z[j]
            mean, along, inverse = number(total / d), number(along / d), inverse_std[r]
            for j in range(d):
                out[j] = (out[j] - mean - z[j] * along) * inverse
            if keep.size:
                kept, through = keep[r], da[r]
                for j in range(d):
                    through[j] = out[j] * (number(scale) if kept[j] else number(0))
        for j in range(d):
            dgain[j] += of_gain[j]
            dbias[j] += of_bias[j]


# ---------------------------------------------------------------------------------------------------------------------- attention


@compiled
def weigh(A, real, keys, threshold, scale, P, D, keep):
    """A (n, rows, L), real (n, L) or (0, L), keys (n, rows). Rows may be short: exponentials and
    bits are made for several in one loop."""
    n, rows, L = A.shape
    number, lowest = A.dtype.type, np.finfo(A.dtype).min
    step = max(1, _BLOCK // L)
    words = np.empty(step * ((L + 3) // 4), np.uint64)
    masked = np.zeros(L, A.dtype)
    for i in range(n):
        if real.size:
            for j in range(L):
                masked[j] = number(0) if real[i, j] else number(lowest)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            for r in range(first, last):
                s, p = A[i, r], P[i, r]
                top = number(-np.inf)
                for j in range(L):
                    p[j] = s[j] + masked[j]
                    top = _larger(top, p[j])
                for j in range(L):
                    p[j] -= top
            flat = P[i, first:last].reshape(-1)
            for k in range(flat.size):
                flat[k] = _exp(flat[k])
            if threshold:
                _draw(keys[i, first:last], np.uint16(threshold), words, keep[i, first:last])
            for r in range(first, last):
                p = P[i, r]
                total = number(0)
                for j in range(L):
                    total += p[j]
                part = number(1) / total
                if threshold:
                    kept, weights = keep[i, r], D[i, r]
                    for j in range(L):
                        p[j] *= part
                        weights[j] = p[j] * (number(scale) if kept[j] else number(0))
                else:
                    for j in range(L):
                        p[j] *= part


@compiled
def weigh_backward(dD, P, keep, scale, dA):
    """dD, P (rows, L), keep as they or without elements."""
    rows, L = P.shape
    number = P.dtype.type
    for r in range(rows):
        g, p, out = dD[r], P[r], dA[r]
        along = number(0)
        if keep.size:
            kept = keep[r]
            for j in range(L):
                out[j] = g[j] * (number(scale) if kept[j] else number(0))
            for j in range(L):
                along += out[j] * p[j]
            for j in range(L):
                out[j] = p[j] * (out[j] - along)
        else:
            for j in range(L):
                along += g[j] * p[j]
            for j in range(L):
                out[j] = p[j] * (g[j] - along)


# ---------------------------------------------------------------------------------------------------------------------- losses


@compiled
def squared_difference(x, y, factor, out):
    """Σ (x − y)², in stretches as `norm_backward` has them; out = factor (x − y)."""
    number, total = x.dtype.type, 0.0
    for first in range(0, x.size, _BLOCK):
        a, b, d = x[first : first + _BLOCK], y[first : first + _BLOCK], out[first : first + _BLOCK]
        part = number(0)
        for i in range(d.size):
            d[i] = a[i] - b[i]
        for i in range(d.size):
            part += d[i] * d[i]
        total += part
        if factor != 1:
            for i in range(d.size):
                d[i] *= number(factor)
    return total


# ---------------------------------------------------------------------------------------------------------------------- few rows

_FEATURES = (config.CPU_FEATURES or get_host_cpu_features()).split(",")  # of what numba compiles for
_BYTES = 64 if "+avx512f" in _FEATURES else 32 if "+avx" in _FEATURES else 16  # of a vector register
_TALL = 6 if _BYTES < 64 and "+sse2" in _FEATURES else 13  # rows of a tile: two vectors a row fill 16 registers, or 32


def tile_width(dtype: np.dtype) -> int:
    """Columns of a tile: two vectors."""
    return 2 * _BYTES // dtype.itemsize


@intrinsic
def _place(typing, array, index):
    """The address of an array's element `index`."""

    def code(context, builder, signature, arguments):
        return builder.gep(make_array(signature.args[0])(context, builder, arguments[0]).data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), code


@intrinsic
def _tile(typing, x, W, b, y, rows, x_step, W_step, y_step, K, ahead):
    """y = x W + b of up to _TALL rows and two vectors of columns, given by address; from one row to
    the next it is `_step` elements. All sums stay in registers, one multiply-add after the other in
    the order of W's K rows, each in vectors. What lies `ahead` elements behind a row of W is called
    for meanwhile: no processor guesses so soon that it will be read."""

    def code(context, builder, signature, arguments):
        x, W, b, y, rows, x_step, W_step, y_step, K, ahead = arguments
        size = signature.args[0].dtype.bitwidth // 8
        number, whole, short = context.get_value_type(signature.args[0].dtype), ir.IntType(64), ir.IntType(32)
        vector = ir.VectorType(number, _BYTES // size)
        every, both = ir.Constant(ir.VectorType(short, vector.count), [0] * vector.count), range(2)
        as_one = ("contract",)  # a product and a sum, rounded once where the processor can
        add = lambda a, b, c: builder.fadd(builder.fmul(a, b, flags=as_one), c, flags=as_one)
        call_for = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), short, short, short])
        call_for = get_or_insert_function(builder.module, call_for, "llvm.prefetch.p0")
        to_read, data = ir.Constant(short, 0), ir.Constant(short, 1)
        at = lambda address, *steps: builder.gep(address, [functools.reduce(builder.mul, steps)])
        part = lambda address, v: builder.bitcast(at(address, whole(v * vector.count)), vector.as_pointer())
        load = lambda address: [builder.load(part(address, v), align=size) for v in both]
        end = builder.append_basic_block("end")
        which = builder.switch(rows, end)
        for count in range(1, _TALL + 1):
            before, loop, after = (builder.append_basic_block(name) for name in ("before", "loop", "after"))
            which.add_case(whole(count), before)
            with builder.goto_block(before):
                biases, x_rows = load(b), [at(x, whole(r), x_step) for r in range(count)]
                builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(whole)
            sums = [[builder.phi(vector) for _ in both] for _ in range(count)]
            weights = load(row := at(W, k, W_step))
            for v in both:
                there = builder.bitcast(part(at(row, ahead), v), ir.IntType(8).as_pointer())
                builder.call(call_for, [there, to_read, short(3), data])
            following = builder.add(k, whole(1))
            k.add_incoming(whole(0), before)
            k.add_incoming(following, loop)
            totals = []
            for x_row, row_sums in zip(x_rows, sums, strict=True):
                alone = builder.insert_element(ir.Constant(vector, ir.Undefined), builder.load(at(x_row, k)), short(0))
                spread = builder.shuffle_vector(alone, ir.Constant(vector, ir.Undefined), every)
                totals.append([add(spread, weights[v], row_sums[v]) for v in both])
                for v in both:
                    row_sums[v].add_incoming(biases[v], before)
                    row_sums[v].add_incoming(totals[-1][v], loop)
            builder.cbranch(builder.icmp_signed("<", following, K), loop, after)
            builder.position_at_end(after)
            for r in range(count):
                for v in both:
                    builder.store(totals[r][v], part(at(y, whole(r), y_step), v), align=size)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(x, W, b, y, *[types.int64] * 6), code


@numba.njit
def _product(x, W, b, y):
    """y (rows, N) = x (rows, K) W + b, W by tiles: (tiles, K, width), the last tile the last columns, of
    which some may be the tile's before."""
    (rows, K), N = x.shape, y.shape[1]
    width, count = W.shape[2], (rows + _TALL - 1) // _TALL
    for t in range(len(W)):
        column = min(t * width, N - width)
        for i in range(count):
            first, last = rows * i // count, rows * (i + 1) // count
            ahead = 0 if i else K * width  # the next tile's weights
            arrays = _place(x, first * K), _place(W, t * K * width), _place(b, column), _place(y, first * N + column)
            _tile(*arrays, last - first, K, width, N, K, ahead)


@compiled
def product(x, W, b, y):
    _product(x, W, b, y)


@compiled
def keys_and_values(x, W_k, b_k, W_v, b_v, first, last, k, v):
    """Of the rows first … last − 1 of x: k (d, T), each key a column, and v (T, d)."""
    of_rows = np.empty((last - first, v.shape[1]), x.dtype)
    _product(x[first:last], W_k, b_k, of_rows)
    for j in range(len(k)):
        for r in range(first, last):
            k[j, r] = of_rows[r - first, j]
    _product(x[first:last], W_v, b_v, v[first:last])


@numba.njit(**OPTIONS)
def _attend(q, k, v, masked, heads, s, context):
    """A row's context (d,) from its q (d,), k (d, L), v (L, d); s (L,) is room for its scores."""
    number, L, width = q.dtype.type, len(v), q.size // heads
    scale = number(1 / math.sqrt(width))
    for head in range(heads):
        start, stop = head * width, (head + 1) * width
        s[:] = 0
        for j in range(start, stop):
            along = k[j]
            for i in range(L):
                s[i] += q[j] * along[i]
        top, total = number(-np.inf), number(0)
        for i in range(L):
            s[i] = s[i] * scale + masked[i]
            top = _larger(top, s[i])
        for i in range(L):
            s[i] = _exp(s[i] - top)
        for i in range(L):
            total += s[i]
        into = context[start:stop]
        into[:] = 0
        for i in range(L):
            part, of_key = s[i] / total, v[i, start:stop]
            for j in range(width):
                into[j] += part * of_key[j]


@compiled
def few_rows(asking, k, v, masked, runs, heads, W, b, norms, eps, tanh, first, last, z):
    """The layer's output z of the rows first … last − 1 of those that ask (model/encoder.py), from all
    keys and values. W, b: of query, output, up and down; norms: both γ, β; masked (T,): what is added
    to scores; runs: (start, n, length) each."""
    (W_q, W_o, W_1, W_2), (b_q, b_o, b_1, b_2), (gain_1, bias_1, gain_2, bias_2) = W, b, norms
    rows, (T, d), f = last - first, v.shape, b_1.size
    x = asking[first:last]
    q, a, y, s = np.empty((rows, d), x.dtype), np.empty((rows, d), x.dtype), np.empty((rows, d), x.dtype), np.empty(T, x.dtype)
    u = np.empty((rows, f), x.dtype)
    _product(x, W_q, b_q, q)
    each = len(asking) != T  # one row of each sentence asks
    start = 0
    for run in range(len(runs)):
        for sentence in range(runs[run, 1]):
            length = runs[run, 2]
            begin = runs[run, 0] + sentence * length
            stop = start + (1 if each else length)
            for r in range(max(start, first), min(stop, last)):
                here = slice(begin, begin + length)
                _attend(q[r - first], k[:, here], v[here], masked[here], heads, s[:length], y[r - first])
            start = stop
    _product(y, W_o, b_o, a)
    for r in range(rows):
        for j in range(d):
            a[r, j] += x[r, j]
        _normalise(a[r], gain_1, bias_1, eps, y[r])
    _product(y, W_1, b_1, u)
    number = x.dtype.type
    one, root, cubic = number(1), number(_ROOT), number(_CUBIC)
    flat = u.reshape(-1)
    if tanh:
        for i in range(flat.size):
            flat[i] = flat[i] * _logistic(root * flat[i] * (one + cubic * flat[i] * flat[i]))
    else:
        for i in range(flat.size):
            flat[i] = flat[i] * _normal(flat[i])
    _product(u, W_2, b_2, a)
    for r in range(rows):
        for j in range(d):
            a[r, j] += y[r, j]
        _normalise(a[r], gain_2, bias_2, eps, z[first + r])


# ---------------------------------------------------------------------------------------------------------------------- tables, Adam


@compiled
def add_rows(table, ids, rows):
    """In the order of the tokens: the same sum each time."""
    for t in range(len(ids)):
        if not 0 <= ids[t] < len(table):
            raise IndexError("an id is out of its table's range")
    for t in range(len(ids)):
        total, row = table[ids[t]], rows[t]
        for j in range(row.size):
            total[j] += row[j]


@numba.njit(**EXACT_ORDER)
def _adam(theta, gradient, m, v, scalars, shrink):
    factor, beta1, rest1, beta2, rest2, root, eps, rate, _ = scalars
    for i in range(theta.size):
        g = gradient[i] * factor
        m[i] = beta1 * m[i] + rest1 * g
        v[i] = beta2 * v[i] + rest2 * (g * g)
        theta[i] = shrink * theta[i] - rate * (m[i] / (np.sqrt(v[i]) * root + eps))


@compiled
def adam(theta, gradient, m, v, decay_end, scalars):
    """scalars, of the arrays' dtype: what scales the gradient, then training/optim.py's
    Scalars. [:decay_end] decays."""
    end = max(0, min(decay_end, theta.size))
    for start, stop, shrink in ((0, end, scalars[-1]), (end, theta.size, theta.dtype.type(1))):
        _adam(theta[start:stop], gradient[start:stop], m[start:stop], v[start:stop], scalars, shrink)
