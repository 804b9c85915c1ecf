"""Layer normalisation (Ba et al. 2016):  y = γ x̂ + β,   x̂ = (x − μ)/σ,   μ = mean(x),   σ = √(mean((x − μ)²) + ε)

Means run over the last axis, of width d.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused
from ..engine.memory import new, row_blocks


class Cache(NamedTuple):
    x_hat: Array  # (..., d); None: not kept
    inverse_std: Array  # (..., 1)  1/σ; None: not kept
    gain: Array  # (d,)  γ


@fused
def forward(x: Array, gain: Array, bias: Array, eps: float, keep_cache: bool = True) -> tuple[Array, Cache]:
    """x (..., d), gain γ (d,), bias β (d,) -> y (..., d). keep_cache False: without x̂ and σ, for a forward pass alone."""
    y, cache = new(x.shape, x), unset(x, gain, keep_cache)
    rows_x, rows_y = (a.reshape(-1, x.shape[-1]) for a in (x, y))
    for rows in row_blocks(rows_x):
        normalise(rows_x[rows], bias, eps, rows_y[rows], part(cache, rows))
    return y, cache


def unset(x: Array, gain: Array, keep_cache: bool) -> Cache:
    """The cache of rows x (..., d), its values not set."""
    return Cache(new(x.shape, x), new((*x.shape[:-1], 1), x), gain) if keep_cache else Cache(None, None, gain)


def normalise(x: Array, bias: Array, eps: float, y: Array, cache: Cache) -> None:
    """The formula on rows x (T, d): into y, and into the cache's arrays where it has them."""
    xp = array_module(x)
    x_hat = xp.subtract(x, x.mean(axis=-1, keepdims=True), out=y if cache.x_hat is None else cache.x_hat)
    inverse_std = 1 / xp.sqrt(_mean_of_product(x_hat, x_hat) + eps)
    if cache.inverse_std is not None:
        cache.inverse_std[...] = inverse_std
    x_hat *= inverse_std
    xp.multiply(x_hat, cache.gain, out=y)
    y += bias


@fused
def backward(dy: Array, cache: Cache, out: tuple[Array, Array] | None = None) -> tuple[Array, Array, Array]:
    """dy (..., d) -> dx (..., d), dγ (d,), dβ (d,); dγ and dβ are written into `out` where given.

    dγ = Σ_t dy_t x̂_t,  dβ = Σ_t dy_t.  Let g = γ dy be the gradient at x̂. Within a row:
    ∂x̂_i/∂x_j = (δ_ij − 1/d − x̂_i x̂_j/d)/σ, since ∂μ/∂x_j = 1/d and ∂σ/∂x_j = x̂_j/d. So
    dx_j = Σ_i g_i ∂x̂_i/∂x_j = (g_j − mean(g) − x̂_j mean(g x̂))/σ :
    g, less its projections on 1 and on x̂, the two directions layer norm cannot see.
    """
    xp, d = array_module(dy), dy.shape[-1]
    dgain, dbias = out if out is not None else (new(d, dy), new(d, dy))
    rows_dy, dx = dy.reshape(-1, d), new(dy.shape, dy)
    rows_dx = dx.reshape(-1, d)
    xp.sum(rows_dy, axis=0, out=dbias)
    dgain[...] = 0
    for rows in row_blocks(rows_dy):
        x_hat, inverse_std, gain = part(cache, rows)
        product = xp.multiply(rows_dy[rows], x_hat, out=new(x_hat.shape, dy))
        dgain += product.sum(axis=0)
        g = xp.multiply(rows_dy[rows], gain, out=rows_dx[rows])
        projection = _mean_of_product(g, x_hat)
        g -= g.mean(axis=-1, keepdims=True)
        g -= xp.multiply(x_hat, projection, out=product)
        g *= inverse_std
    return dx, dgain, dbias


def part(cache: Cache, rows: slice) -> Cache:
    """The cache of some rows of (T, d)."""
    if cache.x_hat is None:
        return cache
    d = cache.x_hat.shape[-1]
    return Cache(cache.x_hat.reshape(-1, d)[rows], cache.inverse_std.reshape(-1, 1)[rows], cache.gain)


def _mean_of_product(a: Array, b: Array) -> Array:
    """mean(a b) over the last axis, kept as (T, 1), without an array for the product."""
    return array_module(a).einsum("ti,ti->t", a, b)[:, None] / a.shape[-1]
