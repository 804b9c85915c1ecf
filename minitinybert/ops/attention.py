"""Attention (paper eqs. 1 and 2), of every head by itself:  q ∈ R^{Q×d_k},  k, v ∈ R^{L×d_k}

    A = q kᵀ/√d_k        the scores, before the softmax: what L_attn compares (eq. 7)
    P = softmax(A + mask)
    c = dropout(P) v     the context

n sentences of one length and their h heads are one rectangle (n, h, …). Padding is masked as BERT
does: the lowest float is added to the scores of masked keys.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..engine.device import Array, array_module, fused
from . import dropout, softmax


class Weights(NamedTuple):
    """What is kept of P and its dropout."""

    softmax: softmax.Cache  # (n, h, Q, L)
    dropout: dropout.Cache


class Cache(NamedTuple):
    q: Array  # (n, h, Q, d_k)
    k: Array  # (n, h, L, d_k)
    v: Array  # (n, h, L, d_k)
    weights: Weights


def forward(
    q: Array, k: Array, v: Array, mask: Array | None = None, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, Array, Cache]:
    """q (n, h, Q, d_k), k, v (n, h, L, d_k) -> context (n, h, Q, d_k), scores A (n, h, Q, L),
    cache.

    mask (n, 1, 1, L) bool, False at padding, or None. P is dropped with probability p by row keys
    (n, h, Q) uint64, or not where these are None.
    """
    A = q @ k.swapaxes(-1, -2) * (1 / math.sqrt(q.shape[-1]))
    D, weights = weigh(A, mask, p, keys)
    return D @ v, A, Cache(q, k, v, weights)


def backward(dcontext: Array, cache: Cache, dscores: Array | None = None) -> tuple[Array, Array, Array]:
    """dcontext (n, h, Q, d_k), dscores (n, h, Q, L), what a distillation loss says of A, or None ->
    dq, dk, dv.

    c = D v with D = dropout(P), so dD = dc vᵀ and dv = Dᵀ dc. Through dropout and the softmax comes
    dA. A is seen by the loss too, so its own gradient is added there. A = q kᵀ/√d_k gives dq = dA
    k/√d_k, dk = dAᵀ q/√d_k.
    """
    q, k, v, weights = cache
    dv = weighed(weights).swapaxes(-1, -2) @ dcontext
    dA = weigh_backward(dcontext @ v.swapaxes(-1, -2), weights)
    if dscores is not None:
        dA = dA + dscores
    dA = dA * (1 / math.sqrt(q.shape[-1]))
    return dA @ k, dA.swapaxes(-1, -2) @ q, dv


@fused
def weigh(A: Array, mask: Array | None, p: float, keys: Array | None) -> tuple[Array, Weights]:
    """D = dropout(softmax(A + mask)) of scores A (n, h, Q, L); mask, p and keys as in `forward`."""
    if mask is not None:
        xp = array_module(A)
        A = A + xp.where(mask, A.dtype.type(0), xp.finfo(A.dtype).min)
    P, kept = softmax.forward(A)
    D, dropped = dropout.forward(P, p, keys)
    return D, Weights(kept, dropped)


@fused
def weighed(cache: Weights) -> Array:
    """D again: P and the mask are all that is kept of it."""
    return dropout.backward(cache.softmax.p, cache.dropout)


@fused
def weigh_backward(dD: Array, cache: Weights) -> Array:
    """dD (n, h, Q, L) -> dA (n, h, Q, L), back through dropout and the softmax."""
    return softmax.backward(dropout.backward(dD, cache.dropout), cache.softmax)
