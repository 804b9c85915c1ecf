"""What a task's kind of answer asks of training and judging: a label or number of a text, a label of
each word, a stretch of a document.

A task names the head that answers it; here is what goes with each head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..data import entities, metrics, squad, squad_metrics, tagging
from ..data.batching import EncodedExamples
from ..data.glue import Task
from ..distillation.distill import Prediction
from ..distillation.objectives import Objective, Supervised
from ..distillation.recipes import Recipe
from ..distillation.tokens import SpanPrediction, SupervisedSpans, SupervisedTokens, TokenPrediction
from ..engine.parallel import Workers
from ..model.bert import Bert
from ..training import evaluation


class Kind(NamedTuple):
    supervised: Callable[[Task], Objective]
    prediction: Callable[[Task, Recipe], Objective]
    judge: Callable[[Bert, Task, Any, Workers], dict[str, float]]  # a model's metrics on labelled examples
    constant: Callable[[Task, Any], float]  # the main metric of the best answer that is always the same


# -------------------------------------------------------------------------------------------------------------- of a text


def _judge_sentences(model: Bert, task: Task, examples: EncodedExamples, workers: Workers) -> dict[str, float]:
    assert examples.labels is not None
    values = evaluation.logits(model, examples, workers)
    return metrics.evaluate(task.metrics, evaluation.predictions(values, task.labels is None), examples.labels)


def _constant_sentence(task: Task, examples: EncodedExamples) -> float:
    """The most frequent label's share; a correlation with a constant is 0."""
    assert examples.labels is not None
    return float(np.bincount(examples.labels).max() / len(examples)) if task.main_metric == "accuracy" else 0.0


# --------------------------------------------------------------------------------------------------------------- of words


def tag_words(model: Bert, labels: list[str], examples: tagging.TaggedExamples, workers: Workers) -> list[list[str]]:
    """Each sentence's labels, by the names of the model's outputs in their order."""
    best = [z.argmax(axis=-1) for z in evaluation.token_logits(model, examples, workers)]
    return [[labels[i] for i in own] for own in examples.by_sentence(best)]


def _judge_words(model: Bert, task: Task, examples: tagging.TaggedExamples, workers: Workers) -> dict[str, float]:
    assert examples.tags is not None
    found = entities.scores(tag_words(model, list(task.labels or ()), examples, workers), examples.tags)
    return {name: found[name] for name in task.metrics}


def _constant_word(task: Task, examples: tagging.TaggedExamples) -> float:
    """The most frequent label's share; of entities' F1 that of none."""
    if task.main_metric != "accuracy":
        return 0.0
    _, counts = np.unique([tag for tags in examples.tags or () for tag in tags], return_counts=True)
    return float(counts.max() / counts.sum())


# -------------------------------------------------------------------------------------------------------- of a document


def threshold_of(model: Bert, task: Task) -> float | None:
    """What is asked for, or else what the model was trained for."""
    asked = getattr(task, "null_threshold", None)
    return model.config.null_threshold if asked is None else asked


def find_answers(model: Bert, task: Task, examples: squad.Windows, workers: Workers) -> list[squad.Answer]:
    """Each question's best stretch, whether or not it is to be given."""
    assert isinstance(task, squad.Squad)
    return squad.best_answers(examples, evaluation.token_logits(model, examples, workers), task.max_answer_length)


def _judge_answers(model: Bert, task: Task, examples: squad.Windows, workers: Workers) -> dict[str, float]:
    assert examples.questions is not None
    read = examples.questions
    found = find_answers(model, task, examples, workers)
    true = [[text for text, _ in question.answers] for question in read.questions]
    results = squad_metrics.scores([answer.or_none(threshold_of(model, task)).text for answer in found], true, read.second)
    if read.second:
        best, threshold = squad_metrics.best_threshold([a.text for a in found], [a.margin for a in found], true)
        results |= {"best_f1": best, "best_f1_threshold": threshold}
    return results


def _constant_answer(task: Task, examples: squad.Windows) -> float:
    """The share of questions without an answer."""
    assert examples.questions is not None
    return float(np.mean([not question.answers for question in examples.questions.questions]))


KINDS = {
    "classifier": Kind(
        lambda task: Supervised(task.labels is None),
        lambda task, recipe: Prediction(recipe, task.labels is None),
        _judge_sentences,
        _constant_sentence,
    ),
    "tokens": Kind(lambda task: SupervisedTokens(), lambda task, recipe: TokenPrediction(recipe), _judge_words, _constant_word),
    "spans": Kind(lambda task: SupervisedSpans(), lambda task, recipe: SpanPrediction(recipe), _judge_answers, _constant_answer),
}
