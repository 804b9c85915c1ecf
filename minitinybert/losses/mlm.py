"""Masked-language-model loss (BERT):  L = −(1/n) Σ over masked positions of log p_{y}      n the number of masked positions

The loss as it is defined, on the logits of all rows; labels are −100 where nothing is asked, as in
Hugging Face's data. Training makes no such B×L×V array: `objectives.MaskedLM` has the logits of the
masked rows alone, on which this is cross_entropy.py's with n as its count, and is held against this
file by the tests.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module
from . import cross_entropy

IGNORE = -100


class Cache(NamedTuple):
    rows: Array  # (n,) where the labels are, in the flattened logits
    shape: tuple[int, ...]
    entropy: cross_entropy.Cache


def forward(z: Array, labels: Array, count: float | None = None) -> tuple[Array, Cache]:
    """Logits z (..., V), labels (...) integers, −100 to be ignored -> loss () (0 where nothing is
    asked)."""
    xp = array_module(z)
    flat = labels.reshape(-1)
    rows = xp.flatnonzero(flat != IGNORE)
    count = max(len(rows), 1) if count is None else count
    loss, entropy = cross_entropy.forward(z.reshape(-1, z.shape[-1])[rows], flat[rows], count)
    return loss, Cache(rows, z.shape, entropy)


def backward(dloss: float, cache: Cache) -> Array:
    """dloss () -> dz (..., V): the cross-entropy's gradient on the masked rows, zero on all others,
    which L does not contain."""
    dz_rows = cross_entropy.backward(dloss, cache.entropy)
    xp = array_module(dz_rows)
    dz = xp.zeros(cache.shape, dz_rows.dtype)
    dz.reshape(-1, cache.shape[-1])[cache.rows] = dz_rows
    return dz
