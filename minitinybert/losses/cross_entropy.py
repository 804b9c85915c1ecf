"""Cross-entropy with labels:  L = −(1/n) Σ_b log p_b,y_b      p = softmax(z)"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused


class Cache(NamedTuple):
    p: Array  # (n, C)
    labels: Array  # (n,)
    n: float


@fused
def forward(z: Array, labels: Array, count: float | None = None) -> tuple[Array, Cache]:
    """Logits z (n, C), labels (n,) integers in [0, C) -> loss ()."""
    count = len(z) if count is None else count
    log_p, p = log_softmax(z)
    return -log_p[array_module(z).arange(len(z)), labels].sum() / count, Cache(p, labels, count)


@fused
def backward(dloss: float, cache: Cache) -> Array:
    """dloss () -> dz (n, C).    ∂ log p_y/∂z_k = δ_yk − p_k, so  dz_k = dloss (p_k − δ_yk)/n ;  Σ_k dz_k = 0."""
    dz = cache.p.copy()
    dz[array_module(dz).arange(len(dz)), cache.labels] -= 1
    dz *= dloss / cache.n
    return dz


def log_softmax(z: Array) -> tuple[Array, Array]:
    """z (..., C) -> log p and p = softmax(z): log p_i = z_i − max z − log Σ_j e^{z_j − max z}:
    nothing overflows."""
    xp = array_module(z)
    shifted = z - z.max(axis=-1, keepdims=True)
    p = xp.exp(shifted)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    shifted -= xp.log(total)
    return shifted, p
