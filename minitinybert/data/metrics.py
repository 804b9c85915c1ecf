"""GLUE's metrics, by scikit-learn and SciPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

# scikit-learn and SciPy's statistics take a second to import, which commands that measure nothing
# need not wait for.


def _correlation(name: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """0 where one side is constant, but for rounding: there is nothing to go together."""
    from scipy import stats

    p, y = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    if len(y) < 2 or any(np.ptp(side) <= 1e-12 * np.abs(side).max() for side in (p, y)):
        return 0.0
    return float(getattr(stats, name)(p, y).statistic)


def _of_classes(name: str, predictions: np.ndarray, labels: np.ndarray, **settings: float) -> float:
    from sklearn import metrics

    return float(getattr(metrics, name)(labels, predictions, **settings))


def _matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0  # scikit-learn says so too, with a warning
    return _of_classes("matthews_corrcoef", predictions, labels)


def _mean_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Of Pearson's and Spearman's: GLUE's score of STS-B, by which the released code keeps its best
    model."""
    return (_correlation("pearsonr", predictions, labels) + _correlation("spearmanr", predictions, labels)) / 2


METRICS = {
    "accuracy": lambda p, y: _of_classes("accuracy_score", p, y),
    "f1": lambda p, y: _of_classes("f1_score", p, y, zero_division=0.0),
    "matthews_correlation": _matthews,
    "pearson": lambda p, y: _correlation("pearsonr", p, y),
    "spearman": lambda p, y: _correlation("spearmanr", p, y),
    "mean_correlation": _mean_correlation,
}


def evaluate(names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{metric: value} of predictions (n,) against labels (n,): classes, or numbers for the
    correlations.

    A correlation with a constant is 0. InputError where a prediction is no finite number.
    """
    if not np.isfinite(predictions).all():
        raise InputError("the model's answers are not numbers any more; train it with a smaller learning rate")
    return {name: METRICS[name](predictions, labels) for name in names}
