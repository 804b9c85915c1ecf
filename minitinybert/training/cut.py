"""Where a batch is cut: between the ranks, on a rank between its threads, on a thread into shares
of some 1,024 tokens.

A share is some of a batch's sentences as a batch of their own (`Batch.share`), with about as many
rows as every other.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from ..data.batching import TrainingExamples
from ..engine.batch import Batch, Totals
from ..engine.ranks import Ranks

_ROWS = 1024  # tokens of a share, about: enough for the GEMMs, and a large batch's memory is that of its shares


def split(batch: Batch, count: int) -> list[Batch]:
    """Up to `count` shares of whole sentences."""
    if count == 1:
        return [batch]
    return [batch.share(first, last) for first, last in itertools.pairwise(_bounds(batch.lengths, count))]


def _bounds(lengths: np.ndarray, count: int) -> list[int]:
    """Where sentences of these lengths, one after the other, are cut into up to `count` shares: up
    to count + 1 numbers of sentences."""
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(1, count) * ends[-1] / count) + 1
    return sorted({0, *cuts.tolist(), len(ends)})


def thread_shares(batch: Batch, threads: int, rows: int | None = None) -> list[Batch]:
    """As many shares as threads, and so many times as many that each has some `rows` tokens (None:
    _ROWS), in turns; on a GPU the whole."""
    if not isinstance(batch.input_ids, np.ndarray):
        return [batch]
    return split(batch, threads * max(1, round(len(batch.input_ids) / (threads * (rows or _ROWS)))))


def rank_share(batch: Batch, ranks: Ranks) -> Batch | None:
    """This rank's share of a host batch; None where there are fewer sentences than ranks."""
    shares = split(batch, ranks.size)
    return shares[ranks.rank] if ranks.rank < len(shares) else None


def rank_share_of(examples: TrainingExamples, indices: np.ndarray, lengths: np.ndarray, epoch: int, ranks: Ranks) -> Batch | None:
    """This rank's share of the batch of examples `indices`, of all `lengths` (n,): made without the
    rest of it where its totals follow from the lengths, else cut from the whole."""
    if ranks.size == 1 or not examples.separable:
        return rank_share(examples.batch(indices, epoch), ranks)
    order = np.argsort(lengths[indices], kind="stable")  # as `packed` puts them
    bounds = _bounds(lengths[indices][order], ranks.size)
    own = indices[order[bounds[ranks.rank] : bounds[ranks.rank + 1]]] if ranks.rank + 1 < len(bounds) else indices[:0]
    return replace(examples.batch(own, epoch), totals=Totals.of_packed(lengths[indices])) if len(own) else None
