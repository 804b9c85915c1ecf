"""One step of learning: the teacher is asked, the student runs, the objective compares them, the
student's backward learns from it.

batch ─┬▶ teacher ─────────▶ Trace(T) ─┐
       └▶ student.forward ─▶ Trace(S) ─┴▶ objective ─▶ losses, dTrace(S) ─▶ student.backward ─▶ gradients

This is the whole of it. `shares.py` takes the same step with each share of a batch, on threads and
ranks, and adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..distillation.objectives import Objective, Terms
from ..engine.batch import Batch
from ..engine.device import Array, array_module
from ..engine.random import generator, key
from ..model.bert import Bert, Cache, layout
from ..model.parameters import Parameters
from ..model.trace import Trace
from .teacher import Teacher


def step(
    student: Bert,
    objective: Objective,
    batch: Batch,
    teacher: Teacher,
    at: tuple[int, int],
    gradients: Parameters,
    backward: Callable[[Bert, Cache, Trace, Parameters, bool], object] = Bert.backward,
    by_layer: dict[str, Array] | None = None,
) -> dict[str, Array]:
    """One step of learning (paper eq. 5). The losses of a placed batch by name (0-d arrays);
    `gradients`, laid out as the student's parameters, are overwritten.

    at: (seed, step), which all that is random in a step is a function of. backward: in the
    place of `Bert.backward`, and called as it is; shares.py has one that leaves out the tables.
    by_layer: gets what the losses of several layers are sums of, as "hidden.2".
    """
    view = objective.teacher_view
    taught = None if view is None else teacher.answer(batch, view, at)
    terms, cache = terms_of(objective, student, batch, taught, key(*at))
    backward(student, cache, terms.dtrace, gradients, objective.padding_gradient)
    own = {slot.name for slot in objective.slots}
    for name, gradient in terms.dprojections.items():  # the student's have what the backward gave, too
        gradients[name][...] = gradient if name in own else gradients[name] + gradient
    if by_layer is not None:
        by_layer.update(terms.by_layer)
    return terms.losses


def terms_of(objective: Objective, student: Bert, batch: Batch, teacher: Trace | None, dropout_key: int) -> tuple[Terms, Cache]:
    """What the objective says of the student's trace of a batch, and the cache for the way back."""
    trace, cache = student.forward_batch(batch, dropout_key, **objective.student_view.arguments(batch))
    return objective(trace, batch, teacher, student.parameters), cache


def extended(student: Bert, objective: Objective, seed: int, known: Mapping[str, np.ndarray]) -> Bert:
    """A copy of the student whose flat parameters hold the objective's own too, as W_e and W_h:
    those that are `known` by name and of the same shape; else weights N(0, initializer_range),
    biases 0."""
    old = student.parameters
    xp = array_module(old.flat)
    parameters = Parameters.zeros(layout(student.config, objective.slots), old.flat.dtype, xp)
    for name in old:
        parameters[name][...] = old[name]
    for slot in objective.slots:
        before = known.get(slot.name)
        if before is not None and before.shape == slot.shape:
            parameters[slot.name][...] = xp.asarray(before)
        elif slot.name.endswith(".weight"):
            draw = generator(seed, *slot.name.encode()).standard_normal(slot.shape) * student.config.initializer_range
            parameters[slot.name][...] = xp.asarray(draw)
    return Bert(student.config, parameters, student.tokenizer_files)
