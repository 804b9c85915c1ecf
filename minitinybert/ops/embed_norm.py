"""BERT's first layer (BERT, section 3):  y = dropout(LayerNorm(W[id_t] + P[position_t] + S[segment_t]))

Its backward ends at what was looked up, e: embedding.py has the way from there into the tables,
which a step goes only once.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, fused
from . import dropout, embedding, layer_norm
from .embedding import Ids, Tables


class Cache(NamedTuple):
    lookup: embedding.Cache
    norm: layer_norm.Cache
    dropout: dropout.Cache


@fused
def forward(
    ids: Ids, tables: Tables, gain: Array, bias: Array, eps: float, p: float = 0.0, keys: Array | None = None
) -> tuple[Array, Cache]:
    """ids (...) in the tables' range, gain γ, bias β (d,), dropout with probability p by row keys
    (...) or None -> y (..., d)."""
    e, lookup = embedding.forward(ids, tables)
    z, norm = layer_norm.forward(e, gain, bias, eps)
    y, dropped = dropout.forward(z, p, keys)
    return y, Cache(lookup, norm, dropped)


@fused
def backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy (..., d) -> de (..., d), dγ, dβ (d,).

    The chain rule through the forward's last two lines: dropout is diagonal, dz = dy m/(1 − p); de,
    dγ and dβ are layer norm's of dz.
    """
    return layer_norm.backward(dropout.backward(dy, cache.dropout), cache.norm)
