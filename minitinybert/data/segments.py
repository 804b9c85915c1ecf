"""Training examples from a corpus: single segments, or BERT's pairs A/B; chosen by (seed, epoch),
fetched when they are asked for.

    single   [CLS] sentences [SEP]           as many consecutive sentences of a document as fit
    pairs    [CLS] A [SEP] B [SEP]           A some of them; B the rest, or (half of the time) the start of any sentence of another document

Of each epoch only an index is made (where each example's tokens lie); a batch reads them from the
memory-mapped corpus. A sentence that is too long is cut into equal parts, so single segments hold
every token once. In pairs, A and a true B together do too: unlike in Google's
create_pretraining_data, segments are filled without going over, so nothing is truncated. Like
there, a share of the examples (`short`) is aimed at a random smaller length, the sentences a random
B displaces come next, and A alone at a document's end gets a random B.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..engine.batch import Batch, packed, padded_to
from ..engine.random import generator, key
from ..errors import InputError
from .corpus import Corpus
from .masking import Masking, mask_batch

_BLOCK = 1 << 18  # sentences that are indexed at once; a segment ends where a block does
_PACK, _FIT, _MASK = range(3)  # what a random draw is for


class Index(NamedTuple):
    """Where the tokens of n examples lie in the corpus. `length_b` is 0 for a single segment."""

    start_a: np.ndarray  # (n,) int64
    length_a: np.ndarray  # (n,) int32
    start_b: np.ndarray  # (n,) int64
    length_b: np.ndarray  # (n,) int32
    is_random_next: np.ndarray  # (n,) bool

    def take(self, rows: np.ndarray) -> Index:
        return Index(*(field[rows] for field in self))


class Segments:
    """The examples of an epoch: a `TrainingExamples` for the training loop.

    There are as many at every epoch as at epoch 0: of an epoch with more, a few drawn at random are
    left out; of one with fewer, a few come twice. `dynamic` False: every epoch is epoch 0, masks
    included.
    """

    def __init__(
        self,
        corpus: Corpus,
        cls_id: int,
        sep_id: int,
        max_length: int = 128,
        seed: int = 0,
        pairs: bool = False,
        dynamic: bool = True,
        masking: Masking | None = None,
        short: float = 0.1,
        first: int = 0,
        last: int | None = None,
        pad_id: int | None = None,
    ):
        """Of the corpus's sentences first … last − 1 (None: all); pad_id: batches are
        rectangles of max_length, filled up with this id, instead of packed.

        InputError where max_length holds no text, or pairs find one document.
        """
        self.corpus, self.cls_id, self.sep_id = corpus, cls_id, sep_id
        self.max_length, self.pad_id = max_length, pad_id
        self.seed, self.pairs, self.dynamic, self.masking, self.short = seed, pairs, dynamic, masking, short
        self.first, self.last = first, len(corpus) if last is None else last
        self.room = max_length - (3 if pairs else 2)
        if self.room < 4:
            raise InputError(f"--max-length {max_length}: at least {max_length - self.room + 4} are needed to hold text")
        inner = corpus.documents[np.searchsorted(corpus.documents, first, "right") : np.searchsorted(corpus.documents, self.last)]
        self.documents = np.concatenate([[first], inner, [self.last]])
        if pairs and len(self.documents) < 3:
            raise InputError(
                "pairs need two documents at least, and there is one: put blank lines between documents, or use single segments"
            )
        self._index: tuple[int, Index] = (0, self._pack(0))
        self._n = len(self._index[1].start_a)

    def __len__(self) -> int:
        return self._n

    @property
    def settings(self) -> dict[str, Any]:
        """What the examples are a function of, besides corpus and seed: it must be the same for a
        run to go on."""
        masked = None if self.masking is None else self.masking.rate
        chosen = {"max_length": self.max_length, "pairs": self.pairs, "dynamic": self.dynamic, "masked": masked}
        return {**chosen, "sentences": [self.first, self.last], "tokens": self.corpus.num_tokens}

    @property
    def separable(self) -> bool:
        return self.pad_id is None and self.masking is None

    def index(self, epoch: int) -> Index:
        """The examples of an epoch; the last one asked for is kept."""
        epoch = epoch if self.dynamic else 0
        number, index = self._index
        if number != epoch:
            index = self._fit(self._pack(epoch), epoch)
            self._index = epoch, index
        return index

    def lengths(self, epoch: int) -> np.ndarray:
        """(n,) tokens of each example, [CLS] and [SEP] counted; of rectangles max_length."""
        if self.pad_id is not None:
            return np.full(len(self), self.max_length)
        index = self.index(epoch)
        return index.length_a + 2 + index.length_b + (index.length_b > 0)

    def example(self, i: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """input_ids (L,) and token_type_ids (L,), int32, not masked."""
        start_a, length_a, start_b, length_b, _ = (int(field[i]) for field in self.index(epoch))
        ids = np.empty(length_a + 2 + length_b + (length_b > 0), np.int32)
        ids[0], ids[1 : length_a + 1] = self.cls_id, self.corpus.tokens(start_a, start_a + length_a)
        ids[length_a + 2 : -1] = self.corpus.tokens(start_b, start_b + length_b)
        ids[length_a + 1] = ids[-1] = self.sep_id
        return ids, (np.arange(len(ids)) >= length_a + 2).astype(np.int32)

    def batch(self, indices: np.ndarray, epoch: int = 0) -> Batch:
        """The examples as a batch, masked where there is a Masking."""
        ids, types = zip(*(self.example(int(i), epoch) for i in indices), strict=True)
        if self.pad_id is None:
            batch = packed(ids, types, indices)
        else:
            batch = padded_to(self.max_length, ids, types, indices, pad_id=self.pad_id)
        if self.masking is not None:
            batch = mask_batch(batch, self.masking, key(self.seed, epoch if self.dynamic else 0, _MASK))
        return batch

    # ---------------------------------------------------------------------------------------------------------------- choosing

    def _fit(self, index: Index, epoch: int) -> Index:
        """As many examples as epoch 0 has."""
        n = len(index.start_a)
        order = generator(self.seed, epoch, _FIT).permutation(n)
        return index.take(np.sort(np.resize(order, self._n)))

    def _pack(self, epoch: int) -> Index:
        parts = list(self._blocks(epoch))
        return Index(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))

    def _blocks(self, epoch: int) -> Iterator[Index]:
        for first in range(self.first, self.last, _BLOCK):
            yield self._block(first, min(first + _BLOCK, self.last), generator(self.seed, epoch, _PACK, first))

    def _block(self, first: int, last: int, random: np.random.Generator) -> Index:
        """The examples of sentences first … last − 1.

        A unit is a sentence or a part of one. All that an example beginning at unit u would be is
        worked out for every u at once; then the first one's end says where the second begins, and
        so on.
        """
        units = _units(np.array(self.corpus.starts[first : last + 1]), self.room // 2 if self.pairs else self.room)
        U = len(units.starts)
        end = np.searchsorted(units.sentences, self._document_ends(first, last)[units.sentences], "left")
        aim = np.where(random.random(U) < self.short, random.integers(2, self.room, U, endpoint=True), self.room)
        v = np.searchsorted(units.stops, units.starts + aim, "right")
        v = np.minimum(np.maximum(v, np.arange(U) + 1), end)  # [u, v): the sentences that fit
        if not self.pairs:
            at = _walk(v)
            nothing = np.zeros(len(at), np.int64)
            return _index(units.starts[at], units.stops[v[at] - 1], nothing, nothing, nothing > 0)
        inside = v - np.arange(U) - 1
        a = np.arange(U) + 1 + (random.random(U) * inside).astype(np.int64)  # [u, a): A, of one unit at least; [a, v): a true B
        is_random = (random.random(U) < 0.5) | (inside == 0)
        at = _walk(np.where(is_random, a, v))
        start_a, stop_a, stop_b = units.starts[at], units.stops[a[at] - 1], units.stops[v[at] - 1]
        room = np.where(aim[at] > stop_a - start_a, aim[at], self.room) - (stop_a - start_a)
        other = self._other(first + units.sentences[at], room, random)
        is_random = is_random[at]
        return _index(start_a, stop_a, np.where(is_random, other[0], stop_a), np.where(is_random, other[1], stop_b), is_random)

    def _document_ends(self, first: int, last: int) -> np.ndarray:
        """For each sentence of a block, counted from `first`, the sentence that its document ends
        before."""
        return self.documents[np.searchsorted(self.documents, np.arange(first, last), "right")] - first

    def _other(self, sentences: np.ndarray, room: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """For each of `sentences` up to `room` tokens of another document, from a random sentence
        on: start and stop."""
        own = np.searchsorted(self.documents, sentences, "right") - 1
        other = random.integers(0, len(self.documents) - 2, len(own))
        other += other >= own
        first, last = self.documents[other], self.documents[other + 1]
        start = self.corpus.starts[first + (random.random(len(own)) * (last - first)).astype(np.int64)]
        stop = np.minimum(start + room, self.corpus.starts[last])
        whole = self.corpus.starts[np.searchsorted(self.corpus.starts, stop, "right") - 1]  # the end of the last whole sentence
        return start, np.where(whole > start, whole, stop)


class _Units(NamedTuple):
    starts: np.ndarray  # (U,) tokens
    stops: np.ndarray  # (U,)
    sentences: np.ndarray  # (U,) ascending, counted from the block's first


def _units(starts: np.ndarray, most: int) -> _Units:
    """Sentences starts[s] … starts[s + 1], those of more than `most` tokens cut into equal parts."""
    lengths = np.diff(starts)
    parts = -(-lengths // most)
    sentences = np.repeat(np.arange(len(lengths)), parts)
    within = np.arange(len(sentences)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = starts[sentences] + within * lengths[sentences] // parts[sentences]
    return _Units(begin, np.append(begin[1:], starts[-1]), sentences)


def _walk(after: np.ndarray) -> np.ndarray:
    """0, after[0], after[after[0]], … as far as it goes. after (U,): greater than its place."""
    following, visited, u = after.tolist(), [], 0
    while u < len(following):
        visited.append(u)
        u = following[u]
    return np.array(visited, np.int64)


def _index(start_a: np.ndarray, stop_a: np.ndarray, start_b: np.ndarray, stop_b: np.ndarray, is_random: np.ndarray) -> Index:
    lengths = ((stop - start).astype(np.int32) for start, stop in ((start_a, stop_a), (start_b, stop_b)))
    length_a, length_b = lengths
    return Index(start_a, length_a, start_b, length_b, is_random)
