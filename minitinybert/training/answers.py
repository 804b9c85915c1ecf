"""Which teacher answers: one that says the same of an example at every epoch is asked once, and
what it said is kept, where that pays."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import numpy as np

from ..data.batching import EncodedExamples
from ..distillation.objectives import View
from ..engine.device import array_module
from ..engine.parallel import Workers
from ..files import cause
from ..model.config import TOKEN_MAPS
from ..progress import log
from . import evaluation
from .kept_traces import KeptTraces, gigabytes
from .teacher import KeptLogits, KeptTokens, Running, Teacher


class Answers:
    """What frozen teachers have said in this process, for several students of one teacher on one
    training set: it is asked once.

    A file of traces is worth it while the system can keep it in memory: all together take at most
    `limit` GB (`--cache-gb`), and the oldest give way.
    """

    def __init__(self, limit: float):
        self.limit = limit
        self._logits: dict[Hashable, Teacher] = {}
        self._traces: list[tuple[Hashable, KeptTraces]] = []

    def of(
        self,
        teacher: Running,
        examples: EncodedExamples,
        view: View | None,
        where: Hashable,
        directory: Path,
        workers: Workers,
        spare: int = 0,
    ) -> Teacher:
        """Who answers for `teacher` on these examples, as `view` looks at it: what it has said, now
        or before, or else it itself.

        `where` tells training sets and teachers apart; a file of traces lies in `directory`, where
        the disk has room for it and `spare` bytes more.
        """
        if view is None or teacher.dropout:
            return teacher
        if not view.hidden and not view.scores:
            if where not in self._logits:
                asked = (teacher.model, examples, workers, "ask the teacher")
                of_tokens = teacher.model.config.head in TOKEN_MAPS
                self._logits[where] = KeptTokens(evaluation.token_logits(*asked)) if of_tokens else KeptLogits(evaluation.logits(*asked))
            return self._logits[where]
        return self._kept_traces(teacher, examples, view, where, directory, workers, spare) or teacher

    def _kept_traces(
        self, teacher: Running, examples: EncodedExamples, view: View, where: Hashable, directory: Path, workers: Workers, spare: int
    ) -> KeptTraces | None:
        """Those at hand that hold all `view` looks at; else new ones, where they are not too large.
        Several ranks run the teacher at every epoch, each on its share; and a GPU does, for which
        copying scores up takes longer than working them out."""
        parameters = teacher.model.parameters.flat
        if view.logits or examples.pad_to is not None or workers.ranks.size > 1 or array_module(parameters) is not np:
            return None
        if not self.limit:
            return None  # it is asked once anyway, or the user wants none
        size = gigabytes(examples.lengths(), teacher.model.config, view, parameters.itemsize)
        if size > self.limit:
            log(f"the teacher is run at every epoch: a cache of its answers would take {size:.1f} GB (--cache-gb {self.limit:g})")
            return None
        for known, traces in self._traces:
            if known == where and view.hidden <= set(traces.hidden) and view.scores <= set(traces.scores):
                return traces
        while self._traces and size + sum(traces.values.nbytes for _, traces in self._traces) / 1e9 > self.limit:
            self._traces.pop(0)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._traces.append((where, KeptTraces(teacher.model, examples, view, directory, workers, spare)))
        except OSError as error:
            log(f"the teacher is run at every epoch: {directory} has no room for a cache of its answers, {size:.1f} GB ({cause(error)})")
            return None
        return self._traces[-1][1]
