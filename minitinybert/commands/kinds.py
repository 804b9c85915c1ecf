"""What a task's kind of answer asks of training and judging: a label or number of a text, a label of
each word, a stretch of a document.

A task names the head that answers it; here is what goes with each head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..data import entities, metrics, squad, squad_metrics, tagging
from ..data.batching import EncodedExamples
from ..data.glue import Task
from ..data.significance import bootstrap, wilson
from ..distillation.distill import Prediction
from ..distillation.objectives import Objective, Supervised
from ..distillation.recipes import Recipe
from ..distillation.tokens import SpanPrediction, SupervisedSpans, SupervisedTokens, TokenPrediction
from ..engine.parallel import Workers
from ..model.bert import Bert
from ..model.config import Config
from ..training import evaluation


class Judgement(NamedTuple):
    """metrics by name, with their intervals; nothing: why the answers are no better than a constant
    one, in words, "" where they are."""

    metrics: metrics.Measured
    nothing: str


class Kind(NamedTuple):
    supervised: Callable[[Task, Recipe], Objective]
    prediction: Callable[[Task, Recipe], Objective]
    ask: Callable[[Bert, Any, Workers], Any]  # a model's logits of examples
    judge: Callable[[Any, Task, Any, Config], Judgement]  # such logits, of a model of that config, against the labels


# -------------------------------------------------------------------------------------------------------------- of a text


def _judge_sentences(logits: np.ndarray, task: Task, examples: EncodedExamples, config: Config) -> Judgement:
    assert examples.labels is not None
    answers = evaluation.predictions(logits, task.labels is None)
    values = metrics.evaluate(task.metrics, answers, examples.labels)
    return Judgement(values, metrics.knows_nothing(task.main_metric, answers, examples.labels))


# --------------------------------------------------------------------------------------------------------------- of words


def tag_words(logits: Sequence[np.ndarray], labels: Sequence[str], examples: tagging.TaggedExamples) -> list[list[str]]:
    """Each sentence's labels, by the names of the model's outputs in their order."""
    best = [z.argmax(axis=-1) for z in logits]
    return [[labels[i] for i in own] for own in examples.by_sentence(best)]


def _judge_words(logits: Sequence[np.ndarray], task: Task, examples: tagging.TaggedExamples, config: Config) -> Judgement:
    assert examples.tags is not None
    counts = entities.counts(tag_words(logits, task.labels or (), examples), examples.tags)
    found = entities.of_counts(counts)
    constant = _constant_word(task, examples)
    # A sentence's words are right or wrong together: sentences are drawn.
    intervals = {name: partial(bootstrap, partial(_of_words, name), counts, counts) for name in task.metrics}
    values = metrics.Measured({name: found[name] for name in task.metrics}, intervals)
    return Judgement(values, metrics.no_better(task.main_metric, found[task.main_metric], constant))


def _of_words(name: str, counts: np.ndarray, _: np.ndarray) -> float:
    return entities.of_counts(counts)[name]


def _constant_word(task: Task, examples: tagging.TaggedExamples) -> float:
    """The most frequent label's share; of entities' F1 that of none."""
    if task.main_metric != "accuracy":
        return 0.0
    _, counts = np.unique([tag for tags in examples.tags or () for tag in tags], return_counts=True)
    return float(counts.max() / counts.sum())


# -------------------------------------------------------------------------------------------------------- of a document


def threshold_of(config: Config, task: Task) -> float | None:
    """What is asked for, or else what the model was trained for."""
    asked = getattr(task, "null_threshold", None)
    return config.null_threshold if asked is None else asked


def find_answers(logits: Sequence[np.ndarray], task: Task, examples: squad.Windows) -> list[squad.Answer]:
    """Each question's best stretch, whether or not it is to be given."""
    assert isinstance(task, squad.Squad)
    return squad.best_answers(examples, logits, task.max_answer_length)


def _judge_answers(logits: Sequence[np.ndarray], task: Task, examples: squad.Windows, config: Config) -> Judgement:
    assert examples.questions is not None
    read = examples.questions
    found = find_answers(logits, task, examples)
    threshold = threshold_of(config, task)
    true = [[text for text, _ in question.answers] for question in read.questions]
    said = [answer.or_none(threshold).text for answer in found]
    results = squad_metrics.scores(said, true, read.second)
    exact, f1 = squad_metrics.of_each(said, true, read.second).T
    intervals = {
        "f1": partial(bootstrap, lambda drawn, _: float(drawn.mean()), f1, f1),
        "exact_match": partial(wilson, int(exact.sum()), len(exact)),
    }
    if read.second:
        best, best_at = squad_metrics.best_threshold([a.text for a in found], [a.margin for a in found], true)
        results |= {"best_f1": best, "best_f1_threshold": best_at}
    unanswerable = float(np.mean([not question.answers for question in read.questions]))  # what no answer to anything scores
    judged = metrics.Measured(results, intervals)
    return Judgement(judged, metrics.no_better(task.main_metric, results[task.main_metric], unanswerable))


KINDS = {
    "classifier": Kind(
        lambda task, recipe: Supervised(task.labels is None, recipe.padding_gradient),
        lambda task, recipe: Prediction(recipe, task.labels is None),
        evaluation.logits,
        _judge_sentences,
    ),
    "tokens": Kind(
        lambda task, recipe: SupervisedTokens(recipe.padding_gradient),
        lambda task, recipe: TokenPrediction(recipe),
        evaluation.token_logits,
        _judge_words,
    ),
    "spans": Kind(
        lambda task, recipe: SupervisedSpans(recipe.padding_gradient),
        lambda task, recipe: SpanPrediction(recipe),
        evaluation.token_logits,
        _judge_answers,
    ),
}
