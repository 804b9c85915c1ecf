"""GLUE's metrics: of classes by their counts, of numbers by SciPy's correlations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from ..errors import InputError
from .significance import bootstrap, wilson

Interval = Callable[[], tuple[float, float]]


class Measured(dict[str, float]):
    """{metric: value}, a dict like any other. intervals: by metric, what works out the bounds between
    which it lies with 95 % confidence; only where they are shown, as a bootstrap takes a second."""

    def __init__(self, values: Mapping[str, float] | Iterable[tuple[str, float]] = (), intervals: Mapping[str, Interval] | None = None):
        super().__init__(values)
        self.intervals = dict(intervals or {})


def shown(values: Mapping[str, float]) -> str:
    """As the command line prints them, with tabs between metrics.

    >>> shown(Measured({"accuracy": 0.92}, {"accuracy": partial(wilson, 92, 100)}))
    'accuracy 0.9200 [0.8500, 0.9589]'
    """
    intervals = getattr(values, "intervals", {})
    bounds = lambda name: " [{:.4f}, {:.4f}]".format(*intervals[name]()) if name in intervals else ""
    return "\t".join(f"{name} {value:.4f}{bounds(name)}" for name, value in values.items())


def _correlation(name: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """0 where one side is constant, but for rounding: there is nothing to go together."""
    from scipy import stats  # here, as it takes a second to come

    p, y = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    if len(y) < 2 or any(np.ptp(side) <= 1e-12 * np.abs(side).max() for side in (p, y)):
        return 0.0
    if not (np.isfinite(p).all() and np.isfinite(y).all()):
        return float("nan")  # SciPy's own answer, but 1.11 raises
    return float(getattr(stats, name)(p, y).statistic)


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(predictions == labels))


def _f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Of class 1: 2 TP / (2 TP + FP + FN). 0 where nobody says or is 1."""
    said, true = predictions == 1, labels == 1
    both = int(said.sum() + true.sum())
    return 2 * int((said & true).sum()) / both if both else 0.0


def _matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """(c n − p·t) / √((n² − p·p)(n² − t·t)), of c right ones of n, and how often each class is
    predicted, p, and true, t (Gorodkin 2004; of two classes Matthews 1975). 0 where one side is
    constant."""
    names, classes = np.unique(np.stack([predictions, labels]), return_inverse=True)
    p, t = (np.bincount(side, minlength=len(names)).astype(np.float64) for side in classes.reshape(2, -1))
    n, c = len(labels), float((predictions == labels).sum())
    spread = np.sqrt(n * n - p @ p) * np.sqrt(n * n - t @ t)
    return float((c * n - p @ t) / spread) if spread else 0.0


def _mean_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Of Pearson's and Spearman's: GLUE's score of STS-B, by which the released code keeps its best
    model."""
    return (_correlation("pearsonr", predictions, labels) + _correlation("spearmanr", predictions, labels)) / 2


METRICS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews_correlation": _matthews,
    "pearson": lambda p, y: _correlation("pearsonr", p, y),
    "spearman": lambda p, y: _correlation("spearmanr", p, y),
    "mean_correlation": _mean_correlation,
}


def evaluate(names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> Measured:
    """{metric: value} of predictions (n,) against labels (n,): classes, or numbers for the
    correlations; with the intervals, accuracy's by Wilson, the others' by a bootstrap.

    A correlation with a constant is 0. InputError where a prediction is no finite number, or a
    metric.
    """
    if not np.isfinite(predictions).all():
        raise InputError("the model's answers are not numbers any more; train it with a smaller learning rate")
    values = {name: METRICS[name](predictions, labels) for name in names}
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    if bad:
        raise InputError(f"{bad[0]} is not a number here: are all labels of the file numbers?")
    intervals: dict[str, Interval] = {name: partial(bootstrap, METRICS[name], labels, predictions) for name in names}
    if "accuracy" in names:
        intervals["accuracy"] = partial(wilson, int((predictions == labels).sum()), len(labels))
    return Measured(values, intervals)


_CORRELATIONS = ("pearson", "spearman", "mean_correlation")
_KNOWS = 0.05  # the share of the labels' variance that answers which know something explain at the least


def of_constant(name: str, labels: np.ndarray) -> float:
    """The best that a constant answer reaches in a metric: of classes the most fitting one's, of a
    correlation 0."""
    if name in _CORRELATIONS:
        return 0.0
    return max(METRICS[name](np.full_like(labels, label), labels) for label in np.unique(labels))


def no_better(name: str, value: float, constant: float) -> str:
    """That a metric's value is no better than a constant answer's, in words; "" where it is."""
    return f"{name} is {value:.4f}, that of a constant answer {constant:.4f}" if value <= constant else ""


def knows_nothing(name: str, predictions: np.ndarray, labels: np.ndarray) -> str:
    """Why such predictions are no better than a constant answer, in words; "" where they are.

    Classes by the metric `name`. Numbers by their error too, as what hardly moves may go together
    with the labels and tells nothing: 3.60 ± 0.02 may have any correlation.
    """
    value = METRICS[name](predictions, labels)
    if said := no_better(name, value, of_constant(name, labels)):
        return said
    if name not in _CORRELATIONS:
        return ""
    error, variance = float(np.mean((predictions - labels) ** 2)), float(np.var(labels))
    if error < (1 - _KNOWS) * variance:
        return ""
    answers = f"answers {predictions.mean():.2f} ± {predictions.std():.2f} to labels {labels.mean():.2f} ± {labels.std():.2f}"
    return f"{answers} err by {error:.3f} squared, a constant answer by {variance:.3f}"
