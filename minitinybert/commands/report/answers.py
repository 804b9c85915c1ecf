"""What models answer on a task's dev examples: scores with their intervals, whether two models differ
by more than chance, confusion, calibration, and the examples on which student and teacher part.

Sentences with a label or a number, words with a label each, and questions on documents are told
apart in `_KINDS` alone; all else sees `Answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...data import entities, squad_metrics
from ...data.batching import EncodedExamples
from ...data.glue import Examples, Task, read_split
from ...data.metrics import METRICS
from ...data.significance import bootstrap, mcnemar, paired_bootstrap, wilson
from ...data.squad import Questions, Squad, Windows, encode_questions, read_questions
from ...data.tagging import Tagged, TaggedExamples, encode_words, read_tagged
from ...data.tokenizer import Tokenizer
from ...engine.parallel import Workers
from ...model.bert import Bert
from ...model.config import Config
from ...ops import softmax
from ...training import evaluation
from ..kinds import find_answers, tag_words, threshold_of
from ..task_data import encode

MOST = {"classifier": 10_000, "tokens": 4_000, "spans": 500}  # examples that are judged, by the head that answers
_BINS = 10  # of a reliability diagram
_DRAWS = 1000  # of a bootstrap
_CLASSES = 20  # of a confusion that can still be read


class Dev(NamedTuple):
    """A task's dev examples: how many are taken, of how many that the file has."""

    task: Task
    examples: Examples | Tagged | Questions
    taken: int
    there: int


@dataclass(frozen=True)
class Answers:
    """A model's. said, of each metric: what `measures` compares, (n, …). shown: each answer in
    words, (n,). sure: (n,) how probable the model takes each answer to be; units: what accuracy and
    calibration count, (u,) classes, the same of all models; None where answers are no classes."""

    said: dict[str, np.ndarray]
    shown: list[str]
    sure: np.ndarray | None = None
    classes: np.ndarray | None = None  # (u,) of each sentence, or of each word
    class_sure: np.ndarray | None = None  # (u,)
    numbers: np.ndarray | None = None  # (n,) of a regression


class Measure(NamedTuple):
    """A metric that is worked out of any of the examples: metric(said, right)."""

    metric: Callable[[np.ndarray, np.ndarray], float]
    right: np.ndarray  # (n, …)
    is_share: bool  # of right answers: said is (n,) of 0 and 1, and Wilson and McNemar know better than a bootstrap


class Truth(NamedTuple):
    """What is right. measures: by metric, the task's own first. classes: (u,) as of Answers, numbers
    (n,); names: of the classes."""

    texts: list[str]
    shown: list[str]
    measures: dict[str, Measure]
    names: list[str]
    classes: np.ndarray | None = None
    numbers: np.ndarray | None = None


def read_dev(task: Task, data: Path, most: int | None = None) -> Dev:
    """The first of a task's dev files; of its examples the first `most` (MOST where that is None)."""
    return _KINDS[task.head].read(task, data, most or MOST[task.head])


def truth_of(dev: Dev) -> Truth:
    return _KINDS[dev.task.head].truth(dev)


def encoded(dev: Dev, model: Bert, max_length: int) -> EncodedExamples:
    """The dev examples in a model's ids."""
    return _KINDS[dev.task.head].encode(dev, Tokenizer.load(model.tokenizer_files), max_length, model.config.type_vocab_size)


def ask(model: Bert, dev: Dev, max_length: int, workers: Workers, description: str) -> Answers:
    """A model's answers to the dev examples; description: of the bar that is shown meanwhile."""
    examples = encoded(dev, model, max_length)
    kind = _KINDS[dev.task.head]
    return kind.answers(kind.logits(model, examples, workers, description), dev, examples, model.config)


# ---------------------------------------------------------------------------------------------------- sentences: labels, numbers


def _mean(said: np.ndarray, right: np.ndarray) -> float:
    return float(said.mean())


def _read_sentences(task: Task, data: Path, most: int) -> Dev:
    read = read_split(task, data, task.dev_splits[0])
    assert read.labels is not None
    cut = Examples(read.texts[:most], read.pairs and read.pairs[:most], read.labels[:most], read.rows[:most], read.path)
    return Dev(task, cut, len(cut), len(read))


def _truth_of_sentences(dev: Dev) -> Truth:
    task, read = dev.task, dev.examples
    assert isinstance(read, Examples) and read.labels is not None
    texts = read.texts if read.pairs is None else [f"{a} ||| {b}" for a, b in zip(read.texts, read.pairs, strict=True)]
    if task.labels is None:
        measures = {name: Measure(METRICS[name], read.labels, False) for name in task.metrics}
        return Truth(texts, [f"{y:.2f}" for y in read.labels], measures, [], numbers=read.labels)
    names, y = list(task.labels), read.labels
    measures = {name: Measure(METRICS[name], y, False) if name != "accuracy" else Measure(_mean, y, True) for name in task.metrics}
    return Truth(texts, [names[i] for i in y], measures, names, classes=y)


def _encode_sentences(dev: Dev, tokenizer: Tokenizer, max_length: int, segments: int) -> EncodedExamples:
    assert isinstance(dev.examples, Examples)
    return encode(dev.examples, tokenizer, max_length, segments)


def _answer_sentences(z: np.ndarray, dev: Dev, examples: EncodedExamples, config: Config) -> Answers:
    task, read = dev.task, dev.examples
    assert isinstance(read, Examples) and read.labels is not None
    said = evaluation.predictions(z, task.labels is None)
    if task.labels is None:
        return Answers(dict.fromkeys(task.metrics, said), [f"{value:.2f}" for value in said], numbers=said.astype(np.float64))
    p = softmax.forward(z.astype(np.float64))[0].max(axis=-1)
    of_metrics = {name: said == read.labels if name == "accuracy" else said for name in task.metrics}
    return Answers(of_metrics, [task.labels[i] for i in said], p, said, p)


# ---------------------------------------------------------------------------------------------------------------- words


def _read_words(task: Task, data: Path, most: int) -> Dev:
    read = read_tagged(task, data, task.dev_splits[0])
    cut = Tagged(read.words[:most], read.tags and read.tags[:most], read.lines[:most], read.path)
    return Dev(task, cut, len(cut.words), len(read.words))


def _truth_of_words(dev: Dev) -> Truth:
    task, read = dev.task, dev.examples
    assert isinstance(read, Tagged) and read.tags is not None and task.labels is not None
    sizes = np.array([len(tags) for tags in read.tags])
    measures = {"accuracy": Measure(lambda said, right: float(said.sum() / max(right.sum(), 1)), sizes, False)}
    if task.main_metric == "f1":
        entity_counts = np.array([len(entities.entities(tags)) for tags in read.tags])
        f1 = lambda said, right: float(2 * said[:, 0].sum() / max(said[:, 1].sum() + right.sum(), 1))
        measures = {"f1": Measure(f1, entity_counts, False), **measures}
    number = {name: i for i, name in enumerate(task.labels)}
    classes = np.array([number.get(tag, -1) for tags in read.tags for tag in tags])  # −1: a label that no model of these gives
    return Truth([" ".join(words) for words in read.words], list(map(" ".join, read.tags)), measures, list(task.labels), classes)


def _encode_words(dev: Dev, tokenizer: Tokenizer, max_length: int, segments: int) -> TaggedExamples:
    assert isinstance(dev.examples, Tagged)
    return replace(encode_words(dev.examples.words, tokenizer, max_length), tags=dev.examples.tags)


def _answer_words(logits: Sequence[np.ndarray], dev: Dev, examples: EncodedExamples, config: Config) -> Answers:
    task, read = dev.task, dev.examples
    assert isinstance(read, Tagged) and read.tags is not None and task.labels is not None and isinstance(examples, TaggedExamples)
    tags = tag_words(logits, task.labels, examples)
    sure = examples.by_sentence([softmax.forward(z.astype(np.float64))[0].max(axis=-1) for z in logits])
    number = {name: i for i, name in enumerate(task.labels)}
    right = [sum(a == b for a, b in zip(own, true, strict=True)) for own, true in zip(tags, read.tags, strict=True)]
    said = {"accuracy": np.array(right)}
    if task.main_metric == "f1":
        found = [(set(entities.entities(own)), set(entities.entities(true))) for own, true in zip(tags, read.tags, strict=True)]
        said = {"f1": np.array([(len(own & true), len(own)) for own, true in found]), **said}
    of_sentence = np.array([own.min() if len(own) else 1.0 for own in sure])
    classes = np.array([number[tag] for own in tags for tag in own])
    return Answers(said, list(map(" ".join, tags)), of_sentence, classes, np.concatenate(sure))


# ------------------------------------------------------------------------------------------------------------ questions


def _read_questions(task: Task, data: Path, most: int) -> Dev:
    read = read_questions(data, task.dev_splits[0])
    return Dev(task, read._replace(questions=read.questions[:most]), min(most, len(read.questions)), len(read.questions))


def _truth_of_questions(dev: Dev) -> Truth:
    assert isinstance(dev.examples, Questions)
    questions = dev.examples.questions
    right = np.zeros(len(questions))
    measures = {"f1": Measure(_mean, right, False), "exact_match": Measure(_mean, right, True)}
    said = [q.answers[0][0] if q.answers else "(no answer)" for q in questions]
    return Truth([f"{q.question} ||| {q.context}" for q in questions], said, measures, [])


def _encode_questions(dev: Dev, tokenizer: Tokenizer, max_length: int, segments: int) -> Windows:
    assert isinstance(dev.task, Squad) and isinstance(dev.examples, Questions)
    return encode_questions(dev.task, dev.examples, tokenizer, max_length, segments)


def _answer_questions(logits: Sequence[np.ndarray], dev: Dev, examples: EncodedExamples, config: Config) -> Answers:
    task, read = dev.task, dev.examples
    assert isinstance(task, Squad) and isinstance(read, Questions) and isinstance(examples, Windows)
    texts = [a.or_none(threshold_of(config, task)).text for a in find_answers(logits, task, examples)]
    judged = [squad_metrics.best_of(text, [t for t, _ in q.answers], read.second) for text, q in zip(texts, read.questions, strict=True)]
    exact, f1 = np.array(judged).T
    return Answers({"f1": f1, "exact_match": exact == 1}, [text or "(no answer)" for text in texts])


class _Kind(NamedTuple):
    read: Callable[[Task, Path, int], Dev]
    truth: Callable[[Dev], Truth]
    encode: Callable[[Dev, Tokenizer, int, int], EncodedExamples]
    logits: Callable[[Bert, EncodedExamples, Workers, str], Any]
    answers: Callable[[Any, Dev, EncodedExamples, Config], Answers]


_KINDS = {
    "classifier": _Kind(_read_sentences, _truth_of_sentences, _encode_sentences, evaluation.logits, _answer_sentences),
    "tokens": _Kind(_read_words, _truth_of_words, _encode_words, evaluation.token_logits, _answer_words),
    "spans": _Kind(_read_questions, _truth_of_questions, _encode_questions, evaluation.token_logits, _answer_questions),
}

# ------------------------------------------------------------------------------------------------------------ what comes of them


class Score(NamedTuple):
    value: float
    low: float  # of the 95 % interval: Wilson's of a share, else a bootstrap's
    high: float


class Verdict(NamedTuple):
    """Two models' difference in a metric. only_a, only_b: of McNemar's test, None of a bootstrap's."""

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    only_a: int | None
    only_b: int | None


def scores(answers: Answers, truth: Truth, seed: int) -> dict[str, Score]:
    """Each metric with its interval."""
    found = {}
    for name, (metric, right, is_share) in truth.measures.items():
        said = answers.said[name]
        interval = wilson(int(said.sum()), len(said)) if is_share else bootstrap(metric, right, said, seed, _DRAWS)
        found[name] = Score(metric(said, right), *interval)
    return found


def compare(a: str, b: str, answers: dict[str, Answers], truth: Truth, seed: int) -> list[Verdict]:
    """Whether models a and b differ in each metric by more than chance: McNemar's test of shares of
    right answers, a paired bootstrap of all else; the interval of the difference is a bootstrap's."""
    found = []
    for name, (metric, right, is_share) in truth.measures.items():
        said_a, said_b = answers[a].said[name], answers[b].said[name]
        drawn = paired_bootstrap(metric, right, said_a, said_b, seed, _DRAWS)
        if is_share:
            only_a, only_b, p = mcnemar(said_a, said_b)
            found.append(Verdict(a, b, name, drawn.value, drawn.low, drawn.high, p, only_a, only_b))
        else:
            found.append(Verdict(a, b, name, *drawn, None, None))
    return found


def confusion(answers: Answers, truth: Truth) -> np.ndarray | None:
    """(C, C) how often class i was answered j; None where answers are no classes, or too many to be
    read."""
    C = len(truth.names)
    if answers.classes is None or truth.classes is None or C > _CLASSES:
        return None
    known = truth.classes >= 0
    counts = np.zeros((C, C), np.int64)
    np.add.at(counts, (truth.classes[known], answers.classes[known]), 1)
    return counts


class Reliability(NamedTuple):
    """Of each bin of confidence that is not empty: how many answers, their mean confidence, the share
    of them that is right. error: the expected calibration error, Σ (count/n) |right − confidence|
    (Naeini et al. 2015; Guo et al. 2017)."""

    counts: list[int]
    confidence: list[float]
    right: list[float]
    error: float


def reliability(sure: np.ndarray, right: np.ndarray, bins: int = _BINS) -> Reliability:
    """sure (n,) the probability of what was answered, right (n,) bool -> `bins` of equal width over
    0 … 1; 1 is in the last.

    >>> reliability(np.array([0.9, 0.7, 0.72, 1.0]), np.array([True, False, True, True]))[:3]
    ([2, 2], [0.71, 0.95], [0.5, 1.0])
    """
    place = np.minimum((sure * bins).astype(int), bins - 1)
    there = [place == i for i in range(bins) if (place == i).any()]
    count, means = [int(own.sum()) for own in there], [(float(sure[own].mean()), float(right[own].mean())) for own in there]
    error = sum(n * abs(r - c) for n, (c, r) in zip(count, means, strict=True)) / max(len(sure), 1)
    return Reliability(count, [c for c, _ in means], [r for _, r in means], error)


def calibration(answers: Answers, truth: Truth) -> Reliability | None:
    """None where answers have no probability of their own."""
    if answers.classes is None or answers.class_sure is None or truth.classes is None:
        return None
    return reliability(answers.class_sure, answers.classes == truth.classes)


def parted(student: Answers, teacher: Answers) -> list[int]:
    """The examples that student and teacher answer otherwise: where both are surest first, of numbers
    where they are furthest apart."""
    if student.numbers is not None and teacher.numbers is not None:
        return np.argsort(-np.abs(student.numbers - teacher.numbers), kind="stable").tolist()
    apart = [i for i, (a, b) in enumerate(zip(student.shown, teacher.shown, strict=True)) if a != b]
    if student.sure is None or teacher.sure is None:
        return apart
    sure = student.sure + teacher.sure
    return sorted(apart, key=lambda i: -sure[i])


def names_of_pairs(models: Sequence[str], teachers: dict[str, str]) -> list[tuple[str, str]]:
    """Which models are tested against which: each student against its teacher, then the others among
    themselves."""
    students = [(name, teachers[name]) for name in models if teachers.get(name) in models]
    others = [name for name in models if name not in teachers.values()]
    return students + [(a, b) for i, a in enumerate(others) for b in others[i + 1 :]]
