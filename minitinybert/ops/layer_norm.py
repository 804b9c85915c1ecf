"""Layer normalisation (Ba et al. 2016):  y = γ x̂ + β,   x̂ = (x − μ)/σ,   μ = mean(x),   σ = √(mean((x − μ)²) + ε)

Means run over the last axis, of width d.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused


class Cache(NamedTuple):
    x_hat: Array  # (..., d)  x̂
    inverse_std: Array  # (..., 1)  1/σ
    gain: Array  # (d,)  γ


@fused
def forward(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Cache]:
    """x (..., d), gain γ (d,), bias β (d,) -> y (..., d).

    >>> y, cache = forward(np.array([1.0, 3.0]), gain=np.ones(2), bias=np.zeros(2), eps=0.0)
    >>> y.tolist()
    [-1.0, 1.0]
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse_std = 1 / array_module(x).sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    x_hat = centred * inverse_std
    return gain * x_hat + bias, Cache(x_hat, inverse_std, gain)


@fused
def backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy (..., d) -> dx (..., d), dγ (d,), dβ (d,).

    dγ = Σ_t dy_t x̂_t,  dβ = Σ_t dy_t.  Let g = γ dy be the gradient at x̂. Within a row:
    ∂x̂_i/∂x_j = (δ_ij − 1/d − x̂_i x̂_j/d)/σ, since ∂μ/∂x_j = 1/d and ∂σ/∂x_j = x̂_j/d. So
    dx_j = Σ_i g_i ∂x̂_i/∂x_j = (g_j − mean(g) − x̂_j mean(g x̂))/σ :
    g, less its projections on 1 and on x̂, the two directions layer norm cannot see (the second but for ε).
    """
    x_hat, inverse_std, gain = cache
    g = gain * dy
    dx = (g - g.mean(axis=-1, keepdims=True) - x_hat * (g * x_hat).mean(axis=-1, keepdims=True)) * inverse_std
    axes = tuple(range(dy.ndim - 1))  # all but the last
    return dx, (dy * x_hat).sum(axis=axes), dy.sum(axis=axes)
