"""What the benches work on: models, sentences as long as a data set's, and a distillation step of ours."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minitinybert.commands.shape import parse_shape
from minitinybert.commands.task_data import encode
from minitinybert.data.batching import EncodedExamples, epoch_batches
from minitinybert.data.glue import TASKS, read_split
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import Objective, Terms, View
from minitinybert.distillation.recipes import DEFAULT, Recipe
from minitinybert.engine.batch import Batch
from minitinybert.engine.device import Array
from minitinybert.engine.parallel import Workers
from minitinybert.engine.random import generator
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.model.trace import Trace
from minitinybert.training.cut import thread_shares
from minitinybert.training.optim import Adam
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import NOBODY, Teacher

TEACHER, STUDENT = "12L-768D-12H-3072F", "4L-312D-12H-1200F"  # BERT-base, TinyBERT4
LEARNING_RATE = 5e-5

# ---------------------------------------------------------------------------------------------------------------------- models


def model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", default=TEACHER, metavar="DIR|SHAPE", help="a fine-tuned model, or a shape with random weights")
    parser.add_argument("--student", default=STUDENT, metavar="DIR|SHAPE")


def models(args: argparse.Namespace) -> tuple[Bert, Bert]:
    """Teacher and student with a classifier each, the student's head with as many classes as the teacher's."""
    teacher = _model(args.teacher, Config(head="classifier"), args.seed)
    return teacher, _model(args.student, teacher.config, args.seed + 1)


def _model(source: str, base: Config, seed: int) -> Bert:
    if Path(source).exists():
        return Bert.load(source, head="classifier", labels=list(base.id2label.values()), seed=seed)
    return Bert.new(replace(base, **parse_shape(source), hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1), seed)


def without_dropout(model: Bert) -> Bert:
    config = replace(model.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0)
    return Bert(config, model.parameters)


def shape(source: str, model: Bert) -> str:
    """For a report: which model it was, without anybody's directories."""
    return f"{model.config.shape}, {'weights of ' + Path(source).name if Path(source).exists() else 'random weights'}"


# ---------------------------------------------------------------------------------------------------------------------- sentences


class Sentences(NamedTuple):
    """Encoded examples and, in words, where their lengths come from."""

    examples: EncodedExamples
    source: str

    @property
    def lengths(self) -> np.ndarray:
        return self.examples.lengths()


def data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR", help="SST-2's files; without them, lengths are drawn")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="a model directory whose tokenizer reads --data (default: --teacher)")


def sst2(args: argparse.Namespace, split: str, mean: float, count: int, model: Bert) -> Sentences:
    """SST-2's `split` where there is --data, else `count` sentences of drawn lengths with about this mean."""
    if args.data is None:
        return drawn(mean, count, model.config, args.seed)
    tokenizer = Tokenizer.load(args.tokenizer or Path(args.teacher))
    tokenizer.check_fits(model.config.vocab_size)
    examples = encode(read_split(TASKS["sst-2"], args.data, split), tokenizer, 64, model.config.type_vocab_size)
    labels = np.zeros(len(examples), np.int64) if examples.labels is None else examples.labels
    examples = replace(examples, labels=labels)
    return Sentences(examples, f"SST-2 {split}, mean {examples.lengths().mean():.1f}")


def drawn(mean: float, count: int, config: Config, seed: int) -> Sentences:
    """Lengths 3 + Gamma(shape 1.7), as skewed as SST-2's, at most 64; ids drawn evenly."""
    random = np.random.default_rng(seed)
    lengths = np.minimum(3 + random.gamma(1.7, (mean - 3) / 1.7, count), 64).round().astype(int)
    return Sentences(_random_examples(lengths, config, seed), f"drawn lengths 3 + gamma(1.7) ≤ 64, mean {lengths.mean():.1f}")


def full(length: int, count: int, config: Config, seed: int) -> Sentences:
    return Sentences(_random_examples(np.full(count, length), config, seed), f"all of length {length}")


def _random_examples(lengths: np.ndarray, config: Config, seed: int) -> EncodedExamples:
    random = np.random.default_rng(seed + 1)
    ids = [random.integers(min(1000, config.vocab_size // 2), config.vocab_size, length).astype(np.int32) for length in lengths]
    return EncodedExamples(ids, [np.zeros_like(i) for i in ids], random.integers(0, config.num_labels, len(ids)))


def sorted_batches(sentences: Sentences, batch_size: int, count: int, seed: int) -> list[np.ndarray]:
    """`count` of the batches that training makes of an epoch, of about equal lengths each: a fair sample by number of tokens."""
    lengths = sentences.lengths
    batches = [b for b in epoch_batches(lengths, batch_size, seed, 0) if len(b) == batch_size]
    return _fair_sample(batches, np.array([lengths[b].sum() for b in batches]), count)


def random_batches(sentences: Sentences, batch_size: int, count: int, seed: int) -> list[np.ndarray]:
    """`count` of an epoch's batches where nobody sorts by length: a fair sample by their longest sentence, to which they are padded."""
    lengths = sentences.lengths
    whole = len(lengths) // batch_size
    batches = np.split(np.random.default_rng(seed).permutation(len(lengths))[: whole * batch_size], whole)
    return _fair_sample(batches, np.array([lengths[b].max() for b in batches]), count)


def _fair_sample(batches: list[np.ndarray], costs: np.ndarray, count: int) -> list[np.ndarray]:
    """From each of `count` equal parts of the batches in order of cost the one whose cost is nearest to the part's mean."""
    parts = np.array_split(np.argsort(costs, kind="stable"), min(count, len(batches)))
    return [batches[part[np.abs(costs[part] - costs[part].mean()).argmin()]] for part in parts]


# ---------------------------------------------------------------------------------------------------------------------- text


def own_text() -> list[str]:
    """The sentences of this project's own pages, tables and code left out: text that is always at hand."""
    root = Path(__file__).parent.parent
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    paragraphs = [part for page in pages for part in page.read_text(encoding="utf-8").split("\n\n") if part[:1].isalpha()]
    return [s for part in paragraphs for s in re.split(r"(?<=[.!?:])\s+", " ".join(part.split())) if len(s.split()) > 3]


def tokenizer_of(texts: Sequence[str], seed: int, size: int = 30000) -> Tokenizer:
    """BERT's, with a vocabulary about as large: all words of the texts, and words of random letters."""
    random = generator(seed, 0)
    words = {"".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(size)}
    words.update(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "vocab.txt"
        path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]) + "\n", encoding="utf-8")
        return Tokenizer.load(Path(directory))


# ---------------------------------------------------------------------------------------------------------------------- our step


class All(Objective):
    """Every loss of the paper at once (eqs. 7–10): both of our objectives on one pass, so that a step is one whole."""

    def __init__(self, student: Config, teacher: Config, recipe: Recipe = DEFAULT):
        self.first, self.second = Intermediate(student, teacher, recipe), Prediction(recipe)
        self.slots = self.first.slots
        self.student_view = self.first.student_view._replace(logits=True)
        self.teacher_view = (self.first.teacher_view or View())._replace(logits=True)

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        inner, last = (objective(student, batch, teacher, parameters) for objective in (self.first, self.second))
        dtrace = replace(inner.dtrace, logits=last.dtrace.logits)
        return Terms({**inner.losses, **last.losses}, dtrace, inner.dprojections)


class KnownTraces(Teacher):
    """A teacher's traces of some batches, kept in memory: a student's step without the teacher's time."""

    def __init__(self, teacher: Bert, view: View, batches: Sequence[Batch], threads: int):
        self.traces = {}
        for share in (share for batch in batches for share in thread_shares(batch, threads)):
            trace, _ = teacher.forward_batch(share, keep_cache=False, **view.arguments(share))
            kept = lambda arrays: [None if a is None else a.copy() for a in arrays]
            self.traces[share.sentences.tobytes()] = Trace(None, kept(trace.hidden), kept(trace.scores), None, trace.logits.copy())

    def answer(self, batch: Batch, view: View, at: tuple[int, int]) -> Trace:
        return self.traces[batch.sentences.tobytes()]


class OurStep:
    """Gradients and Adam, as the training loop has them, and the parts of it."""

    def __init__(self, student: Bert, objective: Objective, workers: Workers, teacher: Teacher = NOBODY, seed: int = 0):
        self.workers, self.objective = workers, objective
        self.learner = Learner(student, objective, workers, teacher, seed)
        self.adam = Adam(self.learner.student.parameters, workers=workers)
        self.steps = 0

    def __call__(self, batch: Batch) -> None:
        _, gradients = self.learner.gradients(batch, self.steps)
        self.adam.step(gradients, LEARNING_RATE)
        self.steps += 1

    def ask_teacher(self, batch: Batch) -> None:
        teacher, view = self.learner.teacher, self.objective.teacher_view
        ask = lambda share: teacher.answer(share, view, (self.learner.seed, self.steps))
        self.workers.map(ask, thread_shares(batch, self.workers.threads))


# ---------------------------------------------------------------------------------------------------------------------- arithmetic


def forward_flops(config: Config, tokens: int, pairs: int) -> float:
    """Of the encoder's matrix products: tokens T, pairs Σ L² over the sentences."""
    d, f = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (2 * tokens * (4 * d * d + 2 * d * f) + 4 * pairs * d)


def step_flops(student: Config, teacher: Config, tokens: int, pairs: int) -> float:
    """Student forward and backward (twice the forward's), and the learned maps of the embedding's and every layer's loss."""
    maps = (student.num_hidden_layers + 1) * 2 * tokens * student.hidden_size * teacher.hidden_size
    return 3 * (forward_flops(student, tokens, pairs) + maps)
