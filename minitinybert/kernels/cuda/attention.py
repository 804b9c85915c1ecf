"""ops/attention.py, and losses/attention.py's `attend`: one pass forward and two backward, whatever lengths the sentences have; no
product of theirs is a call of its own, and no scores are read again to be compared. The formulas: attention_source.py."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from ...engine.batch import Run
from ...engine.device import Array
from ...engine.random import key
from ...errors import InputError
from ...losses import attention as attention_loss
from ...ops import dropout, softmax
from ...ops.attention import Cache
from .attention_source import BY_KEYS, BY_QUERIES, FORWARD
from .dropout import undrawn
from .launch import contiguous, counters, parts_dtype


def forward(
    q: Array,
    kv: Array,
    runs: Sequence[Run],
    heads: int,
    attention_mask: Array | None = None,
    p: float = 0.0,
    keys: Array | None = None,
    starts: Array | None = None,
    bias: Array | None = None,
    keep_scores: bool = True,
    keep_cache: bool = True,
) -> tuple[Array, Array | None, Cache]:
    scores = cupy.empty(_size(q, runs, heads), q.dtype) if keep_scores else None
    context, cache = _forward(q, kv, runs, heads, attention_mask, p, keys, starts, bias, scores, keep_cache)
    return context, scores, cache


def attend(
    q: Array,
    kv: Array,
    runs: Sequence[Run],
    heads: int,
    attention_mask: Array | None,
    p: float,
    keys: Array | None,
    starts: Array | None,
    bias: Array | None,
    target: attention_loss.Target,
) -> tuple[Array, attention_loss.Compared, Cache]:
    compared = attention_loss.Compared(cupy.empty((), q.dtype), cupy.empty(_size(q, runs, heads), q.dtype))
    context, cache = _forward(q, kv, runs, heads, attention_mask, p, keys, starts, bias, compared.dscores, True, target, compared.loss)
    return context, compared, cache


def _forward(q, kv, runs, heads, attention_mask, p, keys, starts, bias, scores, keep_cache, target=None, loss=None) -> tuple[Array, Cache]:
    """Context and cache; scores, or what comes of their comparison, into `scores` and `loss`."""
    q, kv = _in_rows(q), _in_rows(kv)
    attention_mask, keys = contiguous(attention_mask, keys)
    if starts is None:
        starts = cupy.asarray(np.concatenate([run.start + run.length * np.arange(run.n) for run in runs]))
    one, W, size = _one(q, runs), q.shape[1] // heads, _size(q, runs, heads)
    grid, sizes = _shares(runs, heads, W, q.dtype, few=one)
    context, P = cupy.empty(q.shape, q.dtype), cupy.empty(size, q.dtype) if keep_cache else None
    dropped, threshold = undrawn(size, p, keys, keep_cache)
    arrays = (q, kv, bias, starts, attention_mask, keys, context, scores, P, dropped.keep)
    numbers = (len(starts), runs[-1].stop, heads, _stride(q), _stride(kv), 1 / math.sqrt(W), _lowest(q.dtype))
    more = (np.uint64(key(0, 0)), np.uint32(threshold), float(dropped.scale))
    compare, Y = 0, q.dtype
    comparison: tuple[Any, ...] = (None, None, None, None, 0.0, 0.0, 0.0)
    if target is not None:
        compare = 3 if target.padding else 2 if attention_mask is not None else 1
        parts, by_entry = cupy.empty(math.prod(grid), parts_dtype(q.dtype)), target.weight / target.entries
        (their,) = contiguous(target.scores)
        Y = their.dtype
        comparison = (their, parts, counters(), loss, 2 * by_entry, by_entry, attention_loss.UNSEEN)
    ways = {"MASK": attention_mask is not None, "DROP": threshold > 0, "COMPARE": compare, "Y": Y}
    FORWARD.launch(grid, (128,), q.dtype, (*arrays, *numbers, *more, *comparison), **sizes, ONE=one, **ways)
    weights = _by_run(P, dropped, runs, heads, one) if keep_cache else []
    return context, Cache(q, kv, runs, heads, weights, starts, bias)


def backward(dcontext: Array, cache: Cache, dscores: Array | None = None, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
    q, kv, runs, heads, weights, starts, bias = cache
    dcontext, (dscores,) = _in_rows(dcontext), contiguous(dscores)
    dq, dkv = out if out is not None else (cupy.empty(q.shape, q.dtype), cupy.empty(kv.shape, kv.dtype))
    assert dq.strides[1] == dkv.strides[1] == dq.itemsize, "rows without gaps"
    one, W = _one(q, runs), q.shape[1] // heads
    assert starts is not None
    p, (keep, scale) = weights[0]  # the first run's; the others' lie behind
    dA = cupy.empty(_size(q, runs, heads), q.dtype)
    sizes, ways = (len(starts), runs[-1].stop, heads), {"ONE": one, "DROP": keep is not None}
    numbers = (*sizes, _stride(dcontext), _stride(kv), _stride(dq), 1 / math.sqrt(W), float(scale))
    grid, constants = _shares(runs, heads, W, q.dtype, few=one)
    arrays = (dcontext, kv, bias, starts, p, keep, dscores, dA, dq)
    BY_QUERIES.launch(grid, (128,), q.dtype, (*arrays, *numbers), **constants, **ways, MORE=dscores is not None)
    arguments = (dcontext, q, bias, starts, p, keep, dA, dkv, *sizes, _stride(dcontext), _stride(q), _stride(dkv), float(scale))
    grid, constants = _shares(runs, heads, W, q.dtype)
    BY_KEYS.launch(grid, (128,), q.dtype, arguments, **constants, **ways)
    return dq, dkv


@functools.cache
def _lowest(dtype: np.dtype) -> float:
    return float(np.finfo(parts_dtype(dtype)).min)


def _one(q: Array, runs: Sequence[Run]) -> bool:
    """Whether only the first token of each sentence asks."""
    return len(q) < runs[-1].stop


def _size(q: Array, runs: Sequence[Run], heads: int) -> int:
    """How many scores there are."""
    return heads * sum(run.n * run.length * (1 if _one(q, runs) else run.length) for run in runs)


def _shares(runs: Sequence[Run], heads: int, W: int, dtype, few: bool = False) -> tuple[tuple[int, int, int], dict[str, int]]:
    """A block for each sentence, each head, each stretch of rows of the longest sentence (a single row where `few`); the constants."""
    longest = max(run.length for run in runs)
    sizes = _sizes(longest, W, dtype, few)
    return (sum(run.n for run in runs), heads, 1 if few else -(-longest // sizes["R"])), sizes


@functools.cache
def _sizes(longest: int, W: int, dtype, few: bool = False) -> dict[str, int]:
    """The constants of a kernel for sentences of up to `longest` tokens and heads W wide, as far as shared memory reaches."""
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


def _by_run(p: Array, dropped: dropout.Cache, runs: Sequence[Run], heads: int, one: bool) -> list[softmax.Cache]:
    """P and its mask as views a run, (n, h, Q, L)."""
    caches, start = [], 0
    for _, n, L in runs:
        shape = (n, heads, 1 if one else L, L)
        part = slice(start, start := start + math.prod(shape))
        keep = None if dropped.keep is None else dropped.keep[part].reshape(shape)
        caches.append(softmax.Cache(p[part].reshape(shape), dropout.Cache(keep, dropped.scale)))
    return caches


def _in_rows(x: Array) -> Array:
    """x as kernels read it: each row without gaps, the rows evenly spaced."""
    return x if x.strides[1] == x.itemsize and x.strides[0] > 0 else cupy.ascontiguousarray(x)


def _stride(x: Array) -> int:
    return x.strides[0] // x.itemsize
