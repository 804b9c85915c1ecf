"""BERT's first layer (BERT, section 3):  y = dropout(LayerNorm(W[id_t] + P[position_t] + S[segment_t]))

Its backward ends at what was looked up, e: embedding.py has the way from there into the tables, which a step goes only once.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, fused
from ..engine.memory import added
from . import dropout, embedding, layer_norm


class Cache(NamedTuple):
    lookup: embedding.Cache
    norm: layer_norm.Cache
    dropout: dropout.Cache


@fused
def forward(
    word_ids: Array,
    position_ids: Array,
    segment_ids: Array,
    W: Array,
    P: Array,
    S: Array,
    gain: Array,
    bias: Array,
    eps: float,
    p: float = 0.0,
    keys: Array | None = None,
    keep_cache: bool = True,
) -> tuple[Array, Cache]:
    """ids (...) integers in range; tables W (V, d), P (positions, d), S (segments, d); gain γ, bias β (d,); dropout with probability p
    by row keys (...) or None -> y (..., d). keep_cache False: without x̂ and σ, for a forward pass alone."""
    e, lookup = embedding.forward(word_ids, position_ids, segment_ids, W, P, S)
    z, norm = layer_norm.forward(e, gain, bias, eps, keep_cache)
    y, dropped = dropout.forward(z, p, keys)
    return y, Cache(lookup, norm, dropped)


@fused
def backward(dy: Array, cache: Cache, out: tuple[Array, Array] | None = None, also: tuple[Array, ...] = ()) -> tuple[Array, Array, Array]:
    """dy (..., d) -> de (..., d), dγ, dβ (written into `out` where given). `also`: further terms of dy, (..., d) each.

    The chain rule through the forward's last two lines: dropout is diagonal, dz = dy m/(1 − p); de, dγ and dβ are layer norm's of dz.
    """
    return layer_norm.backward(dropout.backward(added(dy, *also), cache.dropout), cache.norm, out)
