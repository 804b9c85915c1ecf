"""What a frozen teacher says of each example, worked out once and kept on disk: the intermediate
step then runs no teacher.

One memory-mapped file holds, for every example, the hidden states and scores that the objective
looks at; an example's place follows from its length. The whole is filled before the first step, in
an order of its own: a run that is resumed fills it with the same bits.

Answers are kept in float16, which moves the gradient by some 1e-5 of its length; where one lies
beyond that type's range, the whole file is in the teacher's own dtype. `Rounded` answers for a file
that there is no room for, with the same values but for rounding that goes the other way here and
there: with which precision a run learns does not hang on the room it finds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..claims import claimed
from ..data.batching import EncodedExamples, by_length
from ..distillation.objectives import View
from ..engine.batch import Batch
from ..engine.device import KERNELS, Array, array_module, to_host
from ..engine.parallel import Workers
from ..errors import InputError
from ..files import cause, replacing, reserve, writing
from ..model.bert import Bert
from ..model.config import Config
from ..model.self_attention import split_runs
from ..model.trace import Trace
from ..progress import log, progress
from .teacher import Teacher

KEPT = np.dtype(np.float16)
FREE = 0.9  # of a disk's free bytes a file takes at most so much, what its run writes included: others write there too
_FORMAT = "minitinybert answers 1"  # what lies where in a file
_LARGEST = float(np.finfo(KEPT).max)
_ROWS = 2048  # tokens a batch of the teacher's


class NoRoom(Exception):
    """The disk has no room for a file of answers. No OSError: `files.writing` makes errors for the
    user of those, and a run goes on without this file."""


class _OutOfRange(Exception):
    pass


def gigabytes(lengths: np.ndarray, config: Config, view: View, itemsize: int = KEPT.itemsize) -> float:
    """How large the file of examples of these lengths would be."""
    return float(_sizes(lengths, config, view).sum()) * itemsize / 1e9


def _sizes(lengths: np.ndarray, config: Config, view: View) -> np.ndarray:
    """(n,) values an example: L·d a hidden state, h·L² a layer's scores."""
    L = lengths.astype(np.int64)
    return len(view.hidden) * L * config.hidden_size + len(view.scores) * config.num_attention_heads * L**2


def key_of(teacher: Bert, examples: EncodedExamples) -> str:
    """What tells teachers and data sets apart wherever they lie: a digest of the teacher's config
    and weights, of the examples' ids, and of whose passes work the answers out, since bits differ."""
    digest = hashlib.blake2b(digest_size=12)
    flat = to_host(teacher.parameters.flat)
    for part in (_FORMAT, asdict(teacher.config), flat.dtype.str, bool(KERNELS["cpu"]), examples.pad_to):
        digest.update(repr(part).encode())
    digest.update(np.ascontiguousarray(flat).view(np.uint8).data)
    for rows in (examples.input_ids, examples.token_type_ids):
        digest.update(np.array([len(row) for row in rows], np.int64).tobytes())
        for row in rows:
            digest.update(row.astype(np.int32, copy=False).tobytes())
    return digest.hexdigest()


def name_of(view: View) -> str:
    """Of a file of what `view` looks at: which hidden states, which scores, as bits of two
    hexadecimal numbers."""
    return "-".join(f"{sum(1 << n for n in parts):x}" for parts in (view.hidden, view.scores))


def view_of(name: str) -> View | None:
    """The view of a file of that name; None where it is none of ours."""
    found = re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+)\.float\d\d", name)
    if not found:
        return None
    hidden, scores = (frozenset(n for n in range(4 * len(part)) if int(part, 16) >> n & 1) for part in found.groups())
    return View(hidden, scores)


def _in_range(values: Array) -> bool:
    """Whether float16 holds them; NaN is none of its, so that it stays what it is."""
    return not values.size or bool(max(values.max(), -values.min()) <= _LARGEST)


class Rounded(Teacher):
    """Another's hidden states and scores as a file of KeptTraces would hold them. (Where some are
    beyond float16's range these alone keep their dtype: the file would keep all.)"""

    def __init__(self, teacher: Teacher):
        self.teacher = teacher

    def check(self, batch: Batch) -> None:
        self.teacher.check(batch)

    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        trace = self.teacher.answer(batch, view, at)
        near = lambda a: a if a is None or not _in_range(a) else a.astype(KEPT).astype(a.dtype)
        of = lambda arrays, seen: arrays and [near(a) if n in seen else a for n, a in enumerate(arrays)]
        return Trace(hidden=of(trace.hidden, view.hidden), scores=of(trace.scores, view.scores))


class KeptTraces(Teacher):
    """The parts of the teacher's traces of `examples` that `view` names, kept in `dtype`, or in the
    teacher's own where one is beyond its range; answered in the teacher's own.

    The file lies in `directory` without a name and goes away with the object; or it has `name`, is
    mapped as it is where it is there and whole, and stays: whoever finds another process at it waits
    for that one. `told` is said where the file is begun. NoRoom where the disk has none for it and
    `spare` bytes more. InputError where `directory`, of a file with a name, cannot be written to.
    """

    def __init__(
        self,
        teacher: Bert,
        examples: EncodedExamples,
        view: View,
        directory: Path,
        workers: Workers,
        spare: int = 0,
        dtype: Any = KEPT,
        name: str | None = None,
        told: str = "",
    ):
        self.config, self.hidden, self.scores = teacher.config, sorted(view.hidden), sorted(view.scores)
        self.dtype = teacher.parameters.flat.dtype
        self.path: Path | None = None  # of a file with a name
        lengths = examples.lengths()
        self.offsets = np.concatenate([[0], np.cumsum(_sizes(lengths, teacher.config, view))])
        self._asked, self._told = (teacher.for_reading(), examples, view, workers), told
        try:
            self.values = self._made(np.dtype(dtype), directory, spare, name)
        except _OutOfRange:
            log(f"some of the teacher's answers are beyond {np.dtype(dtype)}'s range; all are kept in {self.dtype}")
            self.values = self._made(self.dtype, directory, spare, name)
        del self._asked

    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        """Of a packed batch of these examples all that is kept."""
        xp, c = array_module(batch.input_ids), self.config
        hidden = {n: np.empty((len(batch.input_ids), c.hidden_size), self.dtype) for n in self.hidden}
        scores = {n: np.empty(c.num_attention_heads * batch.row_pairs, self.dtype) for n in self.scores}
        for value, part in self._places(self.values, batch, hidden, scores):
            part[...] = value.reshape(part.shape)
        up = lambda kept, count: [xp.asarray(kept[n]) if n in kept else None for n in range(count)]
        return Trace(hidden=up(hidden, c.num_hidden_layers + 1), scores=up(scores, c.num_hidden_layers))

    # ------------------------------------------------------------------------------------------------------------------ the file

    def _made(self, dtype: np.dtype, directory: Path, spare: int, name: str | None) -> np.ndarray:
        """The values in `dtype`, all there. _OutOfRange where one is beyond it."""
        if name is None:
            with tempfile.TemporaryFile(dir=directory) as file:  # without a name, or at once without it: nothing is left of a killed run
                return self._filled(file, dtype, directory, spare)
        wide = directory / f"{name}.{self.dtype}"
        self.path = directory / f"{name}.{dtype}"
        for path in (wide, self.path):  # what was beyond the range once is again
            if self._is_whole(path):
                log(f"the teacher is not asked: its answers are at hand in {path}")
                return self._mapped(path)
        with claimed(directory, "the teacher's answers", wait=True):
            if not self._is_whole(self.path):  # nor has the one that was waited for filled it
                try:
                    with writing(directory):
                        directory.mkdir(exist_ok=True)
                    with replacing(self.path) as beside, beside.open("r+b") as file:
                        self._filled(file, dtype, directory, spare).flush()
                finally:
                    with suppress(OSError):
                        directory.rmdir()  # where nothing came to lie in it
            return self._mapped(self.path)

    def _is_whole(self, path: Path) -> bool:
        """A file is there as soon as it is whole; what has another size, somebody has damaged."""
        size = int(self.offsets[-1]) * np.dtype(path.suffix[1:]).itemsize
        return path.is_file() and path.stat().st_size == size

    def _mapped(self, path: Path) -> np.ndarray:
        self.path = path
        try:
            return np.memmap(path, path.suffix[1:], "r")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({cause(error)}); remove it, and it is made anew") from None

    def _filled(self, file: IO[bytes], dtype: np.dtype, directory: Path, spare: int) -> np.memmap:
        """A mapped file of all values, space for which is reserved first."""
        count = int(self.offsets[-1])
        size = count * dtype.itemsize
        try:
            free = shutil.disk_usage(directory).free
            if size + spare > FREE * free:
                raise NoRoom(f"{free / 1e9:.1f} GB are free")
            reserve(file.fileno(), size + spare)
            os.ftruncate(file.fileno(), size)
        except OSError as error:
            raise NoRoom(cause(error)) from None
        values = np.memmap(file, dtype, "r+", shape=(count,))
        if self._told:
            log(self._told)
        self._fill(values)
        return values

    def _fill(self, values: np.ndarray) -> None:
        teacher, examples, view, workers = self._asked

        def ask(indices: np.ndarray) -> None:
            batch = examples.batch(indices)
            trace, _ = teacher.forward_batch(teacher.place(batch), keep_cache=False, **view.arguments(batch))
            self._put(values, batch, trace)

        batches = list(by_length(examples.lengths(), _ROWS))
        for start in progress(range(0, len(batches), 8), -(-len(batches) // 8), "ask the teacher"):
            workers.map(ask, batches[start : start + 8])

    def _put(self, values: np.ndarray, batch: Batch, trace: Trace) -> None:
        assert trace.hidden is not None and trace.scores is not None
        hidden = {n: to_host(trace.hidden[n]) for n in self.hidden}
        scores = {n: to_host(trace.scores[n]) for n in self.scores}
        if values.dtype == KEPT != self.dtype and not all(map(_in_range, [*hidden.values(), *scores.values()])):
            raise _OutOfRange
        for value, part in self._places(values, batch, hidden, scores):
            value[...] = part.reshape(-1)

    def _places(
        self, values: np.ndarray, batch: Batch, hidden: dict[int, Array], scores: dict[int, Array]
    ) -> Iterator[tuple[Array, Array]]:
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
                    yield values[at : at + part.size], part
                    at += part.size
                sentence += 1
