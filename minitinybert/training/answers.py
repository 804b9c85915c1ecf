"""Which teacher answers: one that says the same of an example at every epoch is asked once, and
what it said is kept, where that pays."""

from __future__ import annotations

import math
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..claims import claimed
from ..data.batching import EncodedExamples
from ..distillation.objectives import View
from ..engine.device import array_module
from ..engine.parallel import Workers
from ..errors import InputError
from ..files import cause
from ..model.config import TOKEN_MAPS
from ..progress import log
from . import evaluation
from .kept_traces import KeptTraces, NoRoom, Rounded, gigabytes, key_of, name_of, view_of
from .teacher import KeptLogits, KeptTokens, Running, Teacher


class Answers:
    """What frozen teachers have said, for several students of one teacher on one training set: it
    is asked once.

    A file of traces is worth it wherever the disk has room: a step reads some MB where the teacher
    would be run. limit: GB that all together take at most (`--cache-gb`); None: what the disk has
    (kept_traces.FREE), 0: none is made. A file goes away with its run, and the oldest give way. In
    `shared`, a directory of directories by `key_of`, they stay for other runs (`--teacher-cache`),
    and none gives way unless the directory is this run's `own`.
    """

    def __init__(self, limit: float | None = None, shared: Path | None = None, own: bool = False):
        self.limit, self.shared, self.own = limit, shared, own
        if shared is not None and shared.is_dir():
            with suppress(InputError), claimed(shared, "the teacher's answers"):  # sweeps what killed runs left; not where one is at work
                pass
        self._logits: dict[Hashable, Teacher] = {}
        self._traces: list[tuple[Hashable, KeptTraces]] = []

    def rounds(self, teacher: Running, examples: EncodedExamples, view: View | None) -> bool:
        """Whether hidden states and scores are answered as a file keeps them, in float16: something
        that must be the same for a run to go on, whatever room there is and whoever answers.

        Not where each epoch's answers are others, nor on a GPU, for which copying scores up takes
        longer than working them out.
        """
        if view is None or teacher.dropout or view.logits or not (view.hidden or view.scores):
            return False
        return self.limit != 0 and examples.pad_to is None and array_module(teacher.model.parameters.flat) is np

    def of(
        self,
        teacher: Running,
        examples: EncodedExamples,
        view: View | None,
        where: Hashable,
        directory: Path,
        workers: Workers,
        spare: int = 0,
        epochs: float = 1,
    ) -> Teacher:
        """Who answers for `teacher` on these examples, as `view` looks at it: what it has said, now
        or before, or else it itself.

        `where` tells training sets and teachers apart; a file of traces that is not shared lies in
        `directory`, where the disk has room for it and `spare` bytes more. epochs: how often it
        would be asked. Several ranks run the teacher at every epoch, each on its share.
        """
        if view is None or teacher.dropout:
            return teacher
        if not view.hidden and not view.scores:
            if where not in self._logits:
                asked = (teacher.model, examples, workers, "ask the teacher")
                of_tokens = teacher.model.config.head in TOKEN_MAPS
                self._logits[where] = KeptTokens(evaluation.token_logits(*asked)) if of_tokens else KeptLogits(evaluation.logits(*asked))
            return self._logits[where]
        if not self.rounds(teacher, examples, view):
            return teacher
        kept = None
        if workers.ranks.size == 1:
            kept = self._kept_traces(teacher, examples, view, where, directory, workers, spare, epochs)
        return kept or Rounded(teacher)

    def _kept_traces(
        self,
        teacher: Running,
        examples: EncodedExamples,
        view: View,
        where: Hashable,
        directory: Path,
        workers: Workers,
        spare: int,
        epochs: float,
    ) -> KeptTraces | None:
        """Those at hand that hold all `view` looks at; else new ones, where there is room."""
        size = gigabytes(examples.lengths(), teacher.model.config, view)
        told = f"{size:.1f} GB" if size >= 1 else f"{max(1e3 * size, 0.1):.1f} MB"
        if self.limit is not None and size > self.limit:
            log(f"the teacher is run at every epoch: a file of its answers would take {told} (--cache-gb {self.limit:g})")
            return None
        for known, traces in self._traces:
            if known == where and view.hidden <= set(traces.hidden) and view.scores <= set(traces.scores):
                return traces
        name, place = None, directory
        if self.shared is not None:
            place = self.shared / key_of(teacher.model, examples)
            view = next((found for found in map(view_of, _names(place)) if found and _holds(found, view)), view)
            name = name_of(view)
        epochs = math.ceil(epochs)
        saves = f"it is not run in {epochs - 1} of {epochs} epochs" if epochs > 1 else "other runs do not run it"
        line = f"the teacher is asked once: its answers take {told} in {place}, and {saves}"
        while True:
            try:
                if name is None:
                    directory.mkdir(parents=True, exist_ok=True)
                if self.limit is not None and self._taken(place / (name or "")) + size > self.limit:
                    raise NoRoom(f"--cache-gb {self.limit:g}")
                traces = KeptTraces(teacher.model, examples, view, place, workers, spare, name=name, told=line)
            except (NoRoom, OSError) as error:
                if self._oldest_gives_way():
                    continue
                log(f"the teacher is run at every epoch: {place} has no room for a file of its answers, {told} ({cause(error)})")
                return None
            self._traces.append((where, traces))
            return traces

    def _files(self) -> list[Path]:
        """Those that are shared, the oldest first."""
        files = [] if self.shared is None else [path for path in self.shared.glob("*/*.float*") if view_of(path.name)]
        return sorted(files, key=lambda path: path.stat().st_mtime)

    def _taken(self, path: Path) -> float:
        """GB of all files but the one to come, which may be there already."""
        if self.shared is None:
            return sum(traces.values.nbytes for _, traces in self._traces) / 1e9
        return sum(there.stat().st_size for there in self._files() if there.with_suffix("") != path) / 1e9

    def _oldest_gives_way(self) -> bool:
        """False where there is none that may."""
        if self.shared is None:
            return bool(self._traces) and bool(self._traces.pop(0))
        files = self._files() if self.own else []
        if files:
            self._traces = [(known, traces) for known, traces in self._traces if traces.path != files[0]]
            files[0].unlink()
        return bool(files)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _holds(one: View, other: View) -> bool:
    """Whether a file of `one` has all that `other` looks at."""
    return one.hidden >= other.hidden and one.scores >= other.scores
