"""Multi-head attention, between its projections (paper eqs. 1–3). For one sentence and one head, q ∈ R^{Q×d_k}, k, v ∈ R^{L×d_k}:

    A = q kᵀ/√d_k        the scores, before the softmax: what L_attn compares (eq. 7)
    P = softmax(A + mask)
    c = dropout(P) v     the context

Rows of several sentences lie one after the other; `runs` says which sentences are equally long, and each run is attended in one
go. Every token asks (Q = L), or only the first of each sentence (Q = 1: the last layer where nothing but the [CLS] row is looked at).
Padding is masked as BERT does: the lowest float on masked keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from ..batch import Run
from ..device import Array, array_module, fused, matmul
from ..memory import new
from ..random import row_keys
from . import softmax


class Cache(NamedTuple):
    q: Array  # (Σ Q, d)
    kv: Array  # (T, 2d)
    runs: Sequence[Run]
    heads: int
    weights: list[softmax.Cache]  # a run (n, h, Q, L)


def forward(
    q: Array,
    kv: Array,
    runs: Sequence[Run],
    heads: int,
    attention_mask: Array | None = None,
    p: float = 0.0,
    keys: Array | None = None,
) -> tuple[Array, Array, Cache]:
    """q (T, d), or (S, d) for one query a sentence; kv (T, 2d), rows [k | v]; attention_mask (T,) bool or None; dropout of P with
    probability p by a row key for each query, uint64, or None.

    Returns the context, shaped as q, the scores A as one flat array (Σ over runs of n·h·Q·L: see `split_runs`), and the cache.
    """
    d = q.shape[-1]
    context = new((len(q), d), q)
    rows = _query_rows(q, runs)
    scores = new(sum(heads * (queries.stop - queries.start) * run.length for run, queries in zip(runs, rows, strict=True)), q)
    weights, start = [], 0
    for run, queries in zip(runs, rows, strict=True):
        k, v = _by_head(kv[run.start : run.stop, :d], run.n, heads), _by_head(kv[run.start : run.stop, d:], run.n, heads)
        q_run = _by_head(q[queries], run.n, heads)
        A = scores[start : (start := start + run.n * heads * q_run.shape[2] * run.length)].reshape(run.n, heads, -1, run.length)
        matmul(q_run, k.swapaxes(-1, -2), A, 1 / math.sqrt(d // heads))
        real = None if attention_mask is None else attention_mask[run.start : run.stop].reshape(run.n, run.length)
        D, cache = weigh(A, real, p, None if keys is None else keys[queries].reshape(run.n, -1))
        matmul(D, v, _by_head(context[queries], run.n, heads))
        weights.append(cache)
    return context, scores, Cache(q, kv, runs, heads, weights)


def backward(dcontext: Array, cache: Cache, dscores: Array | None = None, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
    """dcontext as q, dscores flat as the scores (what a distillation loss says of A) or None -> dq, dkv (in `out` where given).

    c = D v with D = dropout(P), so dD = dc vᵀ and dv = Dᵀ dc. Through dropout and the softmax dA.
    A is seen by the loss too, so its own gradient is added there. A = q kᵀ/√d_k gives dq = dA k/√d_k, dk = dAᵀ q/√d_k.
    """
    q, kv, runs, heads, weights = cache
    d = q.shape[-1]
    dq, dkv = out if out is not None else (new(q.shape, q), new(kv.shape, kv))
    start = 0
    for run, queries, w in zip(runs, _query_rows(q, runs), weights, strict=True):
        k, v = _by_head(kv[run.start : run.stop, :d], run.n, heads), _by_head(kv[run.start : run.stop, d:], run.n, heads)
        dc, q_run = _by_head(dcontext[queries], run.n, heads), _by_head(q[queries], run.n, heads)
        matmul(softmax.again(w).swapaxes(-1, -2), dc, _by_head(dkv[run.start : run.stop, d:], run.n, heads))
        dD = matmul(dc, v.swapaxes(-1, -2), new(w.p.shape, w.p))
        dA = through_weights(dD, w, None if dscores is None else dscores[start : start + dD.size], d // heads)
        start += dA.size
        matmul(dA, k, _by_head(dq[queries], run.n, heads))
        matmul(dA.swapaxes(-1, -2), q_run, _by_head(dkv[run.start : run.stop, :d], run.n, heads))
    return dq, dkv


@fused
def weigh(A: Array, real: Array | None, p: float, keys: Array | None) -> tuple[Array, softmax.Cache]:
    """Scores A (n, h, Q, L), real keys (n, L) bool or None (all are), dropout keys of the queries (n, Q) -> D (n, h, Q, L), cache."""
    return softmax.forward(A, _bias(real, A.dtype), p, _keys(keys, A.shape[1]))


@fused
def through_weights(dD: Array, cache: softmax.Cache, dscores: Array | None, head_width: int) -> Array:
    """dD (n, h, Q, L), dscores flat or None -> the gradient at q kᵀ (n, h, Q, L): of what the loss and the softmax see, over √d_k."""
    dA = softmax.backward(dD, cache)
    if dscores is not None:
        dA += dscores.reshape(dA.shape)
    dA *= 1 / math.sqrt(head_width)
    return dA


def split_runs(flat: Array, runs: Sequence[Run], heads: int) -> list[Array]:
    """The flat scores as one view a run, (n, h, L, L)."""
    views, start = [], 0
    for _, n, L in runs:
        stop = start + n * heads * L * L
        views.append(flat[start:stop].reshape(n, heads, L, L))
        start = stop
    return views


def _query_rows(q: Array, runs: Sequence[Run]) -> list[slice]:
    """Where each run's queries lie: with its rows, or one a sentence."""
    if len(q) == runs[-1].stop:
        return [slice(run.start, run.stop) for run in runs]
    return [slice(end - run.n, end) for run, end in zip(runs, accumulate(run.n for run in runs), strict=True)]


def _by_head(rows: Array, n: int, heads: int) -> Array:
    """A view of n sentences' rows by heads: (n·Q, d) -> (n, h, Q, d_k)."""
    return rows.reshape(n, len(rows) // n, heads, -1).swapaxes(1, 2)


def _bias(real: Array | None, dtype) -> Array | None:
    """(n, L) bool -> (n, 1, 1, L): 0 at real keys, the lowest float at padding."""
    if real is None:
        return None
    xp = array_module(real)
    return xp.where(real[:, None, None, :], dtype.type(0), xp.finfo(dtype).min)  # scalars of the dtype: arrays would be copied to a device


def _keys(keys: Array | None, heads: int) -> Array | None:
    """A dropout key for each row of P: one a query (n, Q) -> (n, h, Q)."""
    if keys is None:
        return None
    xp, (n, Q) = array_module(keys), keys.shape
    of_head = xp.arange(heads, dtype=xp.uint64)[:, None] * xp.uint64(0xD1B54A32D192ED03)
    return row_keys(0, xp.add(keys[:, None, :], of_head, out=new((n, heads, Q), keys)))
