"""Attention loss (paper eq. 7):  L_attn = (1/h) Σ_i MSE(A_i^S, A_i^T)      A = q kᵀ/√d_k, the scores *before* the softmax

The paper chose scores over probabilities: quicker to converge, better in the end. With the heads
equally large, the mean over heads of means over L×L entries is one mean over all entries; `mask`
marks those that count (both tokens real, by default).
"""

from __future__ import annotations

from ..engine.device import Array, array_module
from . import mse
from .mse import Cache as Cache

UNSEEN = -100.0  # the released code's mark for masked scores: what is not above it becomes 0, in the student and in the teacher


def forward(scores_S: Array, scores_T: Array, mask: Array | None = None, count: float | None = None) -> tuple[Array, Cache]:
    """Scores of one layer (n, h, L, L), or flat where nothing is masked; mask broadcast against
    them -> loss ()."""
    return mse.forward(scores_S, scores_T, mask, count)


def backward(dloss: float, cache: Cache) -> Array:
    """dloss () -> dscores_S, shaped as scores_S.    dA^S = dloss · 2 m (A^S − A^T)/n, n = `count`: mse.py's own."""
    return mse.backward(dloss, cache)


def visible(A: Array, real: Array) -> tuple[Array, Array]:
    """Scores as the released code compares them: A (n, h, L, L), real (n, 1, 1, L) bool -> A, 0
    where the key is not real or the score is UNSEEN or less; and a bool array, True where A was
    left."""
    above = real & (A > UNSEEN)
    return A * above, above


class HeadPairs:
    """Which heads the attention loss compares, of S student heads and T teacher heads: one by one where there are as
    many, else means over groups of neighbouring heads of the side that has more."""

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
