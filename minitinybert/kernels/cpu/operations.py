"""Operations by the loops of passes.py: the formulas' signatures, caches and numbers.
NotImplemented where arrays do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...distillation.scores import Comparison
from ...engine.batch import Batch
from ...engine.device import Array
from ...losses.mse import Cache as Mse
from ...ops.add_norm import Cache as AddNorm
from ...ops.attention import Weights
from ...ops.dropout import Cache as Dropout
from ...ops.dropout import scale_of, threshold_of
from ...ops.gelu import Cache as Gelu
from ...ops.layer_norm import Cache as Norm
from ...ops.softmax import Cache as Softmax
from ...training.optim import Scalars, Stretch
from . import passes
from .compiled import fits

_KEEP, _KEYS, _IDS = np.dtype(bool), np.dtype(np.uint64), (np.dtype(np.int64), np.dtype(np.int32))


def gelu_forward(x: Array, approximate: str = "none") -> Any:
    if not fits(x.dtype, (x, x.shape)):
        return NotImplemented
    y, phi = np.empty_like(x), np.empty_like(x)
    run = passes.gelu_tanh_forward if approximate == "tanh" else passes.gelu_forward
    run(x.reshape(-1), y.reshape(-1), phi.reshape(-1))
    return y, Gelu(x, phi, approximate)


def gelu_backward(dy: Array, cache: Gelu) -> Any:
    x, phi, approximate = cache
    if not fits(x.dtype, (dy, x.shape), (x, x.shape), (phi, x.shape)):
        return NotImplemented
    dx = np.empty_like(x)
    run = passes.gelu_tanh_backward if approximate == "tanh" else passes.gelu_backward
    run(dy.reshape(-1), x.reshape(-1), phi.reshape(-1), dx.reshape(-1))
    return dx


def dropout_forward(x: Array, p: float, keys: Array | None) -> Any:
    scale = scale_of(threshold := threshold_of(p, keys))
    if not fits(x.dtype, (x, x.shape), (keys, x.shape[:-1], _KEYS)):
        return NotImplemented
    if keys is None or not threshold:
        return x, Dropout(None, 1.0)
    y, keep = np.empty_like(x), np.empty(x.shape, bool)
    passes.dropout_forward(_rows(x), keys.reshape(-1), threshold, scale, _rows(y), _rows(keep))
    return y, Dropout(keep, scale)


def dropout_backward(dy: Array, cache: Dropout) -> Any:
    keep, scale = cache
    if keep is None:
        return dy
    if not fits(dy.dtype, (dy, keep.shape), (keep, keep.shape, _KEEP)):
        return NotImplemented
    dx = np.empty_like(dy)
    passes.dropout_backward(dy.reshape(-1), keep.reshape(-1), scale, dx.reshape(-1))
    return dx


def layer_norm_forward(x: Array, gain: Array, bias: Array, eps: float) -> Any:
    if not fits(x.dtype, (x, x.shape), (gain, x.shape[-1:]), (bias, x.shape[-1:])):
        return NotImplemented
    y, cache = np.empty_like(x), Norm(np.empty_like(x), np.empty((*x.shape[:-1], 1), x.dtype), gain)
    passes.layer_norm_forward(_rows(x), gain, bias, eps, _rows(y), _rows(cache.x_hat), cache.inverse_std.reshape(-1))
    return y, cache


def layer_norm_backward(dy: Array, cache: Norm) -> Any:
    answer = _norm_backward(dy, cache, None, 1.0)
    return answer if answer is NotImplemented else answer[1:]


def add_norm_forward(a: Array, x: Array, gain: Array, bias: Array, eps: float, p: float = 0.0, keys: Array | None = None) -> Any:
    scale = scale_of(threshold := threshold_of(p, keys))
    shape, d = x.shape, x.shape[-1:]
    if not fits(x.dtype, (a, shape), (x, shape), (gain, d), (bias, d), (keys, shape[:-1], _KEYS)):
        return NotImplemented
    y, norm = np.empty_like(x), Norm(np.empty_like(x), np.empty((*shape[:-1], 1), x.dtype), gain)
    keep = np.empty(shape, bool) if threshold else None
    key = np.empty(0, np.uint64) if keys is None else keys.reshape(-1)
    kept, into = _mask(keep, x), (_rows(y), _rows(norm.x_hat), norm.inverse_std.reshape(-1))
    passes.add_norm_forward(_rows(a), _rows(x), gain, bias, eps, key, threshold, scale, *into, kept)
    return y, AddNorm(Dropout(keep, scale), norm)


def add_norm_backward(dy: Array, cache: AddNorm) -> Any:
    return _norm_backward(dy, cache.norm, *cache.dropout)


def _norm_backward(dy: Array, cache: Norm, keep: Array | None, scale: float) -> Any:
    """da, dx, dγ, dβ; da is dx where nothing was dropped."""
    x_hat, inverse_std, gain = cache
    shape, d = x_hat.shape, x_hat.shape[-1:]
    arrays = (dy, shape), (x_hat, shape), (inverse_std, (*shape[:-1], 1)), (gain, d), (keep, shape, _KEEP)
    if not fits(x_hat.dtype, *arrays):
        return NotImplemented
    dx, dgain, dbias = np.empty_like(dy), np.empty_like(gain), np.empty_like(gain)
    da = dx if keep is None else np.empty_like(dy)
    passes.norm_backward(_rows(dy), _rows(x_hat), inverse_std.reshape(-1), gain, _rows(dx), dgain, dbias, _mask(keep, dy), scale, _rows(da))
    return da, dx, dgain, dbias


def weigh(A: Array, mask: Array | None, p: float, keys: Array | None) -> Any:
    if A.ndim != 4:
        return NotImplemented
    (n, h, Q, L), threshold = A.shape, threshold_of(p, keys)
    scale = scale_of(threshold)
    if not fits(A.dtype, (A, A.shape), (mask, (n, 1, 1, L), _KEEP), (keys, (n, h, Q), _KEYS)):
        return NotImplemented
    P, keep = np.empty_like(A), np.empty(A.shape, bool) if threshold else None
    D = P if keep is None else np.empty_like(A)
    real = np.empty((0, L), bool) if mask is None else mask.reshape(n, L)
    key = np.empty((n, 0), np.uint64) if keys is None else keys.reshape(n, h * Q)
    by_sentence = (n, h * Q, L)
    kept = np.empty((n, 0, L), bool) if keep is None else keep.reshape(by_sentence)
    passes.weigh(A.reshape(by_sentence), real, key, threshold, scale, P.reshape(by_sentence), D.reshape(by_sentence), kept)
    return D, Weights(Softmax(P), Dropout(keep, scale))


def weighed(cache: Weights) -> Any:
    return dropout_backward(cache.softmax.p, cache.dropout)


def weigh_backward(dD: Array, cache: Weights) -> Any:
    P, (keep, scale) = cache.softmax.p, cache.dropout
    if not fits(P.dtype, (dD, P.shape), (P, P.shape), (keep, P.shape, _KEEP)):
        return NotImplemented
    dA = np.empty_like(P)
    passes.weigh_backward(_rows(dD), _rows(P), _mask(keep, P), scale, _rows(dA))
    return dA


def mse_forward(x: Array, y: Array, mask: Array | None = None, count: float | None = None) -> Any:
    if mask is not None or not fits(x.dtype, (x, x.shape), (y, x.shape)):
        return NotImplemented
    count, difference = x.size if count is None else count, np.empty_like(x)
    total = passes.squared_difference(x.reshape(-1), y.reshape(-1), 1.0, difference.reshape(-1))
    return x.dtype.type(total / count), Mse(difference, count)


def compare(scores_S: Array, scores_T: Array, batch: Batch, how: Comparison) -> Any:
    if batch.attention_mask is not None or how.count_padding or not how.heads.same:
        return NotImplemented
    dtype, shape = scores_S.dtype, (scores_S.size,)
    if not fits(dtype, (scores_S, shape), (scores_T, shape)):
        return NotImplemented
    gradient = np.empty_like(scores_S)
    total = passes.squared_difference(scores_S, scores_T, 2 * how.weight / how.entries, gradient)
    return dtype.type(how.weight * total / how.entries), gradient


def add_rows(table: Array, ids: Array, rows: Array) -> Any:
    whole = ids.dtype if ids.dtype in _IDS else _IDS[0]
    if not fits(table.dtype, (table, table.shape), (ids, ids.shape, whole), (rows, (*ids.shape, *table.shape[1:]))) or rows.ndim != 2:
        return NotImplemented
    passes.add_rows(table, ids, rows)


def update(stretch: Stretch, scalars: Scalars, decay_end: int, factor: Array | None) -> Any:
    theta = stretch.theta
    if not fits(theta.dtype, *((a, (theta.size,)) for a in stretch)):
        return NotImplemented
    numbers = (1.0 if factor is None else float(factor), *scalars)
    passes.adam(*stretch, decay_end, tuple(map(theta.dtype.type, numbers)))


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _mask(keep: Array | None, like: Array) -> Array:
    return np.empty((0, like.shape[-1]), bool) if keep is None else _rows(keep)
