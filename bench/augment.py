"""How fast augmentation is: batched, against Algorithm 1 as it is written, one sentence and one masked word at a time, by the same model.

    python bench/augment.py                                                        a random BERT, generated words
    python bench/augment.py --mlm DIR --vectors FILE --task sst-2 --data DIR       the real thing

Pairs of measurements, interleaved, one BLAS thread each (--threads). Both go through the same sentences: ours makes all copies of them, a
loop makes one copy, and the rows of that copy must be equal. Two loops: `literal` asks BERT at every word; `lean` draws p first and asks
only where the word is replaced, as ours does. Both take the masked row alone through the head. Words a second count every word gone
through.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import begin, parser, ratio_bars, save, spread, summary, table
from threadpoolctl import threadpool_limits

from minitinybert.augmentation.algorithm import Augmenter, Settings, vector_names
from minitinybert.augmentation.candidates import BertCandidates, Question
from minitinybert.augmentation.vectors import Neighbours
from minitinybert.augmentation.words import WordReader
from minitinybert.commands.shape import parse_shape
from minitinybert.data.glue import TASKS, read_split
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.data.vectors import load_vectors
from minitinybert.engine.batch import packed
from minitinybert.engine.parallel import keep_freed_memory
from minitinybert.engine.random import generator
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config


def main() -> None:
    args = _arguments()
    about = begin(args)
    keep_freed_memory()
    model, tokenizer, texts = _inputs(args)
    reader = WordReader(tokenizer)
    neighbours = _neighbours(reader, texts, args)
    settings = Settings(copies=args.copies, seed=args.seed)
    measured: list[dict[str, float]] = []
    with threadpool_limits(args.threads, user_api="blas"):
        for pair in range(-1, args.pairs):  # −1 warms up
            chunk = [texts[i % len(texts)] for i in range((pair + 1) * args.sentences, (pair + 2) * args.sentences)]
            measured.append(_pair(model, reader, neighbours, settings, chunk, loops_first=pair % 2 == 0))
    report = _report(measured[1:], args, model)
    _print(report)
    bars = {f"ours / {name} loop": ratio for name, ratio in report["ratio"].items()}
    title = f"Augmentation, {report['model']}\n{about['processor']}"
    draw = lambda figure: ratio_bars(figure, bars, title, "time of ours / time of the loop")
    save("augment", args, {"machine": about, **report}, draw, size=(8, 2.5))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("--mlm", metavar="DIR", help="a BERT with a masked-language-model head; without it a random one of --shape")
    p.add_argument("--shape", default="2L-128D-2H-512F")
    p.add_argument("--vectors", metavar="FILE", help="word vectors; without them words of several pieces stay")
    p.add_argument("--task", default="sst-2", choices=sorted(TASKS))
    p.add_argument("--data", type=Path, metavar="DIR", help="the task's files, whose first texts are used; without it generated words")
    p.add_argument("--sentences", type=int, default=64, help="in a measurement")
    p.add_argument("--copies", type=int, default=20)
    p.set_defaults(threads=1)
    args = p.parse_args()
    if args.quick:
        args.sentences, args.copies = 4, 2
    return args


def _pair(model: Bert, reader: WordReader, neighbours: dict, settings: Settings, texts: list[str], loops_first: bool) -> dict[str, float]:
    """Words a second of ours and of both loops on the same sentences; AssertionError where their rows differ."""
    words = sum(map(len, reader.split(texts)))
    seconds, rows = {}, {}

    def ours() -> None:
        ask = BertCandidates(model, reader.tokenizer, reader.whole, settings.candidates).ask  # a cache that is empty
        rows["ours"] = Augmenter(reader, ask, neighbours, settings).rows([(text,) for text in texts])

    def loop(name: str, every_word: bool) -> None:
        ask = OneByOne(model, reader, settings.candidates)
        one = Augmenter(reader, ask.ask, neighbours, replace(settings, copies=1))
        rows[name] = [row for e, text in enumerate(texts) for row in one.rows([(text,)], e)]
        if every_word:  # those that the draw spares, which Algorithm 1 asks all the same
            for row in rows[name]:
                ask.rest(row.texts[0], {r.position for r in row.replacements[0]}) if row.copy else None

    jobs = {"ours": ours, "lean": lambda: loop("lean", False), "literal": lambda: loop("literal", True)}
    for name in reversed(jobs) if loops_first else jobs:
        started = time.perf_counter()
        jobs[name]()
        seconds[name] = time.perf_counter() - started
    first_copies = [row for row in rows["ours"] if row.copy < 2]
    assert first_copies == rows["lean"] == rows["literal"], "the copies differ"
    return {name: words * (settings.copies if name == "ours" else 1) / seconds[name] for name in jobs}


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


def _inputs(args: argparse.Namespace) -> tuple[Bert, Tokenizer, list[str]]:
    needed = args.sentences * (args.pairs + 1)
    if args.mlm:
        model = Bert.load(args.mlm)
        tokenizer = Tokenizer.load(model.tokenizer_files)
    else:
        tokenizer = _generated_vocabulary(args.seed)
        sizes = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 512}
        model = Bert.new(Config(**sizes, **parse_shape(args.shape), head="mlm", pooler=False), args.seed)
    if args.data:
        return model, tokenizer, read_split(TASKS[args.task], args.data, "train").texts[:needed]
    random = generator(args.seed, 1)
    vocabulary = [tokenizer.id_to_token(int(id)) for id in np.flatnonzero(WordReader(tokenizer).whole)]
    lengths = random.integers(4, 20, needed)
    return model, tokenizer, [" ".join(random.choice(vocabulary, length)) for length in lengths]


def _generated_vocabulary(seed: int) -> Tokenizer:
    """As large as BERT's: words of random letters."""
    random = generator(seed, 0)
    words = {"".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(30000)}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "vocab.txt"
        path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]) + "\n", encoding="utf-8")
        return Tokenizer.load(Path(directory))


def _neighbours(reader: WordReader, texts: list[str], args: argparse.Namespace) -> dict[str, list[str]]:
    if not args.vectors:
        return {}
    table = load_vectors(args.vectors)
    words = sorted({word.text for sentence in reader.split(texts) for word in sentence if not reader.is_piece(word)})
    found = {word: name for word in words for name in reversed(vector_names(word, "paper")) if name in table}
    return dict(zip(found, Neighbours(table, reader.special).nearest(list(found.values()), Settings.candidates), strict=True))


# ---------------------------------------------------------------------------------------------------------------------- report


def _report(measured: list[dict[str, float]], args: argparse.Namespace, model: Bert) -> dict:
    return {
        "model": Path(args.mlm).name if args.mlm else f"random {model.config.shape}",
        "data": args.data.name if args.data else "generated words",
        "words_per_second": {name: summary(m[name] for m in measured)["median"] for name in measured[0]},
        "ratio": {name: summary(m[name] / m["ours"] for m in measured) for name in ("literal", "lean")},
    }


def _print(report: dict) -> None:
    lines = [["batched (ours)", f"{report['words_per_second']['ours']:,.0f}", "", "", ""]]
    for name, ratio in report["ratio"].items():
        faster = f"{1 / ratio['median']:.1f}"
        lines.append([f"{name} loop", f"{report['words_per_second'][name]:,.0f}", f"{ratio['median']:.3f}", spread(ratio), faster])
    print(f"{report['model']}, {report['data']}")
    table(lines, ["", "words/s", "time: ours / loop", "pairs", "ours is × faster"])


if __name__ == "__main__":
    main()
