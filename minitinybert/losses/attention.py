"""Attention loss (paper eq. 7):  L_attn = (1/h) Σ_i MSE(A_i^S, A_i^T)      A = q kᵀ/√d_k, the scores *before* the softmax

The paper chose scores over probabilities: quicker to converge, better in the end. With the heads equally large, the mean over heads
of means over L×L entries is one mean over all entries; `mask` marks those that count (both tokens real, by default).
"""

from __future__ import annotations

from ..device import Array
from . import mse
from .mse import Cache as Cache


def forward(scores_S: Array, scores_T: Array, mask: Array | None = None, count: float | None = None) -> tuple[Array, Cache]:
    """Scores of one layer (n, h, L, L), or flat where nothing is masked; mask broadcast against them -> loss ()."""
    return mse.forward(scores_S, scores_T, mask, count)


def backward(dloss: float, cache: Cache) -> Array:
    """dloss () -> dscores_S, shaped as scores_S.    ∂L/∂A^S = 2 (A^S − A^T)/(entries): the mean squared error's own."""
    return mse.backward(dloss, cache)
