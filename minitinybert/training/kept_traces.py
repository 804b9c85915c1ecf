"""What a frozen teacher says of each example, worked out once and kept on disk: the intermediate
step then runs no teacher.

One memory-mapped file holds, for every example, the hidden states and scores that the objective
looks at; an example's place follows from its length. The whole is filled before the first step, in
an order of its own: a run that is resumed fills it with the same bits.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..data.batching import EncodedExamples, by_length
from ..distillation.objectives import View
from ..engine.batch import Batch
from ..engine.device import Array, array_module, to_host
from ..engine.parallel import Workers
from ..files import reserve
from ..model.bert import Bert
from ..model.config import Config
from ..model.self_attention import split_runs
from ..model.trace import Trace
from ..progress import progress
from .teacher import Teacher

_ROWS = 2048  # tokens a batch of the teacher's


def gigabytes(lengths: np.ndarray, config: Config, view: View, itemsize: int = 4) -> float:
    """How large the file of examples of these lengths would be."""
    return float(_sizes(lengths, config, view).sum()) * itemsize / 1e9


def _sizes(lengths: np.ndarray, config: Config, view: View) -> np.ndarray:
    """(n,) values an example: L·d a hidden state, h·L² a layer's scores."""
    L = lengths.astype(np.int64)
    return len(view.hidden) * L * config.hidden_size + len(view.scores) * config.num_attention_heads * L**2


class KeptTraces(Teacher):
    """The parts of the teacher's traces of `examples` that `view` names. The file, in `directory`,
    goes away with the object. OSError where the disk has no room for it and `spare` bytes more."""

    def __init__(self, teacher: Bert, examples: EncodedExamples, view: View, directory: Path, workers: Workers, spare: int = 0):
        self.config, self.hidden, self.scores = teacher.config, sorted(view.hidden), sorted(view.scores)
        lengths = examples.lengths()
        self.offsets = np.concatenate([[0], np.cumsum(_sizes(lengths, teacher.config, view))])
        dtype, count = teacher.parameters.flat.dtype, int(self.offsets[-1])
        with tempfile.TemporaryFile(dir=directory) as file:  # without a name, or at once without it: nothing is left of a killed run
            reserve(file.fileno(), count * dtype.itemsize + spare)
            os.ftruncate(file.fileno(), count * dtype.itemsize)
            self.values = np.memmap(file, dtype, "r+", shape=(count,))
        teacher = teacher.for_reading()

        def ask(indices: np.ndarray) -> None:
            batch = examples.batch(indices)
            trace, _ = teacher.forward_batch(teacher.place(batch), keep_cache=False, **view.arguments(batch))
            self._put(batch, trace)

        batches = list(by_length(lengths, _ROWS))
        for start in progress(range(0, len(batches), 8), -(-len(batches) // 8), "ask the teacher"):
            workers.map(ask, batches[start : start + 8])

    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        """Of a packed batch of these examples all that is kept."""
        xp, c, dtype = array_module(batch.input_ids), self.config, self.values.dtype
        hidden = {n: np.empty((len(batch.input_ids), c.hidden_size), dtype) for n in self.hidden}
        scores = {n: np.empty(c.num_attention_heads * batch.row_pairs, dtype) for n in self.scores}
        for value, part in self._places(batch, hidden, scores):
            part[...] = value.reshape(part.shape)
        up = lambda kept, count: [xp.asarray(kept[n]) if n in kept else None for n in range(count)]
        return Trace(hidden=up(hidden, c.num_hidden_layers + 1), scores=up(scores, c.num_hidden_layers))

    def _put(self, batch: Batch, trace: Trace) -> None:
        assert trace.hidden is not None and trace.scores is not None
        hidden = {n: to_host(trace.hidden[n]) for n in self.hidden}
        scores = {n: to_host(trace.scores[n]) for n in self.scores}
        for value, part in self._places(batch, hidden, scores):
            value[...] = part.reshape(-1)

    def _places(self, batch: Batch, hidden: dict[int, Array], scores: dict[int, Array]) -> Iterator[tuple[Array, Array]]:
        """(the place in the file, the part of the trace's array) of everything kept of each
        sentence of a batch."""
        sentence = 0
        views = {n: split_runs(flat, batch.runs, self.config.num_attention_heads) for n, flat in scores.items()}
        for r, run in enumerate(batch.runs):
            for i in range(run.n):
                at = int(self.offsets[batch.sentences[sentence]])
                first = run.start + i * run.length
                parts = [hidden[n][first : first + run.length] for n in self.hidden] + [views[n][r][i] for n in self.scores]
                for part in parts:
                    yield self.values[at : at + part.size], part
                    at += part.size
                sentence += 1
