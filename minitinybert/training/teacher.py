"""What a teacher is to a step: somebody who answers. Whoever asks does not know which of these it
is.

Running      a frozen model, in its own dtype, with dropout or without
KeptLogits   what it said of each example, KeptTokens of each of its tokens
KeptTraces   the hidden states and scores it had for each, in a file (kept_traces.py)
NOBODY       where the objective looks at no teacher
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ..distillation.objectives import View
from ..engine.batch import Batch
from ..engine.device import array_module
from ..engine.random import key
from ..errors import InputError
from ..model.bert import Bert
from ..model.trace import Trace


class Teacher(ABC):
    def check(self, batch: Batch) -> None:
        """InputError where a host batch is none that this teacher can read. (A GPU would read
        whatever lies there.)"""
        return

    @abstractmethod
    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        """At least what `view` names of the trace of a batch, or of a share of one, where the batch
        is. at: (seed, step)."""


class Nobody(Teacher):
    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        raise InputError("the objective looks at a teacher's trace, and there is no teacher: give the learner one")


NOBODY = Nobody()


class Running(Teacher):
    """dropout: the teacher runs in training mode, as the released code has it; its masks are not
    the student's."""

    def __init__(self, model: Bert, dropout: bool = False):
        self.model, self.dropout = model.for_reading(), dropout

    def check(self, batch: Batch) -> None:
        self.model.check(batch)

    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        dropout_key = key(*at, 1) if self.dropout else None
        trace, _ = self.model.forward_batch(batch, dropout_key, keep_cache=False, **view.arguments(batch))
        return trace


class KeptLogits(Teacher):
    """logits: (n, C) of all examples, on the host."""

    def __init__(self, logits: np.ndarray):
        self.logits = logits

    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        return Trace(logits=array_module(batch.input_ids).asarray(self.logits[batch.sentences]))


class KeptTokens(Teacher):
    """logits: of each example (L, C), or (w, C) of the w tokens it is asked for, on the host."""

    def __init__(self, logits: Sequence[np.ndarray]):
        self.logits = logits

    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        rows = np.concatenate([self.logits[i] for i in batch.sentences])
        return Trace(logits=array_module(batch.input_ids).asarray(rows))
