"""A model's answers on a set of examples: its logits, in batches by length, and what they say."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.batching import EncodedExamples, by_length
from ..engine.device import to_host
from ..engine.parallel import Workers
from ..errors import InputError
from ..model.bert import Bert
from ..progress import progress

_ROWS = 2048  # tokens a batch: large enough for the GEMMs, small enough for the cache
_TOGETHER = 32  # batches between two signs of progress


def logits(model: Bert, examples: EncodedExamples, workers: Workers, description: str = "") -> np.ndarray:
    """(n, C) float32 on the host, in the examples' order. No dropout. description: of a progress
    bar, for many examples. InputError where one is not finite, which an arg-max would take for an
    answer."""
    answers = _answers(model, examples, workers, description)
    result = np.empty((len(examples), answers[0][-1].shape[-1]), np.float32)
    for places, _, values in answers:
        result[places] = values
    _check_finite(np.isfinite(result).all(axis=-1))
    return result


def token_logits(model: Bert, examples: EncodedExamples, workers: Workers, description: str = "") -> list[np.ndarray]:
    """The like of a head of tokens: of each example (L, C) float32, or (w, C) of the w tokens that
    its batches ask for."""
    result: list[Any] = [None] * len(examples)
    for places, ends, values in _answers(model, examples, workers, description):
        for place, own in zip(places, np.split(values.astype(np.float32, copy=False), ends[:-1]), strict=True):
            result[place] = own
    _check_finite(np.array([np.isfinite(own).all() for own in result]))
    return result


def _check_finite(fine: Any) -> None:
    """InputError unless the logits of every example are, (n,)."""
    if not fine.all():
        count = len(fine) - int(fine.sum())
        raise InputError(
            f"the model's logits of {count} of {len(fine)} examples are not finite (NaN, infinity): its weights are too large; "
            "train it with a smaller learning rate"
        )


def _answers(model: Bert, examples: EncodedExamples, workers: Workers, description: str) -> list[tuple[np.ndarray, ...]]:
    """Of each batch the examples' numbers (S,), up to which row each has (S,), where the head is of
    tokens, and the logits."""
    lengths = np.array([len(ids) for ids in examples.input_ids])
    model = model.for_reading()

    def answer(indices: np.ndarray) -> tuple[np.ndarray, ...]:
        batch = examples.batch(indices)
        there = model.place(batch)
        trace, _ = model.forward_batch(there, hidden=(), scores=(), positions=there.masked and there.masked.rows, keep_cache=False)
        return batch.sentences, np.cumsum(batch.lengths) if batch.masked is None else batch.masked.ends, to_host(trace.logits)

    batches = list(by_length(lengths, _ROWS))
    step = _TOGETHER if description else len(batches)
    parts = range(0, len(batches), step)
    answers = []
    for start in progress(parts, len(parts), description) if description else parts:
        answers += workers.map_over_ranks(answer, batches[start : start + step])
    return answers


def predictions(values: np.ndarray, regression: bool) -> np.ndarray:
    """Logits (n, C) -> classes (n,) int64, or numbers (n,) for regression."""
    return values[:, 0] if regression else values.argmax(axis=-1)
