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

from ..engine.batch import Run
from ..engine.device import Array, array_module, fused
from ..engine.memory import new
from ..engine.random import row_keys
from . import softmax


class Cache(NamedTuple):
    q: Array  # (Σ Q, d)
    kv: Array  # (T, 2d)
    runs: Sequence[Run]
    heads: int
    weights: list[softmax.Cache]  # a run (n, h, Q, L); empty: not kept
    starts: Array | None  # (S,)
    bias: Array | None  # (3d,) what has not been added to q and kv


@fused
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
    """q (T, d), or (S, d) for one query a sentence; kv (T, 2d), rows [k | v]; attention_mask (T,) bool or None; dropout of P with
    probability p by a row key for each query, uint64, or None; starts (S,) each sentence's first row, for kernels, which cannot see `runs`;
    bias (3d,) to be added to [q | k | v] first, which may be done in them.

    Returns the context, shaped as q, the scores A as one flat array (Σ over runs of n·h·Q·L: see `split_runs`), and the cache.
    keep_scores False: None for them; keep_cache False: without P, for a forward pass alone.
    """
    xp, d = array_module(q), q.shape[-1]
    if bias is not None:
        q += bias[:d]
        kv += bias[d:]
    context = new((len(q), d), q)
    rows = _query_rows(q, runs)
    scores = new(sum(heads * (queries.stop - queries.start) * run.length for run, queries in zip(runs, rows, strict=True)), q)
    weights, start = [], 0
    for run, queries in zip(runs, rows, strict=True):
        k, v = _by_head(kv[run.start : run.stop, :d], run.n, heads), _by_head(kv[run.start : run.stop, d:], run.n, heads)
        q_run = _by_head(q[queries], run.n, heads)
        A = scores[start : (start := start + run.n * heads * q_run.shape[2] * run.length)].reshape(run.n, heads, -1, run.length)
        xp.matmul(q_run, k.swapaxes(-1, -2), out=A)
        A *= 1 / math.sqrt(d // heads)
        D, cache = softmax.forward(A, _bias(attention_mask, run, A.dtype), p, _keys(keys, queries, run.n, heads))
        xp.matmul(D, v, out=_by_head(context[queries], run.n, heads))
        if keep_cache:
            weights.append(cache)
    return context, scores if keep_scores else None, Cache(q, kv, runs, heads, weights, starts, None)


@fused
def backward(dcontext: Array, cache: Cache, dscores: Array | None = None, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
    """dcontext as q, dscores flat as the scores (what a distillation loss says of A) or None -> dq, dkv (in `out` where given).

    c = D v with D = dropout(P), so dD = dc vᵀ and dv = Dᵀ dc. Through dropout and the softmax dA.
    A is seen by the loss too, so its own gradient is added there. A = q kᵀ/√d_k gives dq = dA k/√d_k, dk = dAᵀ q/√d_k.
    """
    q, kv, runs, heads, weights, _, _ = cache
    xp, d = array_module(dcontext), q.shape[-1]
    dq, dkv = out if out is not None else (new(q.shape, q), new(kv.shape, kv))
    start = 0
    for run, queries, w in zip(runs, _query_rows(q, runs), weights, strict=True):
        k, v = _by_head(kv[run.start : run.stop, :d], run.n, heads), _by_head(kv[run.start : run.stop, d:], run.n, heads)
        dc, q_run = _by_head(dcontext[queries], run.n, heads), _by_head(q[queries], run.n, heads)
        xp.matmul(softmax.again(w).swapaxes(-1, -2), dc, out=_by_head(dkv[run.start : run.stop, d:], run.n, heads))
        dA = softmax.backward(xp.matmul(dc, v.swapaxes(-1, -2), out=new(w.p.shape, w.p)), w)
        if dscores is not None:
            dA += dscores[start : start + dA.size].reshape(dA.shape)
        start += dA.size
        dA *= 1 / math.sqrt(d // heads)
        xp.matmul(dA, k, out=_by_head(dq[queries], run.n, heads))
        xp.matmul(dA.swapaxes(-1, -2), q_run, out=_by_head(dkv[run.start : run.stop, :d], run.n, heads))
    return dq, dkv


def split_runs(flat: Array, runs: Sequence[Run], heads: int) -> list[Array]:
    """The flat scores as one view a run, (n, h, L, L)."""
    views, start = [], 0
    for _, n, L in runs:
        stop = start + n * heads * L * L
        views.append(flat[start:stop].reshape(n, heads, L, L))
        start = stop
    return views


def real_keys(mask: Array, run: Run) -> Array:
    """(T,) bool -> (n, 1, 1, L): which keys of a run are not padding."""
    return mask[run.start : run.stop].reshape(run.n, 1, 1, run.length)


def _query_rows(q: Array, runs: Sequence[Run]) -> list[slice]:
    """Where each run's queries lie: with its rows, or one a sentence."""
    if len(q) == runs[-1].stop:
        return [slice(run.start, run.stop) for run in runs]
    return [slice(end - run.n, end) for run, end in zip(runs, accumulate(run.n for run in runs), strict=True)]


def _by_head(rows: Array, n: int, heads: int) -> Array:
    """A view of n sentences' rows by heads: (n·Q, d) -> (n, h, Q, d_k)."""
    return rows.reshape(n, len(rows) // n, heads, -1).swapaxes(1, 2)


def _bias(mask: Array | None, run: Run, dtype) -> Array | None:
    """(T,) bool -> (n, 1, 1, L): 0 at real keys, the lowest float at padding."""
    if mask is None:
        return None
    xp = array_module(mask)
    return xp.where(real_keys(mask, run), dtype.type(0), xp.finfo(dtype).min)  # scalars of the dtype: arrays would be copied to a device


def _keys(keys: Array | None, queries: slice, n: int, heads: int) -> Array | None:
    """A dropout key for each row of P: one a query -> (n, h, Q)."""
    if keys is None:
        return None
    xp, rows = array_module(keys), keys[queries].reshape(n, 1, -1)
    of_head = xp.arange(heads, dtype=xp.uint64)[:, None] * xp.uint64(0xD1B54A32D192ED03)
    return row_keys(0, xp.add(rows, of_head, out=new((n, heads, rows.shape[-1]), keys)))
