"""How sure a score is, and whether two models' scores differ by more than chance: Wilson's interval,
McNemar's test, and a paired bootstrap for metrics that are no share of right answers.

Two models are compared on the same examples, and so in pairs: what is hard for one is mostly hard
for the other, and only examples on which they part say anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# SciPy's statistics take a second to import: they are where they are used.

Metric = Callable[[np.ndarray, np.ndarray], float]  # metric(predictions, labels)


class McNemar(NamedTuple):
    only_a: int  # examples that a alone answers rightly
    only_b: int
    p: float  # two-sided


class Difference(NamedTuple):
    value: float  # metric of a less metric of b, on all examples
    low: float  # of the interval
    high: float
    p: float  # two-sided


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) of a share of which `correct` of `n` examples were seen, by Wilson (1927): the
    shares p from which p̂ = correct/n is at most z standard errors √(p (1 − p) / n) away, z = 1.96
    at 0.95. It never leaves 0 … 1, and is no point where all or none are correct.

    ValueError where `correct` is not among 0 … n, or n is 0.

    >>> [round(bound, 4) for bound in wilson(872 - 64, 872)]
    [0.907, 0.942]
    """
    from scipy import stats

    if not 0 <= correct <= n or n == 0:  # which SciPys after 1.17 take
        raise ValueError(f"{correct} of {n} is no share")
    interval = stats.binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(a_correct: np.ndarray, b_correct: np.ndarray) -> McNemar:
    """Whether two models' accuracies differ, from which examples each answers rightly, (n,) bool, the
    same examples in the same order.

    McNemar's (1947) test in its exact form: were both equally good, each example that only one of
    them answers rightly would be either's with probability ½, so that only_a of only_a + only_b is
    binomial. p is 1 where there is none. ValueError where the lengths
    differ or there are no examples.

    >>> mcnemar(np.array([1, 1, 1, 1, 1, 0], bool), np.array([0, 0, 0, 0, 1, 1], bool))
    McNemar(only_a=4, only_b=1, p=0.375)
    """
    from scipy import stats

    a, b = np.asarray(a_correct, bool), np.asarray(b_correct, bool)
    _check_paired(a, b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


def bootstrap(
    metric: Metric, labels: np.ndarray, answers: np.ndarray, seed: int = 0, draws: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """(low, high) of one model's metric, for metrics that are no share of right answers, by Efron's
    (1979) bootstrap: what `paired_bootstrap` does for two."""
    labels, answers = np.asarray(labels), np.asarray(answers)
    _check_paired(labels, answers)
    drawn = _drawn(lambda i: metric(answers[i], labels[i]), len(labels), seed, draws)
    return _middle(drawn, confidence)


def paired_bootstrap(
    metric: Metric, labels: np.ndarray, a: np.ndarray, b: np.ndarray, seed: int = 0, draws: int = 2000, confidence: float = 0.95
) -> Difference:
    """By how much two models differ in `metric`, with the interval of the difference and whether it
    is chance; for F1, correlations, and whatever is no share of right answers.

    metric(predictions, labels), such as one of `data.metrics.METRICS`; labels, a, b: (n, …) what is
    right and what the two models predict for the same examples. Efron's (1979) bootstrap: n examples
    are drawn with replacement `draws` times, each time the same for both models. The interval holds
    the middle `confidence` of the differences; p is twice the share of draws, these examples among
    them, on the other side of 0. The same `seed` draws the same examples. ValueError where the
    lengths differ or there are no examples.
    """
    labels, a, b = np.asarray(labels), np.asarray(a), np.asarray(b)
    _check_paired(a, b)
    _check_paired(labels, a)
    difference = lambda i: metric(a[i], labels[i]) - metric(b[i], labels[i])
    drawn = _drawn(difference, len(labels), seed, draws)
    beyond = 1 + min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(difference(np.arange(len(labels))), *_middle(drawn, confidence), float(min(1.0, 2 * beyond / (draws + 1))))


def _drawn(statistic: Callable[[np.ndarray], float], n: int, seed: int, draws: int) -> np.ndarray:
    """(draws,) a statistic of n examples that are drawn with replacement."""
    rng = np.random.default_rng(seed)
    return np.array([statistic(rng.integers(n, size=n)) for _ in range(draws)])


def _middle(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_paired(a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} answers: the same examples are needed, and one at least")
