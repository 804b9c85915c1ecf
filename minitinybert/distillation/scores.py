"""The attention loss on the flat scores of a batch, which is losses/attention.py on the rectangle
of each of its runs."""

from __future__ import annotations

from typing import NamedTuple

from ..engine.batch import Batch
from ..engine.device import Array, array_module, fused
from ..engine.memory import added
from ..losses import attention
from ..losses.attention import HeadPairs
from ..model.self_attention import real_tokens, side_by_side, split_runs
from ..ops import softmax


class Comparison(NamedTuple):
    """How the scores of a batch are compared."""

    heads: HeadPairs
    count_padding: bool  # False: entries whose query or key is padding are left out; True: as the released code (`attention.visible`)
    entries: float  # what the mean divides by: those of the whole batch, of which a share is compared at a time
    weight: float  # λ


@fused
def compare(scores_S: Array, scores_T: Array, batch: Batch, how: Comparison) -> tuple[Array, Array]:
    """One layer's flat scores of the student and of the teacher (of any float dtype) -> λ L_attn ()
    and its gradient, flat as scores_S."""
    if batch.attention_mask is None and how.heads.same and not how.count_padding:  # nothing is masked: flat they will do
        return _loss_and_gradient(scores_S, scores_T, how, None)
    losses, gradients = [], []
    of_runs = (split_runs(flat, batch.runs, heads) for flat, heads in ((scores_S, how.heads.S), (scores_T, how.heads.T)))
    for run, A_S, A_T in zip(batch.runs, *of_runs, strict=True):
        xp, A_T = array_module(A_S), A_T.astype(A_S.dtype, copy=False)  # means of few bits would lose some
        real = xp.ones((run.n, 1, 1, run.length), bool) if batch.attention_mask is None else real_tokens(batch.attention_mask, run)
        if how.count_padding:  # what is not visible is 0, is compared as 0, and does not move
            (A_S, moves), (A_T, _) = attention.visible(A_S, real), attention.visible(A_T, real)
            loss, dA = _loss_and_gradient(how.heads.average(A_S), how.heads.average(A_T), how, None)
            dA = how.heads.spread(dA) * moves
        else:
            both = real & real.swapaxes(-1, -2)
            loss, dA = _loss_and_gradient(how.heads.average(A_S), how.heads.average(A_T), how, both)
            dA = how.heads.spread(dA)
        losses.append(loss)
        gradients.append(dA.reshape(-1))
    return added(*losses), side_by_side(gradients)


def compare_probabilities(scores_S: Array, scores_T: Array, batch: Batch, how: Comparison) -> tuple[Array, Array]:
    """As `compare`, of softmax(A) in the place of A: what a query attends to among the real tokens.
    Padding has the probability 0 on both sides; its own queries count only where padding does.
    """
    parts, dscores = [], []
    of_runs = (split_runs(flat, batch.runs, heads) for flat, heads in ((scores_S, how.heads.S), (scores_T, how.heads.T)))
    for run, A_S, A_T in zip(batch.runs, *of_runs, strict=True):
        xp = array_module(A_S)
        real = xp.ones((run.n, 1, 1, run.length), bool) if batch.attention_mask is None else real_tokens(batch.attention_mask, run)
        (P_S, cache), (P_T, _) = (softmax.forward(xp.where(real, A.astype(A_S.dtype, copy=False), -xp.inf)) for A in (A_S, A_T))
        counted = None if how.count_padding else real.swapaxes(-1, -2)
        loss, dP = _loss_and_gradient(how.heads.average(P_S), how.heads.average(P_T), how, counted)
        parts.append(loss)
        dscores.append(softmax.backward(how.heads.spread(dP), cache).reshape(-1))
    return added(*parts), side_by_side(dscores)


def _loss_and_gradient(A_S: Array, A_T: Array, how: Comparison, mask: Array | None) -> tuple[Array, Array]:
    loss, cache = attention.forward(A_S, A_T, mask, how.entries)
    return how.weight * loss, attention.backward(how.weight, cache)
