"""Embedding:  y_t = W[id_t] + P[position_t] + S[segment_t]      (BERT: word, position and segment; LayerNorm is its own step)"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module
from ..engine.memory import add_rows, take_rows


class Cache(NamedTuple):
    word_ids: Array  # (...) integers
    position_ids: Array  # (...)
    segment_ids: Array  # (...)
    rows: tuple[int, int, int]  # V, positions, segments: how many rows each table has


def forward(word_ids: Array, position_ids: Array, segment_ids: Array, W: Array, P: Array, S: Array) -> tuple[Array, Cache]:
    """ids (...) integers in range; W (V, d), P (positions, d), S (segments, d) -> y (..., d)."""
    y = take_rows(W, word_ids)
    y += take_rows(P, position_ids)
    y += take_rows(S, segment_ids)
    return y, Cache(word_ids, position_ids, segment_ids, (len(W), len(P), len(S)))


def backward(dy: Array, cache: Cache, out: tuple[Array, Array, Array] | None = None) -> tuple[Array, Array, Array]:
    """dy (..., d) -> dW (V, d), dP (positions, d), dS (segments, d); *added* into `out` where given.

    ∂y_t/∂W[v] = 1 where id_t = v, else 0, so  dW[v] = Σ_{t: id_t = v} dy_t ; the same for P and S.
    """
    xp, d = array_module(dy), dy.shape[-1]
    if out is None:
        out = tuple(xp.zeros((rows, d), dy.dtype) for rows in cache.rows)  # type: ignore[assignment]
    for table, ids in zip(out, cache[:3], strict=True):  # type: ignore[arg-type]
        add_rows(table, ids.reshape(-1), dy.reshape(-1, d))
    return out  # type: ignore[return-value]
