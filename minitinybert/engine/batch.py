"""A batch of sentences as the encoder sees it: one row a token, and the runs of equal length that
attention works on.

    padded   one run, every sentence as long as the longest, attention_mask says which rows are real
    packed   no padding: sentences sorted by length, one run for each length, attention_mask None

All that is not attention sees only rows, so both are one code. Letters: S sentences, T rows
(tokens), L a sentence's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .device import Array, array_module, move


class Run(NamedTuple):
    """`n` sentences of `length` rows each, one after the other from row `start`."""

    start: int
    n: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.n * self.length


class Totals(NamedTuple):
    """What the means of a whole batch divide by. A share of a batch keeps the whole's, so that the
    shares' losses add up."""

    sentences: int
    tokens: int  # real rows
    pairs: int  # Σ over sentences of (real rows)²: the entries of one head's score matrices
    rows: int  # all rows, padding too
    row_pairs: int  # Σ length², padding too
    masked: int = 0  # rows whose word, or label, is to be predicted

    @classmethod
    def of_packed(cls, lengths: np.ndarray) -> Totals:
        """Of sentences of these lengths (S,) without padding."""
        rows, squares = int(lengths.sum()), int((lengths.astype(np.int64) ** 2).sum())
        return cls(len(lengths), rows, squares, rows, squares)


class Masked(NamedTuple):
    """The rows of a batch whose word is to be predicted, or the label of whose word. `ends` stays
    on the host: a share finds its own without asking a device."""

    rows: Array  # (n,) ascending
    labels: Array  # (n,) the words, or classes
    ends: np.ndarray  # (S,) how many of the rows lie in this sentence and those before it

    def share(self, first: int, last: int, start: int) -> Masked:
        """Those of sentences first … last − 1, whose first row is `start`."""
        before = int(self.ends[first - 1]) if first else 0
        own = slice(before, int(self.ends[last - 1]))
        return Masked(self.rows[own] - start, self.labels[own], self.ends[first:last] - before)


@dataclass(frozen=True)
class Batch:
    input_ids: Array  # (T,) integers
    token_type_ids: Array  # (T,) integers
    position_ids: Array  # (T,) integers
    runs: tuple[Run, ...]
    attention_mask: Array | None  # (T,) bool, True for real rows; None: all are
    row_ids: Array  # (T,) uint64, sentence·2¹⁶ + position: what dropout is keyed by
    cls_rows: Array  # (S,) the row of each sentence's first token
    totals: Totals
    sentences: np.ndarray  # (S,) host: which example stands at each place, as the data set counts them
    labels: Array | None = None  # (S,) classes or numbers, or (S, 2) where an answer begins and ends, in the batch's order
    masked: Masked | None = None

    @property
    def size(self) -> int:
        """S, the number of sentences."""
        return len(self.sentences)

    @cached_property
    def longest(self) -> int:
        """Rows of the longest sentence."""
        return max(run.length for run in self.runs)

    @cached_property
    def row_pairs(self) -> int:
        """Σ length² over the sentences, padding too: the scores of one head."""
        return sum(run.n * run.length**2 for run in self.runs)

    @property
    def lengths(self) -> np.ndarray:
        """(S,) rows of each sentence, in the batch's order."""
        return np.repeat([run.length for run in self.runs], [run.n for run in self.runs])

    def to(self, xp: Any) -> Batch:
        """The same batch with its arrays in `xp` (numpy or cupy): to a device all in one copy."""
        if array_module(self.input_ids) is xp:
            return self
        named: dict[str, Any] = {name: getattr(self, name) for name in (*_ROW_FIELDS, "cls_rows", "labels")}
        masked = None if self.masked is None else (self.masked.rows, self.masked.labels)
        there = iter(move([*named.values(), *(masked or ())], xp))
        arrays: dict[str, Any] = {name: next(there) for name in named}
        return replace(self, **arrays, masked=self.masked and self.masked._replace(rows=next(there), labels=next(there)))

    def share(self, first: int, last: int) -> Batch:
        """Sentences first … last − 1 as a batch, whose losses are its share of the whole's. (Where
        to cut: training/cut.py.)"""
        lengths = self.lengths
        start = int(lengths[:first].sum())
        stop = start + int(lengths[first:last].sum())
        rows: dict[str, Any] = {name: a if (a := getattr(self, name)) is None else a[start:stop] for name in _ROW_FIELDS}
        return replace(
            self,
            **rows,
            runs=_runs(lengths[first:last]),
            cls_rows=self.cls_rows[first:last] - start,
            sentences=self.sentences[first:last],
            labels=None if self.labels is None else self.labels[first:last],
            masked=self.masked and self.masked.share(first, last, start),
        )


_ROW_FIELDS = ("input_ids", "token_type_ids", "position_ids", "attention_mask", "row_ids")


def _runs(lengths: np.ndarray) -> tuple[Run, ...]:
    """Runs of sentences that stand side by side and are equally long."""
    runs: list[Run] = []
    start = 0
    for length in lengths.tolist():
        if runs and runs[-1].length == length:
            runs[-1] = runs[-1]._replace(n=runs[-1].n + 1)
        else:
            runs.append(Run(start, 1, length))
        start += length
    return tuple(runs)


def check_range(name: str, ids: np.ndarray, count: int, what: str = "rows") -> None:
    """InputError unless all of `ids`, on the host, are integers from 0 to count − 1: numbers of the
    model's rows, or of `what`."""
    if ids.dtype.kind not in "iu":
        raise InputError(f"{name} has dtype {ids.dtype}; integers are needed")
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    if low < 0 or high >= count:
        raise InputError(f"{name} holds {low if low < 0 else high}, but the model has {what} 0 to {count - 1}")


def packed(
    input_ids: Sequence[np.ndarray],
    token_type_ids: Sequence[np.ndarray],
    sentences: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Batch:
    """A batch without padding. input_ids, token_type_ids: S arrays (L_s,); the sentences are put in
    order of length.

    `sentences` (S,) numbers the examples (0 … S-1 without it); `labels` (S,) follow the order of
    the sentences.
    """
    sentences = np.arange(len(input_ids)) if sentences is None else np.asarray(sentences)
    lengths = np.array([len(ids) for ids in input_ids])
    if not len(lengths) or not lengths.all():
        raise InputError("a batch needs at least one sentence, and every sentence at least one token")
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    ends = np.cumsum(lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    return Batch(
        input_ids=np.concatenate([input_ids[i] for i in order]).astype(np.int32, copy=False),
        token_type_ids=np.concatenate([token_type_ids[i] for i in order]).astype(np.int32, copy=False),
        position_ids=positions.astype(np.int32),
        runs=_runs(lengths),
        attention_mask=None,
        row_ids=(np.repeat(sentences[order].astype(np.uint64), lengths) << np.uint64(16)) + positions.astype(np.uint64),
        cls_rows=ends - lengths,
        totals=Totals.of_packed(lengths),
        sentences=sentences[order],
        labels=None if labels is None else np.asarray(labels)[order],
    )


def asking(batch: Batch, places: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Batch:
    """The host batch, which asks for the labels of the tokens at `places` of each sentence: S arrays
    (n_s,), ascending, from 0; `labels` likewise; both in the batch's order."""
    rows = np.concatenate([first + own for first, own in zip(batch.cls_rows, places, strict=True)])
    masked = Masked(rows, np.concatenate(labels), np.cumsum([len(own) for own in places]))
    return replace(batch, masked=masked, totals=batch.totals._replace(masked=len(rows)))


def padded_to(
    L: int,
    input_ids: Sequence[np.ndarray],
    token_type_ids: Sequence[np.ndarray],
    sentences: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    pad_id: int = 0,
) -> Batch:
    """Sentences of up to L tokens, as `packed` takes them, as one rectangle (B, L); padding has id
    `pad_id`."""
    rectangle = np.zeros((3, len(input_ids), L), np.int32)
    rectangle[0] = pad_id
    for row, (ids, types) in enumerate(zip(input_ids, token_type_ids, strict=True)):
        rectangle[:, row, : len(ids)] = ids, np.ones_like(ids), types  # ids, mask, segments
    return padded(rectangle[0], rectangle[1], rectangle[2], sentences, labels)


def padded(
    input_ids: np.ndarray,
    attention_mask: np.ndarray | None = None,
    token_type_ids: np.ndarray | None = None,
    sentences: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Batch:
    """A batch as one rectangle. input_ids, attention_mask (1 real, 0 padding), token_type_ids: (B,
    L) integers on the host."""
    input_ids = np.asarray(input_ids)
    if input_ids.ndim != 2 or not input_ids.size:
        raise InputError(f"input_ids has shape {input_ids.shape}: (B, L) with at least one row and one token is needed")
    B, L = input_ids.shape
    mask = np.ones((B, L), bool) if attention_mask is None else np.asarray(attention_mask).astype(bool)
    types = np.zeros((B, L), np.int32) if token_type_ids is None else np.asarray(token_type_ids)
    for name, array in (("attention_mask", mask), ("token_type_ids", types)):
        if array.shape != (B, L):
            raise InputError(f"{name} has shape {array.shape}, input_ids {input_ids.shape}: they must be equal")
    sentences = np.arange(B) if sentences is None else np.asarray(sentences)
    real = mask.sum(1).astype(np.int64)
    positions = np.tile(np.arange(L), B)
    return Batch(
        input_ids=input_ids.reshape(-1),
        token_type_ids=types.reshape(-1),
        position_ids=positions,
        runs=(Run(0, B, L),),
        attention_mask=None if mask.all() else mask.reshape(-1),
        row_ids=(np.repeat(sentences.astype(np.uint64), L) << np.uint64(16)) + positions.astype(np.uint64),
        cls_rows=np.arange(B) * L,
        totals=Totals(B, int(real.sum()), int((real**2).sum()), B * L, B * L * L),
        sentences=sentences,
        labels=None if labels is None else np.asarray(labels),
    )
