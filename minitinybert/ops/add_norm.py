"""Add & Norm (paper section 2), with the bias of the linear map before it:  y = LayerNorm(x + dropout(a + b))

x is what goes round the sub-layer, a b what comes through it.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused
from ..engine.memory import added, new, row_blocks
from . import dropout, layer_norm


class Cache(NamedTuple):
    dropout: dropout.Cache
    norm: layer_norm.Cache


@fused
def forward(
    a: Array,
    b: Array,
    x: Array,
    gain: Array,
    bias: Array,
    eps: float,
    p: float = 0.0,
    keys: Array | None = None,
    keep_cache: bool = True,
) -> tuple[Array, Cache]:
    """a, x (T, d), b, gain γ, bias β (d,), dropout with probability p by row keys (T,) or None -> y (T, d).
    keep_cache False: without x̂ and σ, for a forward pass alone."""
    xp = array_module(a)
    y = new(a.shape, a)
    cache = Cache(dropout.draw(a.shape, p, keys), layer_norm.unset(a, gain, keep_cache))
    for rows in row_blocks(a):
        s = xp.add(a[rows], b, out=new(a[rows].shape, a))
        s = dropout.backward(s, dropout.part(cache.dropout, rows))
        s += x[rows]
        layer_norm.normalise(s, bias, eps, y[rows], layer_norm.part(cache.norm, rows))
    return y, cache


@fused
def backward(
    dy: Array, cache: Cache, out: tuple[Array, Array, Array] | None = None, also: tuple[Array, ...] = ()
) -> tuple[Array, Array, Array, Array, Array]:
    """dy (T, d) -> da, db, dx, dγ, dβ; db, dγ and dβ are written into `out` where given. `also`: further terms of dy, (T, d) each.

    Let s = x + dropout(a + b) and ds come from layer norm's backward. Both terms of the sum get it: dx = ds, and through
    dropout, which is diagonal, da = ds m/(1 − p); b was added to every row: db = Σ_t da_t.
    """
    db, dgain, dbias = out if out is not None else (None, None, None)
    dx, dgain, dbias = layer_norm.backward(added(dy, *also), cache.norm, None if out is None else (dgain, dbias))  # type: ignore[arg-type]
    da = dropout.backward(dx, cache.dropout)
    return da, array_module(da).sum(da, axis=0, out=db), dx, dgain, dbias
