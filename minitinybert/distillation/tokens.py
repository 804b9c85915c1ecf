"""Objectives of heads that look at every token: labels of words, and where in a text an answer is.
Each is one of the sentences' losses, on other rows.

words    z (n, C) at the first pieces of n words                     each word is a classification among C labels
spans    z (T, 2), how well a piece begins an answer, and ends it    each sentence is two classifications among its L pieces

So a word's loss is a mean over words, a span's over the beginnings and ends: (CE(begin) +
CE(end))/2 of every sentence, as BERT's. The intermediate step is the same as of any head.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..engine.batch import Batch, check_range
from ..engine.device import Array, array_module
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

    def __init__(self, padding_gradient: bool = True):
        self.padding_gradient = padding_gradient

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
        self.recipe, self.padding_gradient = recipe, recipe.padding_gradient

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None and student.logits is not None
        n = batch.totals.masked
        count = n * student.logits.shape[-1] if self.recipe.prediction_mean == "elements" else n
        loss, c = prediction.forward(student.logits, teacher.logits, self.recipe.temperature, count)
        return Terms({"prediction": loss}, Trace(logits=prediction.backward(1.0, c)), {})


class SupervisedSpans(Objective):
    """Fine-tuning: cross-entropy with the pieces at which each answer begins and ends."""

    student_view = View(logits=True)

    def __init__(self, padding_gradient: bool = True):
        self.padding_gradient = padding_gradient

    def check(self, batch: Batch, student: Config) -> None:
        labels, ends = batch.labels, batch.lengths[:, None]
        if isinstance(labels, np.ndarray) and ((labels < 0) | (labels >= ends)).any():
            raise InputError("the place where an answer begins or ends lies outside its text's word pieces")

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert student.logits is not None and batch.labels is not None
        loss, c = cross_entropy.forward(by_place(student.logits, batch), batch.labels.reshape(-1), 2 * batch.totals.sentences)
        return Terms({"cross_entropy": loss}, Trace(logits=by_row(cross_entropy.backward(1.0, c), batch)), {})


class SpanPrediction(Objective):
    """The second step of distillation: soft cross-entropy with the teacher's logits (eq. 10) of
    where each answer begins, and of where it ends."""

    student_view = View(logits=True)
    teacher_view = View(logits=True)

    def __init__(self, recipe: Recipe = DEFAULT):
        self.recipe, self.padding_gradient = recipe, recipe.padding_gradient

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None and student.logits is not None and teacher.logits is not None
        count = 2 * (batch.totals.rows if self.recipe.prediction_mean == "elements" else batch.totals.sentences)
        z_S, z_T = (by_place(z.astype(student.logits.dtype, copy=False), batch) for z in (student.logits, teacher.logits))
        loss, c = prediction.forward(z_S, z_T, self.recipe.temperature, count)
        return Terms({"prediction": loss}, Trace(logits=by_row(prediction.backward(1.0, c), batch)), {})


def by_place(z: Array, batch: Batch) -> Array:
    """Logits (T, 2) of a batch's rows -> (2S, L), L the longest sentence's: of each sentence that of
    its places as beginnings, then as ends. Where there is padding, or nothing, they are so low that
    their probability is 0."""
    xp = array_module(z)
    if batch.attention_mask is not None:
        z = xp.where(batch.attention_mask[:, None], z, z.dtype.type(_NO_PLACE))
    rectangle = xp.full((batch.size, 2, batch.longest), _NO_PLACE, z.dtype)
    sentence, place = _places(batch)
    rectangle[sentence, :, place] = z
    return rectangle.reshape(-1, batch.longest)


def by_row(dz: Array, batch: Batch) -> Array:
    """The inverse of `by_place`, of a gradient: (T, 2), 0 at padding, whose probability is 0
    whatever its logit."""
    sentence, place = _places(batch)
    return dz.reshape(batch.size, 2, -1)[sentence, :, place]


def _places(batch: Batch) -> tuple[Array, Array]:
    """Of each row which sentence it is of, and where in it, (T,)."""
    xp = array_module(batch.input_ids)
    return xp.searchsorted(batch.cls_rows, xp.arange(len(batch.input_ids)), side="right") - 1, batch.position_ids
