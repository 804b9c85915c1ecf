"""A student's embeddings at the start: those nearest to the teacher's, and the map that belongs to them.

The embedding loss (eq. 9) is least where E^S W_e is the best approximation of E^T of the student's
rank. That is known without training (Eckart and Young, 1936): the teacher's embeddings, written in
their first principal directions. General distillation learns it too, but a word at a time, and only
of the words it meets.

What the loss compares comes out of layer normalisation; of the teacher, d wide, it is

    e_T = γ (x − mean(x))/σ(x) + β,      x = word + position + type

With the d′ − 1 principal directions P (d × (d′−1)) of the rows γ (x − mean(x)), and an orthonormal
basis B ((d′−1) × d′) of what has no mean in the student's space, B 1 = 0, the student's tables are

    table_S = γ (table − mean of each row) P B

A row of the student then has no mean, so that layer normalisation with γ_S = 1 only divides it, by
σ(x_S). Where κ = σ(x)/σ(x_S) is the same for each row, as it is where γ is constant and P leaves
nothing out, the student's rows are the teacher's in other coordinates. The direction u = 1/√d′ is
free for what β has outside of P:

    β_S = κ (β P B + |β − β P Pᵀ| u)      e_S = κ γ (x − mean(x))/σ(x) P B + β_S

Elsewhere κ is its least-squares value, and so is W_e. Means and sums run over the tokens of a sample
of the text that is distilled on, where frequent words count for more, and each word of the
vocabulary once more. The hidden states are sums on top of the embeddings, so that W_h, or whatever
maps the recipe has, start from W_e too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..engine.batch import Batch
from ..engine.random import generator
from ..model.bert import Bert, tables
from ..model.parameters import Parameters
from ..ops import layer_norm

_GAIN, _SHIFT = "embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"


class _Rows(NamedTuple):
    """Which row of each table the sampled tokens look up, (n,) each."""

    word: np.ndarray
    position: np.ndarray
    token_type: np.ndarray


def nearest_embeddings(student: Bert, teacher: Bert, sample: Batch, seed: int) -> np.ndarray:
    """Write the student's embeddings, and return W_e (d, d′), in the student's dtype.

    Both are on the host and have the same vocabulary, positions and types; the student's width d′ is
    at most the teacher's d. sample: of what is distilled on. seed: of B.
    """
    T, S = teacher.parameters, student.parameters
    rows = _rows(sample, student.config.vocab_size)
    centred = [_without_mean(table) * T[_GAIN] for table in tables(T)]
    x = sum(table[ids] for table, ids in zip(centred, rows, strict=True))
    P, B = _directions(x.T @ x, student.config.hidden_size, seed)
    into = P @ B
    for own, table in zip(tables(S), centred, strict=True):
        own[...] = table @ into
    S[_GAIN][...], S[_SHIFT][...] = 1, 0
    shift = T[_SHIFT].astype(np.float64)
    outside = np.linalg.norm(shift - shift @ P @ P.T) / np.sqrt(student.config.hidden_size)
    e_T, e_S = _embedded(teacher, rows), _embedded(student, rows)
    turned = (e_T - shift) @ into
    S[_SHIFT][...] = shift_S = np.vdot(turned, e_S) / np.vdot(turned, turned) * (shift @ into + outside)
    e_S += shift_S
    W: np.ndarray = (np.linalg.pinv(e_S.T @ e_S, hermitian=True) @ (e_S.T @ e_T)).T
    return W.astype(S.flat.dtype)


def _rows(sample: Batch, V: int) -> _Rows:
    """Those of the sample's real tokens, then each word once, in places of the sample's."""
    there = slice(None) if sample.attention_mask is None else np.flatnonzero(sample.attention_mask)
    seen = [ids[there] for ids in (sample.input_ids, sample.position_ids, sample.token_type_ids)]
    places = np.arange(V) % len(seen[0])
    return _Rows(np.concatenate([seen[0], np.arange(V)]), *(np.concatenate([ids, ids[places]]) for ids in seen[1:]))


def _directions(squares: np.ndarray, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """P and B, of the sums of squares and products (d, d) of rows without their means."""
    _, directions = np.linalg.eigh(squares)  # by increasing variance
    draws = generator(seed, *b"nearest_embeddings").standard_normal((width, width))
    draws[:, 0] = 1
    basis = np.linalg.qr(draws)[0][:, 1:].T
    return directions[:, ::-1][:, : width - 1], basis


def _embedded(model: Bert, rows: _Rows) -> np.ndarray:
    """What the embeddings say of each token, (n, d) float64."""
    P: Parameters = model.parameters
    x = sum(table[ids].astype(np.float64) for table, ids in zip(tables(P), rows, strict=True))
    e: np.ndarray = layer_norm.forward(x, P[_GAIN].astype(np.float64), P[_SHIFT].astype(np.float64), model.config.layer_norm_eps)[0]
    return e


def _without_mean(table: np.ndarray) -> np.ndarray:
    wide = table.astype(np.float64)
    centred: np.ndarray = wide - wide.mean(axis=-1, keepdims=True)
    return centred
