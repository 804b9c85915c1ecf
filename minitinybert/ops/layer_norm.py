"""Layer normalisation (Ba et al. 2016):  y = γ x̂ + β,   x̂ = (x − μ)/σ,   μ = mean(x),   σ = √(mean((x − μ)²) + ε)

Means run over the last axis, of width d.
"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Array, array_module


class Cache(NamedTuple):
    x_hat: Array  # (..., d)
    inverse_std: Array  # (..., 1)  1/σ
    gain: Array  # (d,)  γ


def forward(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Cache]:
    """x (..., d), gain γ (d,), bias β (d,) -> y (..., d)."""
    xp = array_module(x)
    x_hat = x - x.mean(axis=-1, keepdims=True)
    inverse_std = 1 / xp.sqrt(_mean_of_product(x_hat, x_hat) + eps)
    x_hat *= inverse_std
    y = x_hat * gain
    y += bias
    return y, Cache(x_hat, inverse_std, gain)


def backward(dy: Array, cache: Cache, out: tuple[Array, Array] | None = None) -> tuple[Array, Array, Array]:
    """dy (..., d) -> dx (..., d), dγ (d,), dβ (d,); dγ and dβ are written into `out` where given.

    dγ = Σ_t dy_t x̂_t,  dβ = Σ_t dy_t.  Let g = γ dy be the gradient at x̂. Within a row:
    ∂x̂_i/∂x_j = (δ_ij − 1/d − x̂_i x̂_j/d)/σ, since ∂μ/∂x_j = 1/d and ∂σ/∂x_j = x̂_j/d. So
    dx_j = Σ_i g_i ∂x̂_i/∂x_j = (g_j − mean(g) − x̂_j mean(g x̂))/σ :
    g, less its projections on 1 and on x̂, the two directions layer norm cannot see.
    """
    x_hat, inverse_std, gain = cache
    xp, d = array_module(dy), dy.shape[-1]
    dgain, dbias = out if out is not None else (None, None)
    dgain = xp.sum((dy * x_hat).reshape(-1, d), axis=0, out=dgain)
    dbias = xp.sum(dy.reshape(-1, d), axis=0, out=dbias)
    dx = dy * gain
    projection = _mean_of_product(dx, x_hat)
    dx -= dx.mean(axis=-1, keepdims=True)
    dx -= x_hat * projection
    dx *= inverse_std
    return dx, dgain, dbias


def _mean_of_product(a: Array, b: Array) -> Array:
    """mean(a b) over the last axis, kept as (..., 1), without an array for the product."""
    return array_module(a).einsum("...i,...i->...", a, b)[..., None] / a.shape[-1]
