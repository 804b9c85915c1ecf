"""Memory for arrays that come and go at every step, on the CPU: a block is kept when its array dies and serves the next one.

CuPy has such a pool of its own. NumPy asks the system each time, and the page faults of fresh memory cost about as much as the
arithmetic on it. So `new` takes large arrays from a pool, one a thread; code that uses it frees nothing and passes nothing around.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections import deque
from typing import Any

import numpy as np

from .device import Array, array_module, fused

_SMALL = 1 << 13  # bytes: below it the system is as quick
_WASTE = 1.5  # how much larger than asked for bytes may be
_LONG = 1 << 16  # returns, some fifty steps: bytes that nobody asked for in that time are given up when others are needed
BLOCK = 48 * 1024  # elements: passes over as many stay in a core's cache


def new(shape: tuple[int, ...] | int, like: Array, dtype: Any = None) -> Array:
    """An array of `shape`, its values not set, of the module and dtype of `like`."""
    xp, dtype = array_module(like), dtype or like.dtype
    if xp is not np:
        return xp.empty(shape, dtype)
    shape, dtype = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, buffer=_pool.take(size))


@fused
def added(x: Array, *terms: Array) -> Array:
    """x + all terms, of one shape, a new array; x itself where there are none."""
    if not terms:
        return x
    total = np.add(x, terms[0], out=new(x.shape, x))
    for term in terms[1:]:
        total += term
    return total


def row_blocks(x: Array) -> list[slice]:
    """Stretches of the rows of x (T, d) that several passes can work through while they are in the cache; all of it on a GPU."""
    rows = max(1, len(x)) if array_module(x) is not np else max(1, BLOCK // max(1, x.shape[-1]))
    return [slice(i, i + rows) for i in range(0, len(x), rows)]


def take_rows(table: Array, ids: Array) -> Array:
    """table[ids], of shape (*ids.shape, d). ids have been checked: one out of range takes the table's edge."""
    xp = array_module(table)
    if xp is not np:
        return table[ids]
    return np.take(table, ids, axis=0, out=new((*ids.shape, table.shape[-1]), table), mode="clip")


@fused
def sum_rows(x: Array, out: Array | None = None) -> Array:
    """Σ_t x[t] of x (T, d) -> (d,), `out` where given."""
    return np.sum(x, axis=0, out=out)


@fused
def add_rows(table: Array, ids: Array, rows: Array) -> None:
    """table[ids[t]] += rows[t] for every t, ids repeated or not. table (V, d), ids (T,), rows (T, d).

    Sorting the ids makes each table row one contiguous sum: quicker than `add.at`, and the order of the sum is fixed.
    """
    if not len(ids):
        return
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sums = np.add.reduceat(take_rows(rows, order), starts, axis=0, out=new((len(starts), rows.shape[-1]), rows))
    sums += take_rows(table, ordered[starts])
    table[ordered[starts]] = sums


class _Block(np.ndarray):
    """The bytes under an array. They go back to their pool when the last array on them is gone, on whatever thread that is.

    A subclass on bytes that are no array: NumPy lets a view of an array on an array of the same class hold the latter, past this.
    """

    returned: deque[bytearray]
    whole: bytearray

    def __del__(self) -> None:
        self.returned.append(self.whole)


class _Pool(threading.local):
    """The free bytes of a thread, by size. Only its own thread takes; any may return."""

    def __init__(self) -> None:
        self.clock = 0  # of returns
        self.free: list[tuple[int, int, bytearray]] = []  # (size, minus when they came back, bytes)
        self.returned: deque[bytearray] = deque()

    def take(self, size: int) -> _Block:
        """The smallest free bytes that are enough and not far more, of these the last to come back; else new ones."""
        while self.returned:
            whole = self.returned.popleft()
            self.clock += 1
            insort(self.free, (len(whole), -self.clock, whole))
        place = bisect_left(self.free, (size,))  # type: ignore[type-var]
        if place < len(self.free) and self.free[place][0] <= _WASTE * size:
            whole = self.free.pop(place)[2]
        else:
            self.free = [entry for entry in self.free if self.clock + entry[1] < _LONG]
            whole = bytearray(_rounded(size))
        block = _Block(len(whole), np.uint8, whole)
        block.returned, block.whole = self.returned, whole
        return block


def _rounded(size: int) -> int:
    """Up to the next of some eight sizes an octave: batches of nearly as many tokens then share bytes."""
    grain = 1 << max(size.bit_length() - 4, 0)
    return -(-size // grain) * grain


_pool = _Pool()
