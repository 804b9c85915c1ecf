"""GLUE's metrics, by scikit-learn and SciPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from ..errors import InputError


def _correlation(measure, predictions: np.ndarray, labels: np.ndarray) -> float:
    """0 where one side is constant: there is nothing to go together."""
    if len(labels) < 2 or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(measure(predictions, labels).statistic)


METRICS = {
    "accuracy": lambda p, y: float(accuracy_score(y, p)),
    "f1": lambda p, y: float(f1_score(y, p, zero_division=0.0)),
    "matthews_correlation": lambda p, y: float(matthews_corrcoef(y, p)),
    "pearson": lambda p, y: _correlation(stats.pearsonr, p, y),
    "spearman": lambda p, y: _correlation(stats.spearmanr, p, y),
}


def evaluate(names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{metric: value} of predictions (n,) against labels (n,): classes, or numbers for the correlations."""
    if not np.isfinite(predictions).all():
        raise InputError("the model's answers are not numbers any more; train it with a smaller learning rate")
    return {name: METRICS[name](predictions, labels) for name in names}
