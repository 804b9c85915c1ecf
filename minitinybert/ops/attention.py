"""Multi-head attention, between its projections (paper eqs. 1–3). For one sentence and one head, q, k, v ∈ R^{L×d_k}:

    A = q kᵀ/√d_k        the scores, before the softmax: what L_attn compares (eq. 7)
    P = softmax(A + mask)
    c = dropout(P) v     the context

q, k and v come as one array, rows [q | k | v], from one GEMM. Rows of several sentences lie one after the other; `runs` says which
sentences are equally long, and each run is attended in one go. Padding is masked as BERT does: the lowest float on masked keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..batch import Run
from ..device import Array, array_module
from ..random import row_keys
from . import dropout, softmax


class Cache(NamedTuple):
    qkv: Array  # (T, 3d)
    runs: Sequence[Run]
    heads: int
    probabilities: list[softmax.Cache]  # a run (n, h, L, L)
    dropped: list[dropout.Cache]  # a run
    context: Array  # (T, d)


def forward(
    qkv: Array,
    runs: Sequence[Run],
    heads: int,
    attention_mask: Array | None = None,
    p: float = 0.0,
    keys: Array | None = None,
) -> tuple[Array, Array, Cache]:
    """qkv (T, 3d), attention_mask (T,) bool or None, dropout of P with probability p by row keys (T,) uint64 or None.

    Returns the context (T, d), the scores A as one flat array (Σ over runs of n·h·L·L: see `split_runs`), and the cache.
    """
    xp = array_module(qkv)
    d = qkv.shape[-1] // 3
    context = xp.empty((len(qkv), d), qkv.dtype)
    scores = xp.empty(sum(run.n * heads * run.length**2 for run in runs), qkv.dtype)
    probabilities, dropped = [], []
    for run, A in zip(runs, split_runs(scores, runs, heads), strict=True):
        q, k, v = _heads(qkv, run, heads)
        xp.matmul(q, k.swapaxes(-1, -2), out=A)
        A *= 1 / math.sqrt(d // heads)
        P, p_cache = softmax.forward(A, _bias(attention_mask, run, A.dtype))
        P, d_cache = dropout.forward(P, p, _keys(keys, run, heads))
        _join(context, run, heads)[...] = P @ v
        probabilities.append(p_cache)
        dropped.append(d_cache)
    return context, scores, Cache(qkv, runs, heads, probabilities, dropped, context)


def backward(dcontext: Array, cache: Cache, dscores: Array | None = None) -> Array:
    """dcontext (T, d), dscores flat as the scores (what a distillation loss says of A) or None -> dqkv (T, 3d).

    c = D v with D = dropout(P), so dD = dc vᵀ and dv = Dᵀ dc. Through dropout (diagonal) dP, through the softmax dA.
    A is seen by the loss too, so its own gradient is added there. A = q kᵀ/√d_k gives dq = dA k/√d_k, dk = dAᵀ q/√d_k.
    """
    xp = array_module(dcontext)
    qkv, runs, heads, probabilities, dropped, _ = cache
    scale = 1 / math.sqrt(qkv.shape[-1] // 3 // heads)
    dqkv = xp.empty(qkv.shape, qkv.dtype)
    dA_parts = [None] * len(runs) if dscores is None else split_runs(dscores, runs, heads)
    for run, p_cache, d_cache, dA_loss in zip(runs, probabilities, dropped, dA_parts, strict=True):
        q, k, v = _heads(qkv, run, heads)
        dq, dk, dv = _heads(dqkv, run, heads)
        dc = _join(dcontext, run, heads)
        D = dropout.backward(p_cache.p, d_cache)  # recomputed: dropout is its own backward, and P is all that is kept
        dv[...] = D.swapaxes(-1, -2) @ dc
        dP = dropout.backward(dc @ v.swapaxes(-1, -2), d_cache)
        dA = softmax.backward(dP, p_cache)
        if dA_loss is not None:
            dA += dA_loss
        dA *= scale
        dq[...] = dA @ k
        dk[...] = dA.swapaxes(-1, -2) @ q
    return dqkv


def split_runs(flat: Array, runs: Sequence[Run], heads: int) -> list[Array]:
    """The flat scores as one view a run, (n, h, L, L)."""
    views, start = [], 0
    for _, n, L in runs:
        stop = start + n * heads * L * L
        views.append(flat[start:stop].reshape(n, heads, L, L))
        start = stop
    return views


def _heads(qkv: Array, run: Run, heads: int) -> tuple[Array, Array, Array]:
    """Views of a run's q, k, v: (T, 3d) -> three (n, h, L, d_k), nothing copied."""
    n, L = run.n, run.length
    parts = qkv[run.start : run.stop].reshape(n, L, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    return parts[0], parts[1], parts[2]


def _join(rows: Array, run: Run, heads: int) -> Array:
    """A view of a run's rows by heads: (T, d) -> (n, h, L, d_k)."""
    return rows[run.start : run.stop].reshape(run.n, run.length, heads, -1).swapaxes(1, 2)


def _bias(mask: Array | None, run: Run, dtype) -> Array | None:
    """(T,) bool -> (n, 1, 1, L): 0 at real keys, the lowest float at padding."""
    if mask is None:
        return None
    xp = array_module(mask)
    real = mask[run.start : run.stop].reshape(run.n, 1, 1, run.length)
    return xp.where(real, xp.zeros((), dtype), xp.asarray(xp.finfo(dtype).min, dtype))


def _keys(keys: Array | None, run: Run, heads: int) -> Array | None:
    """A dropout key for each row of P: (T,) -> (n, h, L)."""
    if keys is None:
        return None
    rows = keys[run.start : run.stop].reshape(run.n, 1, run.length)
    xp = array_module(keys)
    return row_keys(0, rows + xp.arange(heads, dtype=xp.uint64)[:, None] * xp.uint64(0xD1B54A32D192ED03))
