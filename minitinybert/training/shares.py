"""The step of `step.py` on shares of a batch: on threads, several in turn on each, and on ranks.
The gradients are added up once.

The tables of the embeddings are apart: a step touches a few hundred of their tens of thousands of
rows, so each share hands out the gradient of what it looked up, and the shares add these to one
table in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..distillation.objectives import Objective
from ..engine.batch import Batch
from ..engine.device import Array
from ..engine.memory import added
from ..engine.parallel import Workers
from ..model.bert import Bert, Cache, tables
from ..model.parameters import ALIGN, Parameters
from ..model.trace import Trace
from ..ops import embedding
from .cut import rank_share, thread_shares
from .step import extended, step
from .teacher import NOBODY, Teacher


class _Result(NamedTuple):
    """Of a share: its losses, each layer's part of them, and the gradient of what it looked up in
    the tables."""

    losses: dict[str, Array]
    dlookup: Array
    lookup: embedding.Cache


class Learner:
    """The student (its parameters extended by the objective's own), the objective, the teacher, and
    the gradients.

    `projections`: the objective's own parameters at the start, by name; those that are not there,
    or of another shape, are drawn. `share_rows`: tokens of a share, about; as cut.py has it where
    nobody says. Dropout is keyed by (seed, step), so a step's result depends on
    no earlier draw; the shares are summed in their order, so it is the same at every run with as
    many threads.
    """

    def __init__(
        self,
        student: Bert,
        objective: Objective,
        workers: Workers,
        teacher: Teacher = NOBODY,
        seed: int = 0,
        projections: Mapping[str, np.ndarray] | None = None,
        share_rows: int | None = None,
    ):
        self.student = extended(student, objective, seed, projections or {})
        self.objective, self.workers, self.teacher, self.seed = objective, workers, teacher, seed
        self.share_rows = share_rows
        self._gradients = [self.student.parameters.zeros_like() for _ in range(workers.threads)]
        self._more: dict[int, Parameters] = {}  # a second one of a thread that has several shares
        self._looked_up: list[Array] = []  # the words whose rows of the gradient are not zero
        tied = student.config.head == "mlm"
        self._first = 0 if tied else sum(-(-table.size // ALIGN) * ALIGN for table in tables(student.parameters))

    @property
    def untouched(self) -> list[str]:
        """The student's tensors that the optimiser is to pass over (`Objective.untouched`)."""
        begin = self.objective.untouched
        return [name for name in self.student.parameters if begin and name.removeprefix("bert.").startswith(begin)]

    def gradients(self, batch: Batch, number: int) -> tuple[dict[str, Array], Parameters]:
        """Losses by name (0-d arrays) and the gradients of a whole batch on the host, in step
        `number`; the gradients are overwritten by the next call.

        One of several ranks gets the losses of its own share, and everybody's gradients.
        """
        losses, gradients = self.gradients_of_share(rank_share(batch, self.workers.ranks), number)
        return {name: loss for name, loss in losses.items() if "." not in name}, gradients

    def gradients_of_share(self, share: Batch | None, number: int) -> tuple[dict[str, Array], Parameters]:
        """As `gradients`, of what this rank has of the batch; beside the losses what those of several
        layers are sums of, as "hidden.2"."""
        if share is None:
            losses: dict[str, Array] = {}
            total = self._gradients[0]
            total.flat.fill(0)
        else:
            losses, total = self._of_rank(share, number)
        self.workers.ranks.add_up(total.flat)
        return losses, total

    def _of_rank(self, batch: Batch, number: int) -> tuple[dict[str, Array], Parameters]:
        self.teacher.check(batch)
        self.objective.check(batch, self.student.config)
        threads = self.workers.threads
        shares = thread_shares(self.student.place(batch), threads, self.share_rows)
        turns = [shares[i::threads] for i in range(min(threads, len(shares)))]
        results = [result for own in self.workers.map(lambda job: self._of_thread(*job, number), enumerate(turns)) for result in own]
        total = self._sum(len(turns))
        self._clear_tables(total)
        for result in results:
            self.student.look_up_backward(result.dlookup, result.lookup, total, self.objective.padding_gradient)
        self._looked_up = [result.lookup.ids.words for result in results]
        names = dict.fromkeys(name for result in results for name in result.losses)  # a share may lack one
        losses = {name: added(*(result.losses[name] for result in results if name in result.losses)) for name in names}
        return losses, total

    def _of_thread(self, thread: int, shares: Sequence[Batch], number: int) -> list[_Result]:
        """The shares of one thread, one after the other, their gradients summed: of a large batch's
        activations only a share's are there at once."""
        grads = self._gradients[thread]
        results = [self._of_share(shares[0], grads, number)]
        if len(shares) > 1 and thread not in self._more:
            self._more[thread] = self.student.parameters.zeros_like()
        for share in shares[1:]:
            more = self._more[thread]
            results.append(self._of_share(share, more, number))
            total = grads.flat[self._first :]
            total += more.flat[self._first :]
        return results

    def _of_share(self, share: Batch, grads: Parameters, number: int) -> _Result:
        dlookups: list[tuple[Array, embedding.Cache]] = []

        def backward(student: Bert, cache: Cache, dtrace: Trace, grads: Parameters, _: bool) -> None:
            grads.flat[self._first :] = 0
            dlookups.append((student.backward_to_look_up(cache, dtrace, grads), cache.embedding.lookup))

        by_layer: dict[str, Array] = {}
        losses = step(self.student, self.objective, share, self.teacher, (self.seed, number), grads, backward, by_layer)
        return _Result({**losses, **by_layer}, *dlookups[0])

    def _sum(self, threads: int) -> Parameters:
        """The sum of the threads' gradients, in the first one's arrays, but for the tables; a tied
        table has its decoder's gradient."""
        total, *others = (grads.flat[self._first :] for grads in self._gradients[:threads])
        length = -(-len(total) // self.workers.threads)

        def add(piece: slice) -> None:
            for other in others:
                total[piece] += other[piece]

        self.workers.map(add, [slice(i, i + length) for i in range(0, len(total), length)] if others else [])
        return self._gradients[0]

    def _clear_tables(self, grads: Parameters) -> None:
        """Zero where the last step looked something up. What other ranks looked up is not known."""
        if self._first:
            words, *small = tables(grads)
            if self.workers.ranks.size > 1:
                small.append(words)
            for ids in self._looked_up:
                words[ids] = 0
            for table in small:
                table.fill(0)
