"""SQuAD's exact match and F1, as its two official scripts define them (evaluate-v1.1.py,
evaluate-v2.0.py): of each question the best over its answers, of all questions the mean.

Answers are compared in lower case, without punctuation, articles and double spaces. F1 is that of
the two bags of words. In 2.0 a question without an answer is right where nothing is answered.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normal(text: str) -> str:
    """
    >>> normal("The  Eiffel Tower, in Paris.")
    'eiffel tower in paris'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(said: str, true: str) -> float:
    return float(normal(said) == normal(true))


def f1(said: str, true: str, second: bool = False) -> float:
    """second: as the script of 2.0, for which two answers of no words are equal; for that of 1.1
    they have no word in common."""
    ours, theirs = normal(said).split(), normal(true).split()
    if second and not (ours and theirs):
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def best_of(said: str, answers: Sequence[str], second: bool = False) -> tuple[float, float]:
    """Exact match and F1 of what was said against the best of a question's answers; of none, in 2.0,
    against nothing."""
    if second:
        answers = [answer for answer in answers if normal(answer)] or [""]
    return max((exact(said, a) for a in answers), default=0.0), max((f1(said, a, second) for a in answers), default=0.0)


def scores(said: Sequence[str], answers: Sequence[Sequence[str]], second: bool = False) -> dict[str, float]:
    """The means, as shares (the scripts print 100 times as much). Of 2.0 also those of the questions
    with an answer, and the share of the others that were not answered."""
    each = of_each(said, answers, second)
    found = {"f1": float(each[:, 1].mean()), "exact_match": float(each[:, 0].mean())}
    if second:
        has = np.array([any(map(normal, true)) for true in answers])
        mean = lambda values: float(values.mean()) if len(values) else 0.0
        found |= {"has_answer_f1": mean(each[has, 1]), "has_answer_exact_match": mean(each[has, 0]), "no_answer": mean(each[~has, 0])}
    return found


def of_each(said: Sequence[str], answers: Sequence[Sequence[str]], second: bool = False) -> np.ndarray:
    """(questions, 2): exact match and F1."""
    return np.array([best_of(own, true, second) for own, true in zip(said, answers, strict=True)])


def best_threshold(said: Sequence[str], margins: Sequence[float], answers: Sequence[Sequence[str]]) -> tuple[float, float]:
    """The highest F1 that a threshold gives, and that threshold: a question is answered with `said`
    where no answer is better by at most so much, −margin. Smallest thresholds come first."""
    values = np.array([best_of(own, true, True)[1] for own, true in zip(said, answers, strict=True)])
    nothing = np.array([best_of("", true, True)[1] for true in answers])
    odds = -np.asarray(margins, np.float64)
    order = np.argsort(odds, kind="stable")
    totals = np.concatenate([[0.0], np.cumsum((values - nothing)[order])]) + nothing.sum()
    last = np.concatenate([[True], odds[order][1:] != odds[order][:-1], [True]]) if len(odds) else np.array([True])
    totals = np.where(last, totals, -np.inf)  # equal odds are answered together
    best = int(totals.argmax())
    threshold = float(odds[order][best - 1]) if best else float(odds.min()) - 1.0
    return float(totals[best]) / len(values), threshold
