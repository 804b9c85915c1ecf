"""One step of learning: teacher and student forward, the objective, the student backward, for each share of a batch on a thread.

batch ─┬▶ teacher.forward ─▶ Trace(T) ─┐
       └▶ student.forward ─▶ Trace(S) ─┴▶ objective ─▶ losses, dTrace(S) ─▶ student.backward ─▶ gradients
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..distillation.objectives import Objective, Terms
from ..engine.batch import Batch
from ..engine.device import Array, array_module
from ..engine.memory import added
from ..engine.parallel import Workers
from ..engine.random import generator, key
from ..model.bert import Bert, Cache, layout, tables
from ..model.parameters import ALIGN, Parameters
from ..model.trace import Trace
from ..ops import embedding
from .teacher_cache import TeacherCache

_ROWS = 1024  # tokens of a share, about: enough for the GEMMs, and a large batch's memory is that of its shares


class _Result(NamedTuple):
    """Of a share: its losses, and the gradient of what it looked up in the tables, which the shares add to one table in turn."""

    losses: dict[str, Array]
    dlookup: Array
    lookup: embedding.Cache


class Learner:
    """The student (its parameters extended by the objective's own), the objective, the frozen teacher, and the gradients.

    `projections`: the objective's own parameters at the start, by name; those that are not there, or of another shape, are drawn.
    Dropout is keyed by (seed, step), so a step's result depends on no earlier draw; the shares are summed in their order, so it is
    the same at every run with as many threads.
    """

    def __init__(
        self,
        student: Bert,
        objective: Objective,
        workers: Workers,
        teacher: Bert | None = None,
        seed: int = 0,
        teacher_dropout: bool = False,
        teacher_cache: TeacherCache | None = None,
        projections: Mapping[str, np.ndarray] | None = None,
    ):
        self.student = _extended(student, objective, seed, projections or {})
        self.objective, self.workers, self.seed = objective, workers, seed
        self.teacher = None if teacher is None else teacher.for_reading()
        self.teacher_dropout, self.teacher_cache = teacher_dropout, teacher_cache
        self._gradients = [self.student.parameters.zeros_like() for _ in range(workers.threads)]
        self._more: dict[int, Parameters] = {}  # a second one of a thread that has several shares
        self._looked_up: list[Array] = []  # the words whose rows of the gradient are not zero
        tied = student.config.head == "mlm"
        self._first = 0 if tied else sum(-(-table.size // ALIGN) * ALIGN for table in tables(student.parameters))

    def gradients(self, batch: Batch, step: int) -> tuple[dict[str, Array], Parameters]:
        """Losses by name (0-d arrays) and the gradients of a whole batch on the host; the gradients are overwritten by the next call.

        One of several ranks gets the losses of its own share, and everybody's gradients.
        """
        return self.gradients_of_share(self.workers.ranks.share(batch), step)

    def gradients_of_share(self, share: Batch | None, step: int) -> tuple[dict[str, Array], Parameters]:
        """As `gradients`, of what this rank has of the batch."""
        if share is None:
            losses: dict[str, Array] = {}
            total = self._gradients[0]
            total.flat.fill(0)
        else:
            losses, total = self._of_share(share, step)
        self.workers.ranks.add_up(total.flat)
        return losses, total

    def _of_share(self, batch: Batch, step: int) -> tuple[dict[str, Array], Parameters]:
        if self.teacher is not None:
            self.teacher.check(batch)
        self.objective.check(batch, self.student.config)
        batch = self.student.place(batch)
        threads = self.workers.threads
        parts = shares(batch, threads)
        turns = [parts[i::threads] for i in range(min(threads, len(parts)))]
        results = [result for part in self.workers.map(lambda job: self._turns(*job, step), enumerate(turns)) for result in part]
        total = self._sum(len(turns))
        self._clear_tables(total)
        for result in results:
            self.student.look_up_backward(result.dlookup, result.lookup, total)
        self._looked_up = [result.lookup.word_ids for result in results]
        names = dict.fromkeys(name for result in results for name in result.losses)  # a share may lack one
        losses = {name: added(*(result.losses[name] for result in results if name in result.losses)) for name in names}
        return losses, total

    def _sum(self, shares: int) -> Parameters:
        """The sum of the shares' gradients, in the first one's arrays, but for the tables; a tied table has its decoder's gradient."""
        total, *others = (grads.flat[self._first :] for grads in self._gradients[:shares])
        step = -(-len(total) // self.workers.threads)

        def add(part: slice) -> None:
            for other in others:
                total[part] += other[part]

        self.workers.map(add, [slice(i, i + step) for i in range(0, len(total), step)] if others else [])
        return self._gradients[0]

    def _clear_tables(self, grads: Parameters) -> None:
        """Zero where the last step looked something up: a step touches a few hundred of the word table's tens of thousands of rows.
        What other ranks looked up is not known."""
        if self._first:
            words, *small = tables(grads)
            if self.workers.ranks.size > 1:
                small.append(words)
            for ids in self._looked_up:
                words[ids] = 0
            for table in small:
                table.fill(0)

    def _turns(self, thread: int, parts: Sequence[Batch], step: int) -> list[_Result]:
        """The shares of one thread, one after the other, their gradients summed: of a large batch's activations only a share's are there
        at once."""
        grads = self._gradients[thread]
        results = [self._share(parts[0], grads, step)]
        if len(parts) > 1 and thread not in self._more:
            self._more[thread] = self.student.parameters.zeros_like()
        for share in parts[1:]:
            more = self._more[thread]
            results.append(self._share(share, more, step))
            total = grads.flat[self._first :]
            total += more.flat[self._first :]
        return results

    def _share(self, share: Batch, grads: Parameters, step: int) -> _Result:
        teacher_trace = self._ask_teacher(share, step)
        terms, cache = terms_of(self.objective, self.student, share, teacher_trace, key(self.seed, step))
        grads.flat[self._first :] = 0
        dlookup = self.student.backward_to_look_up(cache, terms.dtrace, grads)
        for name, gradient in terms.dprojections.items():
            grads[name][...] = gradient
        return _Result(terms.losses, dlookup, cache.embedding.lookup)

    def _ask_teacher(self, share: Batch, step: int) -> Trace | None:
        """What the teacher says, in its own dtype."""
        if self.teacher_cache is not None:
            return self.teacher_cache.get(share)
        if self.teacher is None or self.objective.teacher_view is None:
            return None
        teacher_key = key(self.seed, step, 1) if self.teacher_dropout else None
        trace, _ = self.teacher.forward_batch(share, teacher_key, keep_cache=False, **self.objective.teacher_view.arguments(share))
        return trace


def terms_of(objective: Objective, student: Bert, batch: Batch, teacher: Trace | None, dropout_key: int) -> tuple[Terms, Cache]:
    """What the objective says of the student's trace of a batch, and the cache for the way back."""
    view, attend = objective.student_view.arguments(batch), objective.attend(batch, teacher)
    trace, cache = student.forward_batch(batch, dropout_key, **view, attend=attend)
    return objective(trace, batch, teacher, student.parameters), cache


def shares(batch: Batch, threads: int) -> list[Batch]:
    """What a batch is cut into: as many shares as threads, and so many times as many that each has some _ROWS tokens; one on a GPU."""
    if not isinstance(batch.input_ids, np.ndarray):
        return [batch]
    return batch.split(threads * max(1, round(len(batch.input_ids) / (threads * _ROWS))))


def _extended(student: Bert, objective: Objective, seed: int, projections: Mapping[str, np.ndarray]) -> Bert:
    """A copy of the student whose flat parameters hold the objective's too: those given, else weights N(0, initializer_range), biases 0."""
    old = student.parameters
    xp = array_module(old.flat)
    parameters = Parameters.zeros(layout(student.config, objective.slots), old.flat.dtype, xp)
    for name in old:
        parameters[name][...] = old[name]
    for slot in objective.slots:
        known = projections.get(slot.name)
        if known is not None and known.shape == slot.shape:
            parameters[slot.name][...] = xp.asarray(known)
        elif slot.name.endswith(".weight"):
            draw = generator(seed, *slot.name.encode()).standard_normal(slot.shape) * student.config.initializer_range
            parameters[slot.name][...] = xp.asarray(draw)
    return Bert(student.config, parameters, student.tokenizer_files)
