"""A model's answers on a set of examples: its logits, in batches by length, and what they say."""

from __future__ import annotations

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
    lengths = np.array([len(ids) for ids in examples.input_ids])
    model = model.for_reading()

    def answer(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = examples.batch(indices)
        trace, _ = model.forward_batch(model.place(batch), hidden=(), scores=(), keep_cache=False)
        return batch.sentences, to_host(trace.logits)

    batches = list(by_length(lengths, _ROWS))
    step = _TOGETHER if description else len(batches)
    parts = range(0, len(batches), step)
    answers = []
    for start in progress(parts, len(parts), description) if description else parts:
        answers += workers.map_over_ranks(answer, batches[start : start + step])
    result = np.empty((len(examples), answers[0][1].shape[-1]), np.float32)
    for places, values in answers:
        result[places] = values
    if not np.isfinite(result).all():
        count = int((~np.isfinite(result)).any(axis=-1).sum())
        raise InputError(
            f"the model's logits of {count} of {len(result)} examples are not finite (NaN, infinity): its weights are too large; "
            "train it with a smaller learning rate"
        )
    return result


def predictions(values: np.ndarray, regression: bool) -> np.ndarray:
    """Logits (n, C) -> classes (n,) int64, or numbers (n,) for regression."""
    return values[:, 0] if regression else values.argmax(axis=-1)
