"""What is learned, apart from the network that learns it: an objective takes traces and gives
losses and the trace's gradient.

    losses, dtrace, dprojections = objective(student, batch, teacher, parameters)

`losses` are the terms by name (0-d arrays, weighted, the batch's share of them), `dtrace` is what
`Bert.backward` injects, `dprojections` the gradients of the parameters that the objective uses
itself, by name: its own (`slots`), or the student's. The Transformer knows none of this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..engine.batch import Batch, check_range
from ..engine.device import Array
from ..losses import cross_entropy, mse
from ..model.config import Config
from ..model.parameters import Slot
from ..model.trace import Trace


class View(NamedTuple):
    """Which parts of a trace an objective looks at."""

    hidden: frozenset[int] = frozenset()
    scores: frozenset[int] = frozenset()
    logits: bool = False
    masked: bool = False  # of the logits of tokens only the rows that `Batch.masked` asks for

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """The keyword arguments of `Bert.forward_batch`."""
        positions = batch.masked.rows if self.masked and batch.masked is not None else None
        return {"hidden": self.hidden, "scores": self.scores, "logits": self.logits, "positions": positions}


class Terms(NamedTuple):
    """What an objective says of a batch, or of a share of one: what it costs, and the way down."""

    losses: dict[str, Array]  # by term, each with its λ: their sum is what is learned
    dtrace: Trace  # the gradient of that sum with respect to the student's trace
    dprojections: Mapping[str, Array]  # and with respect to parameters that it uses itself, by name
    by_layer: Mapping[str, Array] = MappingProxyType({})  # what a term's loss is the sum of, as "hidden.2": only to be looked at


class Objective(ABC):
    """What `Learner` learns by: a subclass has a view of the student's trace, one of the teacher's
    where it asks a teacher, and `__call__`.

    It says beforehand what it looks at, so that no more is worked out or kept, and is then a
    function of traces: called for each share of a batch, from several threads, it changes nothing
    of itself. A teacher's trace is in the teacher's dtype. Means are sums over the `totals` of the
    whole batch; the gradient's scores are flat, as the trace's; every slot has its gradient.
    """

    student_view: View
    teacher_view: View | None = None  # None: no teacher is run
    slots: tuple[Slot, ...] = ()  # the objective's own parameters, which the optimiser trains along
    untouched: tuple[str, ...] = ()  # how names begin (without "bert.") of what the optimiser passes over, weight decay and all
    padding_gradient: bool = True  # False: the look-ups of [PAD] give its word embedding no gradient

    def check(self, batch: Batch, student: Config) -> None:
        """InputError where labels of a host batch are none of the student's. (A GPU would read
        whatever lies there.)"""
        return

    @abstractmethod
    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms: ...


class Supervised(Objective):
    """Fine-tuning: cross-entropy with the batch's labels, or mean squared error where they are
    numbers (one logit)."""

    student_view = View(logits=True)

    def __init__(self, regression: bool = False, padding_gradient: bool = True):
        self.regression, self.padding_gradient = regression, padding_gradient

    def check(self, batch: Batch, student: Config) -> None:
        if not self.regression and isinstance(batch.labels, np.ndarray):
            check_range("labels", batch.labels, student.num_labels, "classes")

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        n = batch.totals.sentences
        if self.regression:
            labels = batch.labels.astype(student.logits.dtype)[:, None]  # type: ignore[union-attr]
            loss, cache = mse.forward(student.logits, labels, count=n)
            return Terms({"mse": loss}, Trace(logits=mse.backward(1.0, cache)), {})
        entropy, c = cross_entropy.forward(student.logits, batch.labels, n)
        return Terms({"cross_entropy": entropy}, Trace(logits=cross_entropy.backward(1.0, c)), {})


class MaskedLM(Objective):
    """Masked language modelling (BERT, section 3.1): cross-entropy with the words at the masked
    rows; logits exist for these alone. A batch in which none is masked has loss and gradient 0.

    losses/mlm.py is the same loss on the logits of all rows.
    """

    student_view = View(logits=True, masked=True)

    def check(self, batch: Batch, student: Config) -> None:
        if batch.masked is not None and isinstance(batch.masked.labels, np.ndarray):
            check_range("masked labels", batch.masked.labels, student.vocab_size, "words")

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert batch.masked is not None
        entropy, c = cross_entropy.forward(student.logits, batch.masked.labels, max(batch.totals.masked, 1))
        return Terms({"mlm": entropy}, Trace(logits=cross_entropy.backward(1.0, c)), {})
