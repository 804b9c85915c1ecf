"""The words nearest to many words at once, among word vectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..data.vectors import WordVectors
from .largest import largest

# Rows that stand for no word, in lower case.
_NO_WORD = re.compile(r"<unk>|<s>|</s>|<pad>|<mask>|\[(unk|pad|cls|sep|mask|unused\d+)\]|.*\s.*|", re.DOTALL)
_SCORES = 1 << 24  # cosines held at once
_MARGIN = 32  # further words whose cosine is computed exactly, so that rounding in the GEMM cannot decide who is in


class Neighbours:
    """What is nearest among the words of `table`. special: what a tokenizer reads as something else
    than a word. Words that hold it are nobody's neighbours, nor are [UNK] and its like, words with
    white space in them, and vectors of zeros."""

    def __init__(self, table: WordVectors, special: Sequence[str] = ()):
        self.table = table
        holds = re.compile("|".join(map(re.escape, special)) or r"(?!)").search
        hidden = [i for i, word in enumerate(table.words) if word not in table or _NO_WORD.fullmatch(word.lower()) or holds(word)]
        self._hidden = np.array(hidden, np.int64)

    def nearest(self, words: Sequence[str], k: int) -> list[list[str]]:
        """For each word the k others of highest cosine, nearest first; none for a word that has no
        vector.

        One GEMM for many words. The same answer whatever the words are asked together with; equal
        cosines in the table's order.
        """
        rows = [self.table.index[word] for word in words if word in self.table]
        found = dict(zip(rows, self._nearest(np.array(rows, np.int64), k), strict=True)) if rows else {}
        return [found[self.table.index[word]] if word in self.table else [] for word in words]

    def _nearest(self, rows: np.ndarray, k: int) -> Iterable[list[str]]:
        step = max(1, _SCORES // len(self.table.words))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            cosines = self.table.unit[part] @ self.table.unit.T
            cosines[:, self._hidden] = -np.inf
            cosines[np.arange(len(part)), part] = -np.inf
            for row, scores, near in zip(part, cosines, largest(cosines, k + _MARGIN), strict=True):
                near = near[scores[near] > -np.inf]
                exact = (self.table.unit[near].astype(np.float64) * self.table.unit[row]).sum(1)
                yield [self.table.words[i] for i in near[np.lexsort((near, -exact))[:k]]]
