"""Prediction loss (paper eq. 10):  L_pred = CE(z^T/t, z^S/t) = −(1/n) Σ_b Σ_c p^T_bc log p^S_bc      p = softmax(z/t)

n is the number of sentences; the released code divides by sentences × classes. There is no t²
(Hinton et al. have one).
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, fused
from ..ops import softmax
from .cross_entropy import log_softmax


class Cache(NamedTuple):
    p_S: Array  # (B, C)
    p_T: Array  # (B, C)
    temperature: float
    n: float  # what the mean divides by


@fused
def forward(z_S: Array, z_T: Array, temperature: float = 1.0, count: float | None = None) -> tuple[Array, Cache]:
    """Logits z_S, z_T (B, C), the teacher's of any float dtype -> loss ()."""
    count = len(z_S) if count is None else count
    p_T, _ = softmax.forward(z_T.astype(z_S.dtype, copy=False) / temperature)
    log_p, p_S = log_softmax(z_S / temperature)
    return -(p_T * log_p).sum() / count, Cache(p_S, p_T, temperature, count)


@fused
def backward(dloss: float, cache: Cache) -> Array:
    """dloss () -> dz_S (B, C).

    ∂ log p_c/∂z_k = (δ_ck − p_k)/t, so ∂L/∂z_k = −(1/(n t)) Σ_c p^T_c (δ_ck − p^S_k) = (p^S_k −
    p^T_k)/(n t), as Σ_c p^T_c = 1.
    """
    return (cache.p_S - cache.p_T) * (dloss / (cache.n * cache.temperature))
