"""Multi-head self-attention of a batch (paper eqs. 1–3):  MultiHead = Concat(head_1, …, head_h) Wₒᵀ + bₒ

q = x W_qᵀ + b_q, k and v alike; each head attends with its own d_k = d/h columns of them. The rows
of a batch are sentences one after the other; those that lie side by side and are equally long are a
run, one rectangle of heads for ops/attention.py.

Every token asks (Q = L); or, in the last layer where nothing but the [CLS] rows is looked at, only
these (Q = 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from ..engine.batch import Batch, Run
from ..engine.device import Array, array_module
from ..engine.random import row_keys
from ..ops import attention, linear
from ..ops.linear import Affine


class Attended(NamedTuple):
    runs: Sequence[Run]
    rectangles: list[attention.Cache]  # one a run


class Cache(NamedTuple):
    q: linear.Cache
    k: linear.Cache
    v: linear.Cache
    attended: Attended
    output: linear.Cache


class Projections(NamedTuple):
    """The weights and biases of the four linear maps, or their gradients."""

    query: Affine
    key: Affine
    value: Affine
    output: Affine


def forward(
    x: Array, asking: Array, W: Projections, batch: Batch, heads: int, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, Array, Cache]:
    """x (T, d), asking (T, d) or (S, d), the rows that ask -> a, shaped as `asking`, the scores,
    cache.

    The scores A are flat: those of the runs one after the other, (n, h, Q, L) each (`split_runs`).
    Dropout of the attention's weights with probability p by a row key for each row that asks, or
    None.
    """
    q, c_q = linear.forward(asking, *W.query)
    k, c_k = linear.forward(x, *W.key)
    v, c_v = linear.forward(x, *W.value)
    context, scores, attended = attend(q, k, v, batch, heads, p, keys)
    a, c_output = linear.forward(context, *W.output)
    return a, scores, Cache(c_q, c_k, c_v, attended, c_output)


def backward(da: Array, dscores: Array | None, cache: Cache, dW: Projections) -> tuple[Array, Array]:
    """da shaped as a, dscores flat as the scores or None -> dx (T, d), what comes by keys and
    values, and the gradient of the rows that asked, by the queries. The gradients of the weights
    are written into dW.

    The forward's lines, last line first. k and v are both made of x: dx is the sum of both ways.
    """
    dcontext, *_ = linear.backward(da, cache.output, dW.output)
    dq, dk, dv = attend_backward(dcontext, dscores, cache.attended)
    dasking, *_ = linear.backward(dq, cache.q, dW.query)
    dx_key, *_ = linear.backward(dk, cache.k, dW.key)
    dx_value, *_ = linear.backward(dv, cache.v, dW.value)
    return dx_key + dx_value, dasking


def attend(
    q: Array, k: Array, v: Array, batch: Batch, heads: int, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, Array, Attended]:
    """Attention in each run of a batch: q (T, d) or (S, d), k, v (T, d) -> context, shaped as q,
    flat scores, cache."""
    contexts, scores, caches = [], [], []
    for run, rows in zip(batch.runs, _rows_that_ask(len(q), batch.runs), strict=True):
        of_run = slice(run.start, run.stop)
        mask = None if batch.attention_mask is None else real_tokens(batch.attention_mask, run)
        of_heads = None if keys is None else _keys_of_heads(keys[rows].reshape(run.n, -1), heads)
        context, A, cache = attention.forward(
            split(q[rows], run.n, heads), split(k[of_run], run.n, heads), split(v[of_run], run.n, heads), mask, p, of_heads
        )
        contexts.append(join(context))
        scores.append(A.reshape(-1))
        caches.append(cache)
    return side_by_side(contexts), side_by_side(scores), Attended(batch.runs, caches)


def attend_backward(dcontext: Array, dscores: Array | None, cache: Attended) -> tuple[Array, Array, Array]:
    """dcontext shaped as the context, dscores flat as the scores or None -> dq, dk, dv: each run by
    itself."""
    gradients, start = [], 0
    for run, rows, rectangle in zip(cache.runs, _rows_that_ask(len(dcontext), cache.runs), cache.rectangles, strict=True):
        P = rectangle.weights.softmax.p
        dA = None if dscores is None else dscores[start : (start := start + P.size)].reshape(P.shape)
        of_run = attention.backward(split(dcontext[rows], run.n, P.shape[1]), rectangle, dA)
        gradients.append([join(gradient) for gradient in of_run])
    dq, dk, dv = (side_by_side(parts) for parts in zip(*gradients, strict=True))
    return dq, dk, dv


# ------------------------------------------------------------------------------------------- a batch as rectangles


def split(rows: Array, n: int, heads: int) -> Array:
    """The rows of n sentences by heads, a view: (n·L, d) -> (n, h, L, d_k)."""
    return rows.reshape(n, len(rows) // n, heads, -1).swapaxes(1, 2)


def join(by_head: Array) -> Array:
    """Back to rows: (n, h, L, d_k) -> (n·L, d)."""
    n, h, L, d_k = by_head.shape
    return by_head.swapaxes(1, 2).reshape(n * L, h * d_k)


def side_by_side(parts: Sequence[Array]) -> Array:
    """What the runs have given, one after the other."""
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts)


def split_runs(flat: Array, runs: Sequence[Run], heads: int) -> list[Array]:
    """The flat scores of a layer as one view a run, (n, h, L, L)."""
    views, start = [], 0
    for _, n, L in runs:
        stop = start + n * heads * L * L
        views.append(flat[start:stop].reshape(n, heads, L, L))
        start = stop
    return views


def real_tokens(mask: Array, run: Run) -> Array:
    """(T,) bool -> (n, 1, 1, L): which tokens of a run are not padding."""
    return mask[run.start : run.stop].reshape(run.n, 1, 1, run.length)


def _rows_that_ask(count: int, runs: Sequence[Run]) -> list[slice]:
    """Where each run's queries lie among `count`: with its rows, or one a sentence."""
    if count == runs[-1].stop:
        return [slice(run.start, run.stop) for run in runs]
    return [slice(end - run.n, end) for run, end in zip(runs, accumulate(run.n for run in runs), strict=True)]


def _keys_of_heads(keys: Array, heads: int) -> Array:
    """A dropout key for each row of P: keys (n, Q) of the rows that ask -> (n, h, Q)."""
    xp = array_module(keys)
    of_head = xp.arange(heads, dtype=xp.uint64) * xp.uint64(0xD1B54A32D192ED03)
    return row_keys(0, keys[:, None, :] + of_head[:, None])
