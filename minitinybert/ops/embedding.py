"""Embedding (BERT, section 3):  y_t = W[id_t] + P[position_t] + S[segment_t]      words, positions and segments"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused


class Ids(NamedTuple):
    """Which row of each table a token looks up: integers (...), checked where they come in."""

    words: Array
    positions: Array
    segments: Array


class Tables(NamedTuple):
    words: Array  # W (V, d)
    positions: Array  # P (positions, d)
    segments: Array  # S (segments, d)


class Cache(NamedTuple):
    ids: Ids
    rows: tuple[int, int, int]  # how many rows each table has


def forward(ids: Ids, tables: Tables) -> tuple[Array, Cache]:
    """ids (...) in the tables' range -> y (..., d)."""
    W, P, S = tables
    y = W[ids.words]
    y += P[ids.positions]
    y += S[ids.segments]
    return y, Cache(ids, (len(W), len(P), len(S)))


def backward(dy: Array, cache: Cache, out: Tables | None = None, padding_idx: int | None = None) -> Tables:
    """dy (..., d) -> dW (V, d), dP (positions, d), dS (segments, d); *added* into `out` where
    given.

    ∂y_t/∂W[v] = 1 where id_t = v, else 0, so  dW[v] = Σ_{t: id_t = v} dy_t ; the same for P and S.
    padding_idx: a word whose look-ups give its row nothing, as PyTorch's nn.Embedding has it.
    """
    xp, d = array_module(dy), dy.shape[-1]
    if out is None:
        out = Tables(*(xp.zeros((rows, d), dy.dtype) for rows in cache.rows))
    before = None if padding_idx is None else out.words[padding_idx].copy()  # a tied decoder's share, which stays
    for table, ids in zip(out, cache.ids, strict=True):
        add_rows(table, ids.reshape(-1), dy.reshape(-1, d))
    if before is not None:
        out.words[padding_idx] = before
    return out


@fused
def add_rows(table: Array, ids: Array, rows: Array) -> None:
    """table[ids[t]] += rows[t] for every t, ids repeated or not. table (V, d), ids (T,), rows (T,
    d)."""
    if not len(ids):
        return
    xp = array_module(ids)
    order = xp.argsort(ids, kind="stable")  # rows of one id side by side: their sum has one order, and no atomics
    ordered = ids[order]
    starts = xp.flatnonzero(xp.concatenate([xp.ones(1, bool), ordered[1:] != ordered[:-1]]))
    table[ordered[starts]] += xp.add.reduceat(rows[order], starts, axis=0)
