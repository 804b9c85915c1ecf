"""Encoded examples, and the order they are trained in: batches of about equal length, a function of
(seed, epoch) alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..engine.batch import Batch, packed, padded_to
from ..engine.random import generator

_POOL = 50  # batches' worth of shuffled examples that are sorted by length together


class TrainingExamples(Protocol):
    """What the training loop asks of its examples: as many at every epoch, each a function of its
    index and the epoch alone."""

    @property
    def settings(self) -> Mapping[str, Any]: ...  # what must be the same for a run to go on

    @property
    def separable(self) -> bool: ...  # whether a batch's totals follow from the lengths: packed, and nothing is masked

    def __len__(self) -> int: ...

    def lengths(self, epoch: int) -> np.ndarray: ...  # (n,) rows an example

    def batch(self, indices: np.ndarray, epoch: int = 0) -> Batch: ...


@dataclass(frozen=True)
class EncodedExamples:
    """n examples as ids: sequences of (L_i,) int32, and labels (n,) int64 classes or float64
    numbers, or None."""

    input_ids: Sequence[np.ndarray]
    token_type_ids: Sequence[np.ndarray]
    labels: np.ndarray | None = None
    pad_to: int | None = None  # batches are rectangles of this length instead of packed (recipes whose means count padding)
    pad_id: int = 0  # of [PAD]

    def __repr__(self) -> str:
        tokens = sum(map(len, self.input_ids))
        return f"{type(self).__name__}({len(self)} examples, {tokens:,} tokens, {'' if self.labelled else 'not '}labelled)"

    @property
    def settings(self) -> dict[str, Any]:
        sum = zlib.crc32(b"" if self.labels is None else self.labels.tobytes())
        for ids in (*self.input_ids, *self.token_type_ids):
            sum = zlib.crc32(ids.tobytes(), zlib.crc32(len(ids).to_bytes(4, "little"), sum))
        return {"pad_to": self.pad_to, "training data": f"{sum:08x}"}

    @property
    def labelled(self) -> bool:
        """Whether there is anything to compare answers with."""
        return self.labels is not None

    @property
    def separable(self) -> bool:
        return self.pad_to is None

    def __len__(self) -> int:
        return len(self.input_ids)

    def lengths(self, epoch: int = 0) -> np.ndarray:
        """(n,) rows in a batch: where all are padded to one length, no batch is of short sentences
        alone."""
        return np.array([self.pad_to or len(ids) for ids in self.input_ids])

    def batch(self, indices: np.ndarray, epoch: int = 0) -> Batch:
        """The examples `indices` as a batch, the same at every epoch."""
        ids = [self.input_ids[i] for i in indices]
        types = [self.token_type_ids[i] for i in indices]
        labels = None if self.labels is None else self.labels[indices]
        if self.pad_to is None:
            return packed(ids, types, indices, labels)
        return padded_to(self.pad_to, ids, types, indices, labels, self.pad_id)


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, incomplete: bool = True) -> list[np.ndarray]:
    """Every example once: shuffled, cut into pools, each pool sorted by length and cut into
    batches, the batches shuffled. Without `incomplete`, a last batch that is smaller is left out.

    The same (lengths, batch_size, seed, epoch) give the same list: a resumed run needs no other
    state.
    """
    random = generator(seed, epoch, 0)
    order = random.permutation(len(lengths))
    pool = batch_size * _POOL
    batches = []
    for start in range(0, len(order), pool):
        members = order[start : start + pool]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    if not incomplete and batches and len(batches[-1]) < batch_size:
        batches.pop()
    return [batches[i] for i in random.permutation(len(batches))]


def by_length(lengths: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Every example once, sorted by length, in batches of at most `rows` tokens (at least one
    example): for evaluation."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= rows:
            stop += 1
        yield order[start:stop]
        start = stop
