"""Masked positions (BERT, section 3.1 and appendix A.1): of each sequence of L tokens max(least,
round(rate·L)) are chosen, [CLS] and [SEP] never; 80 % of them become [MASK], 10 % a random word, 10
% stay.

    Masking(…)                    masked language modelling
    Masking(…, rate=0)            one position a sequence: what `masked_lm_prob 0` of the released TinyBERT code does
    None in place of a Masking    no corruption at all

A draw is keyed by (key, example, position), so it depends neither on the batch nor on what was
drawn before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..engine.batch import Batch, Masked
from ..engine.random import row_keys
from ..errors import InputError


@dataclass(frozen=True)
class Masking:
    """mask_id: [MASK]; special: ids that are never chosen; mask_fraction, random_fraction: of the
    chosen, how many become what."""

    mask_id: int
    vocab_size: int
    special: tuple[int, ...]
    rate: float = 0.15
    least: int = 1
    mask_fraction: float = 0.8
    random_fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise InputError(f"masking rate {self.rate}: a share from 0 (one position a sequence) to below 1 is needed")


def mask_tokens(ids: np.ndarray, row_ids: np.ndarray, masking: Masking, key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids (T,), row_ids (T,) uint64 as in a Batch (example·2¹⁶ + position, examples one after the
    other) -> the corrupted ids (T,), the chosen rows (n,) ascending, and the words that stood there
    (n,)."""
    rows = _choose(ids, row_ids, masking, key)
    chosen = row_ids[rows]
    drawn = (row_keys(key, chosen, 1) >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
    word = (row_keys(key, chosen, 2) % np.uint64(masking.vocab_size)).astype(ids.dtype)
    labels = ids[rows]
    corrupted = ids.copy()
    corrupted[rows] = np.where(drawn < masking.mask_fraction, masking.mask_id, labels)
    at_random = (drawn >= masking.mask_fraction) & (drawn < masking.mask_fraction + masking.random_fraction)
    corrupted[rows[at_random]] = word[at_random]
    return corrupted, rows, labels


def _choose(ids: np.ndarray, row_ids: np.ndarray, masking: Masking, key: int) -> np.ndarray:
    """The rows with the smallest random keys of each sequence, as many as are wanted and are not
    special. (n,) ascending."""
    sequence = row_ids >> np.uint64(16)
    starts = np.flatnonzero(np.r_[True, sequence[1:] != sequence[:-1]])
    lengths = np.diff(np.r_[starts, len(ids)])
    group = np.repeat(np.arange(len(starts)), lengths)
    ordinary = ~np.isin(ids, masking.special)
    wanted = np.maximum(masking.least, np.rint(masking.rate * lengths))
    wanted = np.minimum(wanted, np.add.reduceat(ordinary, starts, dtype=np.int64))
    order = np.lexsort((row_keys(key, row_ids), ~ordinary, group))
    rank = np.arange(len(ids)) - np.repeat(starts, lengths)
    return np.sort(order[rank < wanted[group]])


def mask_batch(batch: Batch, masking: Masking, key: int) -> Batch:
    """The host batch with corrupted ids, and what stood there in `masked`. Padding neither counts
    nor is chosen."""
    real = np.arange(len(batch.input_ids)) if batch.attention_mask is None else np.flatnonzero(batch.attention_mask)
    corrupted, rows, labels = mask_tokens(batch.input_ids[real], batch.row_ids[real], masking, key)
    ids, rows = batch.input_ids.copy(), real[rows]
    ids[real] = corrupted
    sentence_ends = np.append(batch.cls_rows[1:], len(ids))
    masked = Masked(rows, labels, np.searchsorted(rows, sentence_ends))
    return replace(batch, input_ids=ids, masked=masked, totals=batch.totals._replace(masked=len(rows)))
