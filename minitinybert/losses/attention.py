"""Attention loss (paper eq. 7):  L_attn = (1/h) Σ_i MSE(A_i^S, A_i^T)      A = q kᵀ/√d_k, the scores *before* the softmax

The paper chose scores over probabilities: quicker to converge, better in the end. With the heads equally large, the mean over heads
of means over L×L entries is one mean over all entries; `mask` marks those that count (both tokens real, by default).

`forward` and `backward` are the loss on scores of one shape, `compare` both of them on a batch's flat scores, `attend` attention that
compares its scores as it makes them: on a GPU in one kernel, which then writes the loss's gradient where it would have written A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..engine.batch import Run
from ..engine.device import Array, array_module, fused
from ..engine.memory import added, new
from ..ops import attention
from . import mse
from .mse import Cache as Cache

UNSEEN = -100.0  # the released code's mark for masked scores: what is not above it becomes 0, in the student and in the teacher


class Target(NamedTuple):
    """What the scores of one of the student's layers are compared with, and how."""

    scores: Array  # the teacher's, flat as the student's, of any float dtype
    weight: float  # λ
    entries: float  # what the mean divides by
    padding: bool  # False: entries whose query or key is padding are left out; True: they count as the released code counts them (`seen`)


class Compared(NamedTuple):
    loss: Array  # () λ L_attn
    dscores: Array  # its gradient, flat as the student's scores


class HeadPairs:
    """Which heads the attention loss compares, of S student heads and T teacher heads: one by one where there are as many, else
    means over groups of neighbouring heads of the side that has more."""

    def __init__(self, S: int, T: int):
        self.S, self.T, self.same, self.pairs = S, T, S == T, min(S, T)

    def average(self, A: Array) -> Array:
        """(n, S or T, L, L) -> (n, pairs, L, L)."""
        n, heads, L, _ = A.shape
        return A if heads == self.pairs else A.reshape(n, self.pairs, heads // self.pairs, L, L).mean(axis=2)

    def spread(self, dA: Array) -> Array:
        """The backward of `average` for the student: each of its g heads in a group gets 1/g.  (n, pairs, L, L) -> (n, S, L, L)"""
        g = self.S // self.pairs
        return dA if g == 1 else array_module(dA).repeat(dA, g, axis=1) / g


def forward(scores_S: Array, scores_T: Array, mask: Array | None = None, count: float | None = None) -> tuple[Array, Cache]:
    """Scores of one layer (n, h, L, L), or flat where nothing is masked; mask broadcast against them -> loss ()."""
    return mse.forward(scores_S, scores_T, mask, count)


def backward(dloss: float, cache: Cache) -> Array:
    """dloss () -> dscores_S, shaped as scores_S.    ∂L/∂A^S = 2 (A^S − A^T)/(entries): the mean squared error's own."""
    return mse.backward(dloss, cache)


@fused
def seen(A: Array, keys: Array) -> tuple[Array, Array]:
    """Scores as the released code compares them: A (n, h, L, L), keys (n, 1, 1, L) bool -> A, 0 where the key is padding or the score
    is UNSEEN or less; and where it is not, bool."""
    seen = keys & (A > UNSEEN)
    return A * seen, seen


def compare(scores: Array, target: Target, runs: Sequence[Run], heads: HeadPairs, attention_mask: Array | None = None) -> Compared:
    """A layer's flat scores with the target's; attention_mask (T,) bool or None."""
    if attention_mask is None and heads.same and not target.padding:  # nothing is masked: flat they will do
        return _loss_and_gradient(scores, target.scores, target)
    xp, dscores, losses = array_module(scores), new(scores.shape, scores), []
    views = [attention.split_runs(flat, runs, h) for flat, h in ((scores, heads.S), (target.scores, heads.T), (dscores, heads.S))]
    for run, A_S, A_T, dA in zip(runs, *views, strict=True):
        A_T = A_T.astype(A_S.dtype, copy=False)  # means of few bits would lose some
        keys = xp.ones((run.n, 1, 1, run.length), bool) if attention_mask is None else attention.real_keys(attention_mask, run)
        if target.padding:  # what is not seen is 0, is compared as 0, and does not move
            A_S, seen_S = seen(A_S, keys)
            A_T, _ = seen(A_T, keys)
            loss, dA_seen = _loss_and_gradient(heads.average(A_S), heads.average(A_T), target)
            xp.multiply(heads.spread(dA_seen), seen_S, out=dA)
        else:
            loss, dA_mean = _loss_and_gradient(heads.average(A_S), heads.average(A_T), target, keys & keys.swapaxes(-1, -2))
            dA[...] = heads.spread(dA_mean)
        losses.append(loss)
    return Compared(added(*losses), dscores)


@fused
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
    target: Target,
) -> tuple[Array, Compared, attention.Cache]:
    """`ops.attention.forward`, every token asking, with its scores compared rather than handed out; the target's heads are as many."""
    context, scores, cache = attention.forward(q, kv, runs, heads, attention_mask, p, keys, starts, bias)
    return context, compare(scores, target, runs, HeadPairs(heads, heads), attention_mask), cache  # type: ignore[return-value]


def _loss_and_gradient(A_S: Array, A_T: Array, target: Target, mask: Array | None = None) -> Compared:
    loss, cache = forward(A_S, A_T, mask, target.entries)
    return Compared(mse.weighted(target.weight, loss), backward(target.weight, cache))
