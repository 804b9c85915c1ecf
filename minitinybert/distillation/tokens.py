"""Objectives of heads that look at every token: labels of words, and where in a text an answer is.
Each is one of the sentences' losses, on other rows.

words    z (n, C) at the first pieces of n words                     each word is a classification among C labels
spans    z (T, 2), how well a piece begins an answer, and ends it    each sentence is two classifications among its L pieces

So a word's loss is a mean over words, a span's over the beginnings and ends: (CE(begin) +
CE(end))/2 of every sentence, as BERT's. The intermediate step is the same as of any head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..engine.batch import Batch, check_range
from ..engine.device import Array, array_module
from ..engine.memory import added
from ..errors import InputError
from ..losses import cross_entropy, prediction
from ..model.config import Config
from ..model.trace import Trace
from .objectives import Objective, Terms, View
from .recipes import DEFAULT, Recipe

_NO_PLACE = -1e9  # a logit of padding, which is no place of an answer: its probability is 0


class SupervisedTokens(Objective):
    """Fine-tuning: cross-entropy with the labels of the words that `Batch.masked` asks for."""

    student_view = View(logits=True, masked=True)

    def check(self, batch: Batch, student: Config) -> None:
        if batch.masked is not None and isinstance(batch.masked.labels, np.ndarray):
            check_range("labels of words", batch.masked.labels, student.num_labels, "classes")

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert batch.masked is not None
        entropy, c = cross_entropy.forward(student.logits, batch.masked.labels, batch.totals.masked)
        return Terms({"cross_entropy": entropy}, Trace(logits=cross_entropy.backward(1.0, c)), {})


class TokenPrediction(Objective):
    """The second step of distillation: soft cross-entropy with the teacher's logits (eq. 10) at
    each word."""

    student_view = View(logits=True, masked=True)
    teacher_view = View(logits=True, masked=True)

    def __init__(self, recipe: Recipe = DEFAULT):
        self.recipe = recipe

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None and student.logits is not None
        n = batch.totals.masked
        count = n * student.logits.shape[-1] if self.recipe.prediction_mean == "elements" else n
        loss, c = prediction.forward(student.logits, teacher.logits, self.recipe.temperature, count)
        return Terms({"prediction": loss}, Trace(logits=prediction.backward(1.0, c)), {})


class SupervisedSpans(Objective):
    """Fine-tuning: cross-entropy with the pieces at which each answer begins and ends."""

    student_view = View(logits=True)

    def check(self, batch: Batch, student: Config) -> None:
        labels, ends = batch.labels, batch.lengths[:, None]
        if isinstance(labels, np.ndarray) and ((labels < 0) | (labels >= ends)).any():
            raise InputError("the place where an answer begins or ends lies outside its text's word pieces")

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert batch.labels is not None
        losses, dz, first = [], [], 0
        for z in by_place(student.logits, batch):
            last = first + len(z) // 2
            loss, c = cross_entropy.forward(z, batch.labels[first:last].reshape(-1), 2 * batch.totals.sentences)
            losses.append(loss)
            dz.append(cross_entropy.backward(1.0, c))
            first = last
        return Terms({"cross_entropy": added(*losses)}, Trace(logits=by_row(dz, batch)), {})


class SpanPrediction(Objective):
    """The second step of distillation: soft cross-entropy with the teacher's logits (eq. 10) of
    where each answer begins, and of where it ends."""

    student_view = View(logits=True)
    teacher_view = View(logits=True)

    def __init__(self, recipe: Recipe = DEFAULT):
        self.recipe = recipe

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None and student.logits is not None and teacher.logits is not None
        count = 2 * (batch.totals.rows if self.recipe.prediction_mean == "elements" else batch.totals.sentences)
        losses, dz = [], []
        told = teacher.logits.astype(student.logits.dtype, copy=False)
        for z_S, z_T in zip(by_place(student.logits, batch), by_place(told, batch), strict=True):
            loss, c = prediction.forward(z_S, z_T, self.recipe.temperature, count)
            losses.append(loss)
            dz.append(prediction.backward(1.0, c))
        return Terms({"prediction": added(*losses)}, Trace(logits=by_row(dz, batch)), {})


def by_place(z: Array | None, batch: Batch) -> list[Array]:
    """Logits (T, 2) of a batch's rows -> for each run of n sentences of length L (2n, L): of each
    sentence the beginnings', then the ends'. Padding's are so low that their probability is 0."""
    assert z is not None
    xp, parts = array_module(z), []
    for run in batch.runs:
        own, rows = z[run.start : run.stop], slice(run.start, run.stop)
        if batch.attention_mask is not None:
            own = xp.where(batch.attention_mask[rows, None], own, own.dtype.type(_NO_PLACE))
        parts.append(xp.ascontiguousarray(own.reshape(run.n, run.length, 2).swapaxes(1, 2)).reshape(-1, run.length))
    return parts


def by_row(parts: Sequence[Array], batch: Batch) -> Array:
    """The inverse of `by_place`, of gradients: 0 at padding, whose probability is 0 whatever its
    logit."""
    xp = array_module(parts[0])
    rows = [part.reshape(run.n, 2, run.length).swapaxes(1, 2).reshape(-1, 2) for part, run in zip(parts, batch.runs, strict=True)]
    return xp.concatenate(rows)
