"""What BERT would say in place of a word: the most probable words at a masked position, asked of
many sentences at once.

Sentences are packed by length, only the masked rows pass through the head, and an answer is kept
for when the same masked sentence comes again. Rounding depends on what shares a batch with a
sentence, so where the last word in and the first word out are nearly as probable, the sentence is
asked again by itself: an answer never depends on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, islice
from typing import NamedTuple

import numpy as np

from ..data.batching import by_length
from ..data.tokenizer import Tokenizer
from ..engine.batch import Batch, packed
from ..engine.device import array_module, to_host
from ..errors import InputError
from ..model.bert import Bert
from ..model.heads import decoder_of
from .largest import largest

_NEAR = 1e-4  # of the largest logit: some hundred times what rounding changes in float32
_SENTENCES = 512  # in a batch: (512, V) logits are some 60 MB
_KEPT = 1 << 17  # answers, of some 0.5 kB each


class Question(NamedTuple):
    """Which words could stand at `mask`?"""

    ids: tuple[int, ...]  # a sentence's pieces, without [CLS] and [SEP]
    mask: int  # where in `ids` its [MASK] is
    context: tuple[int, ...] = ()  # segment B: as long as `ids`, or none


class BertCandidates:
    """`ask(questions)` with a masked language model. whole (vocab_size,): which ids are words that
    may be answered.

    The k most probable of `whole`; with `pieces_count`, of the k most probable pieces of any kind
    those that are `whole`.
    """

    def __init__(self, model: Bert, tokenizer: Tokenizer, whole: np.ndarray, k: int, pieces_count: bool = False, rows: int = 4096):
        if model.config.head != "mlm":
            raise InputError("the model of --mlm has no masked-language-model head; candidates come of it, so give one that has")
        if not whole.any():
            raise InputError(f"{tokenizer.where}: no piece is a word of its own; is it a BERT vocabulary?")
        tokenizer.check_fits(model.config.vocab_size)
        self.model, self.tokenizer, self.pieces_count, self.rows = model.for_reading(), tokenizer, pieces_count, rows
        V = model.config.vocab_size
        self.whole = np.zeros(V, bool)
        self.whole[: len(whole)] = whole
        self._ids = np.arange(V) if pieces_count else np.flatnonzero(self.whole)  # (W,) what may be among the k
        self.k = min(k, len(self._ids))
        xp = array_module(model.parameters.flat)
        # Their part of the decoder, column by column: a product of few rows reads it quicker so.
        E, c = (array[xp.asarray(self._ids)] for array in decoder_of(model.parameters))
        self._decoder = xp.ascontiguousarray(E.T).T, c  # (W, d), (W,)
        self._words = [tokenizer.id_to_token(id) for id in range(V)]
        self._known: dict[Question, tuple[str, ...]] = {}

    def ask(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """For each question its candidates, in the order of their ids."""
        seen = [self._window(question) for question in questions]
        new = [question for question in dict.fromkeys(seen) if question not in self._known]
        answers: dict[Question, tuple[str, ...]] = {}
        for part in self._parts(new):
            answers.update(zip(part, self._answer(part), strict=True))
        found = [answers[question] if question in answers else self._known[question] for question in seen]
        self._keep(answers)
        return found

    def _keep(self, answers: dict[Question, tuple[str, ...]]) -> None:
        self._known.update(answers)
        if len(self._known) > _KEPT:  # the older half goes
            self._known = dict(islice(self._known.items(), len(self._known) - _KEPT // 2, None))

    def _window(self, question: Question) -> Question:
        """A sentence of more pieces than the model has positions is cut to those around the mask,
        and segment B to the same."""
        ids, mask, context = question
        limit = self.model.config.max_position_embeddings
        if len(ids) + len(context) + 2 + bool(context) <= limit:
            return question
        room = (limit - 3) // 2 if context else limit - 2
        start = max(0, min(mask - room // 2, len(ids) - room))
        return Question(ids[start : start + room], mask - start, context[start : start + room])

    def _parts(self, questions: list[Question]) -> Iterator[list[Question]]:
        lengths = np.array([len(question.ids) + len(question.context) + 2 + bool(question.context) for question in questions])
        for indices in by_length(lengths, self.rows):
            for start in range(0, len(indices), _SENTENCES):
                yield [questions[i] for i in indices[start : start + _SENTENCES]]

    def _answer(self, questions: list[Question]) -> Iterator[tuple[str, ...]]:
        ids, sure = self._most_probable(questions)
        for i in np.flatnonzero(~sure):
            ids[i] = self._most_probable([questions[i]])[0][0]
        ids.sort(axis=1)
        for best, whole in zip(ids.tolist(), self.whole[ids].tolist(), strict=True):
            yield tuple(self._words[id] for id in compress(best, whole))

    def _most_probable(self, questions: list[Question]) -> tuple[np.ndarray, np.ndarray]:
        """-> ids (n, k) of the most probable pieces, and (n,) whether they are clearly more so than
        the next one."""
        batch, rows = self._batch(questions)
        xp = array_module(self.model.parameters.flat)
        trace, _ = self.model.forward_batch(
            self.model.place(batch),
            hidden=(),
            scores=(),
            positions=xp.asarray(rows),
            keep_cache=False,
            one_each=True,
            decoder=self._decoder,
        )
        assert trace.logits is not None
        found = largest(trace.logits, self.k + 1)
        near, values = self._ids[to_host(found)], to_host(xp.take_along_axis(trace.logits, found, axis=1))
        if not np.isfinite(values).all():  # NaN is the largest of all, where there is one
            raise InputError("the logits of the model of --mlm are not finite (NaN, infinity); train it with a smaller learning rate")
        order = np.lexsort((near, -values), axis=1)
        near, values = np.take_along_axis(near, order, axis=1), np.take_along_axis(values, order, axis=1)
        if near.shape[1] == self.k:
            return near, np.ones(len(questions), bool)
        return near[:, : self.k], values[:, self.k] < values[:, self.k - 1] - _NEAR * np.maximum(1, np.abs(values[:, 0]))

    def _batch(self, questions: list[Question]) -> tuple[Batch, np.ndarray]:
        """The packed batch of questions that are in order of length (so that it keeps their order),
        and each one's masked row."""
        cls, sep = (self.tokenizer.cls_id,), (self.tokenizer.sep_id,)
        ids = [np.array(cls + q.ids + sep + (q.context + sep if q.context else ()), np.int32) for q in questions]
        types = [np.zeros(len(row), np.int32) for row in ids]
        if self.model.config.type_vocab_size > 1:
            for row, q in zip(types, questions, strict=True):
                row[len(q.ids) + 2 :] = 1
        batch = packed(ids, types)
        return batch, batch.cls_rows + 1 + np.array([q.mask for q in questions])
