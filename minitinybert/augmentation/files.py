"""Data augmentation from files to files: a task's directory in, one with a longer train.tsv out.

    read train ─▶ neighbours of its words of several pieces, all at once ─▶ shards of 128 examples, on several processes ─▶ train.tsv

Each shard is written beside and renamed, so that a run that was stopped goes on (`resume`). The
result is a function of the inputs and the seed: neither the processes nor the shards nor the
batches change it. What the recipes do is in algorithm.py.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import machine
from ..data.glue import Examples, Task, read_split, write_examples
from ..data.tables import ENDINGS
from ..data.tokenizer import Tokenizer
from ..data.vectors import load_vectors
from ..engine.parallel import available_cores, blas_threads, end_with_parent, keep_freed_memory
from ..engine.ranks import ALONE, Ranks
from ..errors import InputError
from ..files import json_text, read_json, replacing, write_json
from ..model.bert import Bert
from ..progress import log, progress
from .algorithm import HUAWEI_VECTORS, Augmenter, Row, Settings, copies_of, vector_names
from .candidates import BertCandidates
from .vectors import Neighbours
from .words import WordReader

_FORMAT = 1
_EXAMPLES = 128  # a shard
_SPLIT_AT_ONCE = 4096  # texts
_COUNTS = ("rows", "words", "bert", "glove")  # of a shard and, added up, of the whole


class Job(NamedTuple):
    """Examples first … first + len − 1 of the training file, as shard `number`."""

    number: int
    first: int
    examples: Examples


class Shards(NamedTuple):
    """Where the parts of a run are kept: shard-00000.tsv, .jsonl and, last, .json with its counts."""

    directory: Path

    def part(self, number: int, ending: str) -> Path:
        return self.directory / f"shard-{number:05d}.{ending}"

    def remove(self) -> None:
        """All of them, the plan first: what a process leaves that is killed here, nobody goes on
        with."""
        if self.directory.exists():
            (self.directory / "plan.json").unlink(missing_ok=True)
            shutil.rmtree(self.directory)


def augment(
    mlm: str,
    vectors: str | Path,
    task: Task,
    data: Path,
    out: Path,
    recipe: str = "paper",
    copies: int | None = None,
    probability: float = 0.4,
    candidates: int = 15,
    original: bool = True,
    provenance: bool = False,
    workers: int | None = None,
    resume: bool = False,
    seed: int = 0,
    device: str = "cpu",
    rows: int = 4096,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Write `out`/train.tsv, and beside it copies of the task's other files, so that `--data out`
    serves for distillation.

    mlm: a BERT with a masked-language-model head; vectors: see vectors.py; recipe: see
    algorithm.py; copies None: the recipe's own number for the task. original: the source row comes
    before its copies. provenance: `out`/provenance.jsonl has a line for each row of train.tsv: the
    source's line in its file, the copy's number (0: the original), and every replacement. workers:
    processes (None: one a core; one on a GPU). rows: word pieces in a batch of BERT's.

    Returns {"train": path, "examples", "rows", "words", "bert", "glove"}: words gone through in all
    copies, and how many of them were replaced by whom. InputError names what is wrong with an
    input, or what in `out` stands in the way.
    """
    data, out = Path(data), Path(out)
    settings = Settings(recipe, copies or copies_of(recipe, task.name), probability, candidates, original, seed)
    if copies is not None and copies < 1:
        raise InputError(f"--copies {copies}: at least one is needed")
    if data.resolve() == out.resolve():
        raise InputError(f"--out {out}: is --data too, whose train file would be replaced; name another directory")
    _check_free(out)
    source = read_split(task, data, "train")
    maker = _Maker(mlm, {}, settings, task, Shards(out / "augment-shards"), provenance, ranks.device(device), rows)
    # One rank reads the vectors, gigabytes for each that would, and hands on what came of them.
    own = _neighbours(_distinct_words(source, maker.reader), vectors, settings, maker.reader.special) if ranks.first else {}
    maker.augmenter.neighbours = neighbours = ranks.gather(own)[0]
    plan = _plan(settings, task, provenance, source, maker.model, neighbours)
    if resume and (done := _finished(out, plan)):
        if ranks.first:
            maker.shards.remove()  # of a run that was killed when all else was done
        return done
    out.mkdir(parents=True, exist_ok=True)
    ranks.wait()  # all have looked at what is in `out`
    if ranks.first:
        _begin(maker.shards, plan, resume)
    ranks.wait()
    jobs = list(_jobs(source))
    _make_all(maker, jobs[ranks.rank :: ranks.size], mlm, workers or max(1, available_cores() // ranks.local))
    ranks.wait()
    summary = _finish(maker.shards, jobs, task, data, out, plan, provenance) if ranks.first else {}
    return ranks.gather(summary)[0]


def _finish(
    shards: Shards, jobs: Sequence[Job], task: Task, data: Path, out: Path, plan: Mapping[str, Any], provenance: bool
) -> dict[str, Any]:
    """The result of all shards, which then are no longer needed."""
    summary = _assemble(out, shards, jobs, task, provenance)
    _copy_others(task, data, out)
    write_json(out / "augment.json", {"plan": plan, "summary": summary})
    shards.remove()
    return summary


# ------------------------------------------------------------------------------------------------------------------ neighbours


def _distinct_words(source: Examples, reader: WordReader) -> dict[str, bool]:
    """Every word of the file as it is written -> whether it is a single piece. InputError where the
    vocabulary knows none, a warning where it knows few."""
    texts = [*source.texts, *(source.pairs or ())]
    words: dict[str, bool] = {}
    unknown = pieces = 0
    for start in range(0, len(texts), _SPLIT_AT_ONCE):
        for sentence in reader.split(texts[start : start + _SPLIT_AT_ONCE]):
            words.update((word.text, reader.is_piece(word)) for word in sentence)
            unknown += sum(word.ids.count(reader.tokenizer.unk_id) for word in sentence)
            pieces += sum(len(word.ids) for word in sentence)
    reader.tokenizer.check_share(unknown, pieces, source.path)
    return words


def _neighbours(
    words: Mapping[str, bool], vectors: str | Path, settings: Settings, special: Sequence[str] = ()
) -> dict[str, list[str]]:
    """The candidates of every word of several pieces. The vectors are not needed after this, nor by
    any other process."""
    with blas_threads(None):
        table = load_vectors(vectors, HUAWEI_VECTORS if settings.recipe == "huawei-2019" else None)
        names = lambda word: (name for name in vector_names(word, settings.recipe) if name in table)
        if words and not any(next(names(word), None) for word in words):
            raise InputError(f"{vectors}: has none of the training file's {len(words)} words; are they of the same language?")
        found = {word: name for word, single in words.items() if not single and (name := next(names(word), None))}
        distinct = sorted(set(found.values()))
        nearest = dict(zip(distinct, Neighbours(table, special).nearest(distinct, settings.candidates), strict=True))
    return {word: nearest[name] for word, name in found.items()}


# --------------------------------------------------------------------------------------------------------------------- shards


class _Maker:
    """Makes shards, in this process or another."""

    def __init__(
        self,
        mlm: str,
        neighbours: Mapping[str, Sequence[str]],
        settings: Settings,
        task: Task,
        shards: Shards,
        provenance: bool,
        device: str,
        rows: int,
    ):
        keep_freed_memory()
        self.settings, self.task, self.shards, self.provenance, self.device, self.rows = settings, task, shards, provenance, device, rows
        self.model = Bert.load(mlm)
        if self.model.config.head != "mlm":
            raise InputError(f"{mlm}: has no masked-language-model head, which says what could stand in a word's place; --mlm needs one")
        tokenizer = Tokenizer.load(self.model.tokenizer_files)
        self.reader = WordReader(tokenizer)
        pieces_count = settings.recipe == "huawei-2019"
        on_device = self.model.to(machine.select(device))
        bert = BertCandidates(on_device, tokenizer, self.reader.whole, settings.candidates, pieces_count, rows)
        self.augmenter = Augmenter(self.reader, bert.ask, neighbours, settings)

    def make(self, job: Job) -> None:
        with blas_threads(1):  # processes share the work; and one thread's sums are always the same
            self._make(job)

    def _make(self, job: Job) -> None:
        source = job.examples
        texts: list[tuple[str, ...]] = list(zip(source.texts, source.pairs, strict=True)) if source.pairs else [(t,) for t in source.texts]
        rows = self.augmenter.rows(texts, job.first)
        which = np.array([row.example - job.first for row in rows])
        pairs = None if source.pairs is None else [row.texts[1] for row in rows]
        assert source.labels is not None
        lines = [source.rows[i] for i in which]
        made = Examples([row.texts[0] for row in rows], pairs, source.labels[which], lines, source.path)
        write_examples(self.shards.part(job.number, "tsv"), self.task, made)
        if self.provenance:
            with replacing(self.shards.part(job.number, "jsonl")) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(json_text(_record(row, line), ensure_ascii=False) + "\n" for row, line in zip(rows, lines, strict=True))
        lengths = {i: sum(map(len, self.reader.split(text))) for i, text in enumerate(texts)}
        counts = {"rows": len(rows), "words": sum(lengths[i] for i, row in zip(which, rows, strict=True) if row.copy)}
        for name in ("bert", "glove"):
            counts[name] = sum(r.source == name for row in rows for side in row.replacements for r in side)
        write_json(self.shards.part(job.number, "json"), counts)


def _record(row: Row, line: int) -> dict[str, Any]:
    made = [{"side": side, **r._asdict()} for side, replacements in enumerate(row.replacements) for r in replacements]
    return {"row": line, "copy": row.copy, "replacements": made}


def _jobs(source: Examples) -> Iterator[Job]:
    assert source.labels is not None
    for number, start in enumerate(range(0, len(source), _EXAMPLES)):
        part = slice(start, start + _EXAMPLES)
        pairs = None if source.pairs is None else source.pairs[part]
        yield Job(number, start, Examples(source.texts[part], pairs, source.labels[part], source.rows[part], source.path))


def _make_all(maker: _Maker, jobs: Sequence[Job], mlm: str, workers: int) -> None:
    left = [job for job in jobs if not maker.shards.part(job.number, "json").exists()]
    workers = 1 if maker.device != "cpu" else min(workers, len(left))
    arguments = (mlm, maker.augmenter.neighbours, maker.settings, maker.task, maker.shards, maker.provenance, maker.device, maker.rows)
    # spawn: a fork would copy the tokenizer's and the BLAS's threads in whatever state they are
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, _start, arguments) if workers > 1 else nullcontext() as pool:
            made = pool.map(_make_shard, left) if pool else map(maker.make, left)
            for _ in progress(made, len(jobs), "augment", initial=len(jobs) - len(left)):
                pass
    except BrokenProcessPool:
        raise InputError(f"one of {workers} processes died, perhaps for want of memory; fewer --processes, and --resume goes on") from None


_maker: _Maker | None = None  # of a process that makes shards


def _start(*arguments: Any) -> None:
    global _maker
    end_with_parent()
    _maker = _Maker(*arguments)


def _make_shard(job: Job) -> None:
    assert _maker is not None
    _maker.make(job)


# ------------------------------------------------------------------------------------------------------------- plan and result


def _plan(
    settings: Settings, task: Task, provenance: bool, source: Examples, model: Bert, neighbours: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """All that the result is a function of: a run goes on only with the same."""
    return {
        "format": _FORMAT,
        "settings": asdict(settings),
        "task": task.name,
        "provenance": provenance,
        "examples": len(source),
        "train file": hashlib.sha256(source.path.read_bytes()).hexdigest(),
        "parts": task.parts and asdict(task.parts),
        "model": hashlib.sha256(np.ascontiguousarray(model.parameters.flat).data).hexdigest(),
        "neighbours": hashlib.sha256(json.dumps(neighbours, sort_keys=True).encode()).hexdigest(),
    }


def _check_free(out: Path) -> None:
    """InputError where `out` holds a training file that is not of this command's making."""
    ours = (out / "augment.json").exists() or (out / "augment-shards").exists()
    if not ours and (there := [name for ending in ENDINGS if (out / (name := f"train{ending}")).exists()]):
        raise InputError(f"{out}: holds a {there[0]} that augment did not write; name another directory")


def _finished(out: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a finished run of this plan returned; InputError where one of another plan is."""
    if not (out / "augment.json").exists():
        return None
    path = out / "augment.json"
    then = read_json(path)
    _check_same(then.get("plan"), plan, out)
    summary = then.get("summary")
    if not isinstance(summary, dict) or summary.keys() != {"train", "examples", *_COUNTS} or not isinstance(summary["train"], str):
        raise InputError(f"{path}: does not hold what a run has done; remove it, and --resume makes it anew")
    return {"train": summary["train"], **_counts(summary, ("examples", *_COUNTS), path)}


def _counts(raw: Mapping[str, Any], names: Sequence[str], path: Path) -> dict[str, int]:
    """The counts of a file of ours; InputError where one is not a whole number."""
    bad = [name for name in names if type(raw.get(name)) is not int or not 0 <= raw[name] < 2**53]
    if bad:
        raise InputError(f"{path}: {bad[0]} is not a count; remove it, and --resume makes it anew")
    return {name: raw[name] for name in names}


def _check_same(then: Any, plan: Mapping[str, Any], out: Path) -> None:
    for name, value in plan.items():
        if not isinstance(then, dict) or then.get(name) != value:
            raise InputError(f"{out}: was begun with another choice of {name}; go on with the same, or begin anew without --resume")


def _begin(shards: Shards, plan: Mapping[str, Any], resume: bool) -> None:
    path = shards.directory / "plan.json"
    if resume and path.exists():
        _check_same(read_json(path), plan, shards.directory.parent)
        return
    shards.remove()
    shards.directory.mkdir()
    write_json(path, plan)


def _assemble(out: Path, shards: Shards, jobs: Sequence[Job], task: Task, provenance: bool) -> dict[str, Any]:
    (out / "augment.json").unlink(missing_ok=True)  # of a run before: no longer true
    with replacing(out / "train.tsv") as beside, beside.open("wb") as file:
        file.writelines(_joined([shards.part(job.number, "tsv") for job in jobs], task))
    if provenance:
        with replacing(out / "provenance.jsonl") as beside, beside.open("wb") as file:
            for job in jobs:
                file.write(shards.part(job.number, "jsonl").read_bytes())
    else:
        (out / "provenance.jsonl").unlink(missing_ok=True)
    counts = [_counts(read_json(path), _COUNTS, path) for path in (shards.part(job.number, "json") for job in jobs)]
    summary: dict[str, Any] = {"train": str(out / "train.tsv"), "examples": sum(len(job.examples) for job in jobs)}
    return {**summary, **{name: sum(count[name] for count in counts) for name in _COUNTS}}


def _joined(parts: Sequence[Path], task: Task) -> Iterator[bytes]:
    """The rows of the parts under one header; columns that nobody reads hold the row's number,
    counted through all parts."""
    columns = (*task.text_columns, task.label_column)
    read = [i if column.place is None else column.place for i, column in enumerate(columns)]
    row = 0
    for number, part in enumerate(parts):
        with part.open("rb") as file:
            if task.header and (header := file.readline()) and not number:
                yield header
            for line in file:
                fields = line.split(b"\t")
                for place in set(range(len(fields))) - {place % len(fields) for place in read}:
                    fields[place] = str(row).encode()
                yield b"\t".join(fields)
                row += 1


def _copy_others(task: Task, data: Path, out: Path) -> None:
    if data.is_file():
        for split in set(task.files) - {"train"}:
            write_examples(out / f"{split}.tsv", task, read_split(task, data, split))
        return
    for split, name in task.files.items():
        found = [path for ending in ENDINGS if (path := data / (name + ending)).is_file()]
        if split == "train":
            continue
        if found:
            with replacing(out / found[0].name) as beside:
                shutil.copyfile(found[0], beside)
        elif split in task.dev_splits:
            log(f"warning: {data}: no {name} file to copy; distillation needs one")
