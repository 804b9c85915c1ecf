"""Raw text as memory-mapped word pieces: tokenised once, then read without being loaded.

    files ─▶ shards of some 32 MB of text, each a job for a process ─▶ one index of sentences and documents ─▶ Corpus

Input: UTF-8, one sentence a line, a blank line (or a file's end) between documents; or plain text,
whose lines are split into sentences at `. ! ?` before white space and a capital letter, a digit or
an opening quote. Very long lines are cut (text.py). A directory of shards holds

    plan.json                   what was asked: sources (name, size, time), tokenizer, sizes
    shard-00000.tokens.npy      (t,) uint16 or uint32, sentence after sentence
    shard-00000.lengths.npy     (s,) uint32 tokens of each sentence
    shard-00000.documents.npy   sentences (0 … s) before which a document ends; written after the other two: the shard is done
    sentences.npy               (n + 1,) int64 where each sentence starts, all shards' tokens counted through
    documents.npy               (D + 1,) int64 the sentence each document starts with
    manifest.json               plan and counts; written last of all: the corpus is whole
"""

from __future__ import annotations

import bisect
import hashlib
import json
import multiprocessing
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from ..claims import claimed
from ..engine.batch import check_range
from ..engine.parallel import end_with_parent
from ..engine.ranks import ALONE, Ranks
from ..errors import InputError
from ..files import read_array, read_json, replacing, write_json
from ..progress import progress
from .text import read_corpus

_FORMAT = 1
_SHARD_BYTES = 32 << 20  # of text
_BATCH_BYTES = 1 << 18  # characters handed to the tokenizer at once
_SENTENCE_END = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["'”’)\]]))\s+(?=["'“‘(\[]?[A-ZÀ-Þ0-9])""")


_DTYPES = {"tokens": "<u2 <u4", "lengths": "<u4", "documents": "<i8"}
_ANEW = "remove the directory, and it is made anew"


class Job(NamedTuple):
    """The lines of `path` that begin in bytes start … stop − 1, as shard `number` of `directory`:
    all that a process needs to know."""

    number: int
    path: Path
    start: int
    stop: int
    directory: Path
    tokenizer: str  # its JSON
    sentences: bool


class Corpus:
    """The sentences of some files as ids: `corpus.sentence(i)`, `corpus.tokens(a, b)`; nothing is
    held in memory but the page cache.

    starts (n+1,)      where each sentence starts among all tokens
    documents (D+1,)   the sentence each document starts with, then n
    """

    def __init__(self, directory: Path):
        """Open a finished directory of shards; InputError where it is none."""
        self.directory = Path(directory)
        if not (self.directory / "manifest.json").is_file():
            raise InputError(f"{directory}: no manifest.json; not a directory of corpus shards, or one that is not finished")
        self.manifest = read_json(self.directory / "manifest.json")
        shards = self.manifest.get("shards")
        if type(shards) is not int or shards < 1:
            raise InputError(f"{self.directory / 'manifest.json'}: does not say how many shards there are; {_ANEW}")
        self.starts = read_array(self.directory / "sentences.npy", "<i8")
        self.documents = read_array(self.directory / "documents.npy", "<i8")
        self._shards: list[np.ndarray] = []
        while len(self._shards) < shards:  # ends at the first that is not there, whatever number the manifest says
            self._shards.append(read_array(_part(self.directory, len(self._shards), "tokens"), _DTYPES["tokens"]))
        self._ends = np.cumsum([len(tokens) for tokens in self._shards]).tolist()
        if not (_rises(self.starts, self._ends[-1]) and _rises(self.documents, len(self.starts) - 1)):
            raise InputError(f"{directory}: its shards and their index are not of one corpus, or damaged; {_ANEW}")

    def __len__(self) -> int:
        """n, the number of sentences."""
        return len(self.starts) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.starts[-1])

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens start … stop − 1 of the whole corpus, (stop − start,) int32."""
        parts = []
        shard = bisect.bisect_right(self._ends, start)
        while start < stop:
            before = self._ends[shard - 1] if shard else 0
            end = min(stop, self._ends[shard])
            parts.append(self._shards[shard][start - before : end - before].astype(np.int32))
            start, shard = end, shard + 1
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int32), *parts])

    def sentence(self, i: int) -> np.ndarray:
        """(L,) int32"""
        return self.tokens(int(self.starts[i]), int(self.starts[i + 1]))

    def counts(self, sentences: int, vocab_size: int) -> np.ndarray:
        """How often each word piece stands in the first `sentences`, (V,) int64. InputError where
        an id is none of the vocabulary's."""
        end, step = int(self.starts[sentences]), 1 << 22  # 16 MiB of tokens at once
        counts = np.zeros(vocab_size, np.int64)
        for at in range(0, end, step):
            tokens = self.tokens(at, min(end, at + step))
            check_range(f"{self.directory}: the corpus", tokens, vocab_size)
            counts += np.bincount(tokens, minlength=vocab_size)
        return counts


def _rises(places: np.ndarray, end: int) -> bool:
    """Whether `places` go from 0 to `end`, each after the one before it."""
    step = 1 << 20
    blocks = (places[at : at + step + 1] for at in range(0, len(places), step))
    return len(places) > 0 and places[0] == 0 and places[-1] == end and all(bool((block[1:] > block[:-1]).all()) for block in blocks)


# --------------------------------------------------------------------------------------------------------------------- making


def build_shards(
    files: Sequence[str | Path],
    tokenizer: Tokenizer,
    directory: str | Path,
    workers: int = 1,
    sentences: bool = True,
    shard_bytes: int = _SHARD_BYTES,
    ranks: Ranks = ALONE,
) -> Corpus:
    """Tokenise `files` into `directory` on `workers` processes (of each rank); go on where a build
    was stopped; a finished one is only opened.

    sentences: one sentence a line; False: plain text. The shards do not depend on `workers`.
    InputError names file and line of bad UTF-8; a missing or empty file; a directory that holds
    another corpus's or another tokenizer's shards.
    """
    directory, paths = Path(directory), [Path(file) for file in files]
    plan = _plan(paths, tokenizer, sentences, shard_bytes)
    if not all(ranks.gather(_finished(directory, plan))):
        with claimed(directory, "--shards") if ranks.first else nullcontext():
            directory.mkdir(parents=True, exist_ok=True)
            if ranks.first:
                _begin(directory, plan)
            ranks.wait()
            jobs = list(_jobs(paths, directory, tokenizer.to_str(), sentences, shard_bytes))
            _tokenise(jobs[ranks.rank :: ranks.size], workers)
            ranks.wait()
            if ranks.first:
                _write_index(directory, len(jobs), plan)
            ranks.wait()
    return Corpus(directory)


def fingerprint(tokenizer: Tokenizer) -> str:
    """Of what the ids depend on: the tokenizer's JSON but for padding and truncation."""
    steps = json.loads(tokenizer.to_str())
    relevant = {name: step for name, step in steps.items() if name not in ("version", "padding", "truncation")}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def sources(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What tells the files of a corpus from others: name, size (bytes) and time of each. InputError
    where one is none, or all are empty."""
    found = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: not a file; name the corpus's text files one by one")
        status = path.stat()
        found.append({"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    if not any(source["size"] for source in found):
        raise InputError(f"{', '.join(map(str, paths)) or 'the corpus'}: no text; name at least one file that holds some")
    return found


def _plan(paths: Sequence[Path], tokenizer: Tokenizer, sentences: bool, shard_bytes: int) -> dict[str, Any]:
    dtype = "uint16" if tokenizer.get_vocab_size() <= 1 << 16 else "uint32"
    rest = {"tokenizer": fingerprint(tokenizer), "sentences": sentences, "shard_bytes": shard_bytes, "dtype": dtype}
    return {"format": _FORMAT, "sources": sources(paths), **rest}


def _finished(directory: Path, plan: dict[str, Any]) -> bool:
    """Whether the shards of this plan are all there; InputError where a finished corpus of another
    plan is."""
    if not (directory / "manifest.json").exists():
        return False
    then = read_json(directory / "manifest.json").get("plan")
    for name, value in plan.items():
        if not isinstance(then, dict) or then.get(name) != value:
            what = {"tokenizer": "by another tokenizer", "sources": "from other files, or from these before they were changed"}
            raise InputError(f"{directory}: holds shards made {what.get(name, 'with another ' + name)}; remove it, or name another")
    return True


def _begin(directory: Path, plan: dict[str, Any]) -> None:
    """Note the plan; shards that were begun with another are not gone on with."""
    path = directory / "plan.json"
    if not path.exists() or read_json(path) != plan:
        path.unlink(missing_ok=True)  # first: shards without a plan are gone on with by nobody
        for shard in directory.glob("shard-*.npy"):
            shard.unlink()
    write_json(path, plan)


def _jobs(paths: Sequence[Path], directory: Path, tokenizer: str, sentences: bool, shard_bytes: int) -> Iterator[Job]:
    number = 0
    for path in paths:
        size = path.stat().st_size
        for start in range(0, size, shard_bytes):
            yield Job(number, path.resolve(), start, min(start + shard_bytes, size), directory.resolve(), tokenizer, sentences)
            number += 1


def _tokenise(jobs: Sequence[Job], workers: int) -> None:
    left = [job for job in jobs if not _part(job.directory, job.number, "documents").exists()]
    workers = min(workers, len(left))
    # spawn: a fork would copy the tokenizer's and the BLAS's threads in whatever state they are
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, end_with_parent) if workers > 1 else nullcontext() as pool:
            for _ in progress((pool.map if pool else map)(_make_shard, left), len(jobs), "tokenise", initial=len(jobs) - len(left)):
                pass
    except BrokenProcessPool:
        raise InputError(f"one of {workers} processes died, perhaps for want of memory; try fewer --processes") from None


def _make_shard(job: Job) -> None:
    """One job, from the text to its three files."""
    tokenizer = Tokenizer.from_str(job.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    tokens, lengths, documents = [np.empty(0, dtype)], array("I"), [] if job.start else [0]
    for texts in _batches(job):
        encodings = iter(tokenizer.encode_batch([text for text in texts if text], add_special_tokens=False))
        ids = [next(encodings).ids if text else None for text in texts]
        tokens.append(np.fromiter(chain.from_iterable(piece for piece in ids if piece), dtype))
        for piece in ids:
            if piece:
                lengths.append(len(piece))
            elif piece is None:
                documents.append(len(lengths))
    save = lambda name, values: _save(_part(job.directory, job.number, name), values.shape, [values])
    save("tokens", np.concatenate(tokens))
    save("lengths", np.array(lengths, np.uint32))
    save("documents", np.unique(np.array(documents, np.int64)))


def _batches(job: Job) -> Iterator[list[str]]:
    """The job's sentences in lists of some 256 kB; "" stands where a document ends."""
    texts: list[str] = []
    size = 0
    for line in read_corpus(job.path, job.start, job.stop):
        texts += _SENTENCE_END.split(line) if line and not job.sentences else [line]
        size += len(line)
        if size >= _BATCH_BYTES:
            yield texts
            texts, size = [], 0
    yield texts


def _write_index(directory: Path, shards: int, plan: dict[str, Any]) -> None:
    """sentences.npy and documents.npy of all shards, then the manifest."""
    load = lambda name: (read_array(_part(directory, k, name), _DTYPES[name]) for k in range(shards))
    for number, (words, lengths, firsts) in enumerate(zip(load("tokens"), load("lengths"), load("documents"), strict=True)):
        breaks = not len(firsts) or (firsts[0] >= 0 and firsts[-1] <= len(lengths) and bool((np.diff(firsts) > 0).all()))
        if not breaks or lengths.sum(dtype=np.int64) != len(words):
            raise InputError(f"{_part(directory, number, 'lengths')}: not of the same shard as its neighbours, or damaged; {_ANEW}")
    n = sum(len(lengths) for lengths in load("lengths"))
    if not n:
        raise InputError(f"{', '.join(source['name'] for source in plan['sources'])}: no text; every line is empty")
    _save(directory / "sentences.npy", (n + 1,), _starts(load("lengths")))
    before = accumulate((len(lengths) for lengths in load("lengths")), initial=0)
    documents = np.unique(np.concatenate([*(part + first for part, first in zip(load("documents"), before, strict=False)), [n]]))
    _save(directory / "documents.npy", documents.shape, [documents])
    tokens = sum(int(lengths.sum(dtype=np.int64)) for lengths in load("lengths"))
    counts = {"shards": shards, "documents": len(documents) - 1, "sentences": n, "tokens": tokens}
    write_json(directory / "manifest.json", {"plan": plan, **counts})


def _part(directory: Path, number: int, name: str) -> Path:
    return directory / f"shard-{number:05d}.{name}.npy"


def _starts(lengths: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Where each sentence starts, (n + 1,) int64 in parts."""
    at = np.zeros(1, np.int64)
    yield at
    for part in lengths:
        at = at[-1:] + np.cumsum(part, dtype=np.int64) if len(part) else at
        yield at[: len(part)]


def _save(path: Path, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> None:
    """A .npy of parts of one dtype, written as bytes: mapped memory ends the process where the disk
    is full, and NumPy's own writer does not tell the cause."""
    with replacing(path) as beside, open(beside, "wb") as file:
        for number, part in enumerate(parts):
            if not number:
                header = {"descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(part.tobytes())
