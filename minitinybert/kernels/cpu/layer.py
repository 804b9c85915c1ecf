"""model/encoder.py's layer as a whole, of few rows of which only the output is wanted: what a
sentence asked by itself is.

A product of few rows is quicker the less of its weights' way is left to guess: they are kept by
tiles, each as wide as two vectors of the processor, in the order in which they are read. Rows share
nothing but keys and values. So the threads that a single job has take some rows each, first for keys
and values, then for all that follows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...engine.batch import Batch
from ...engine.device import Array
from ...engine.parallel import at_once
from ...model.config import Config
from ...model.encoder import Keep, LayerArrays
from . import passes
from .compiled import fits

_FEW = 128  # rows; of many more the BLAS's own copies of the weights pay
_ROWS = 8  # a thread's, at least


class Tiled(NamedTuple):
    """A layer's weights by tiles, (tiles, d_in, width) each, biases and norms beside them."""

    key_value: tuple[Array, ...]  # W_k, b_k, W_v, b_v
    matrices: tuple[Array, ...]  # W_q, W_o, W_1, W_2
    biases: tuple[Array, ...]
    norms: tuple[Array, ...]  # γ, β after the attention, γ, β of the output

    @classmethod
    def of(cls, W: LayerArrays) -> Tiled:
        (query, key, value, output), up, down = W.attention, W.up, W.down
        pairs = query, output, up, down
        return cls(
            tuple(a for M, b in (key, value) for a in (tiled(M), b)),
            tuple(tiled(M) for M, _ in pairs),
            tuple(b for _, b in pairs),
            (*W.attention_norm, *W.output_norm),
        )


def tiled(W: Array) -> Array:
    """W (d_out, d_in) of at least a tile's width -> (tiles, d_in, width); the last tile has the last
    columns of Wᵀ."""
    width = passes.tile_width(W.dtype)
    starts = [min(start, len(W) - width) for start in range(0, len(W), width)]
    return np.stack([np.ascontiguousarray(W[start : start + width].T) for start in starts])


def forward(x: Array, W: LayerArrays, batch: Batch, config: Config, keys: Array | None, rows: Array | None, keep: Keep) -> Any:
    if W.reading is None or keys is not None or keep.scores or keep.cache or len(x) > _FEW:
        return NotImplemented
    (f, d), dtype, T = W.up[0].shape, W.up[0].dtype, len(x)  # a reading model's arrays are all of one kind, made by one layout
    asking = x if rows is None else x[rows]
    if not fits(dtype, (x, (T, d)), (asking, (len(asking), d))) or min(d, f) < passes.tile_width(dtype):
        return NotImplemented
    if Tiled not in W.reading:
        W.reading[Tiled] = Tiled.of(W)
    kept: Tiled = W.reading[Tiled]
    mask = batch.attention_mask
    masked = np.zeros(T, dtype) if mask is None else np.where(mask, dtype.type(0), np.finfo(dtype).min)
    k, v, z, runs = np.empty((d, T), dtype), np.empty((T, d), dtype), np.empty_like(asking), np.array(batch.runs)
    heads, eps, tanh = config.num_attention_heads, config.layer_norm_eps, config.gelu_approximation == "tanh"
    at_once(lambda first, last: passes.keys_and_values(x, *kept.key_value, first, last, k, v), T, _ROWS)
    given = asking, k, v, masked, runs, heads, *kept[1:], eps, tanh
    at_once(lambda first, last: passes.few_rows(*given, first, last, z), len(asking), _ROWS)
    return z, None, None
