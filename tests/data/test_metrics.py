"""Metrics by hand on a few numbers, and where they are undefined."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.data import metrics
from minitinybert.data.glue import TASKS
from minitinybert.data.metrics import METRICS, evaluate
from minitinybert.errors import InputError


def test_by_hand():
    labels, predictions = np.array([1, 1, 1, 0, 0]), np.array([1, 0, 1, 1, 0])
    found = evaluate(("accuracy", "f1", "matthews_correlation"), predictions, labels)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["matthews_correlation"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    found = evaluate(("pearson", "spearman"), np.array([1.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    assert found["spearman"] == pytest.approx(1) and 0.9 < found["pearson"] < 1
    # ranks 2 1 4 3 against 1 2 3 4: 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15)
    found = evaluate(("spearman",), np.array([2.0, -1.0, 70.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found["spearman"] == pytest.approx(0.6)
    # of 1 2 9 against 1 2 3: Pearson's 8/√(38 · 2), Spearman's 1
    found = evaluate(("mean_correlation",), np.array([1.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    assert found["mean_correlation"] == pytest.approx((8 / np.sqrt(38 * 2) + 1) / 2)


@pytest.mark.parametrize("names", [("accuracy", "f1", "matthews_correlation"), ("pearson", "spearman")])
@pytest.mark.filterwarnings("error")
def test_constant_answers_are_zero_not_nan(names):
    found = evaluate(names, np.zeros(4), np.array([0.0, 1.0, 1.0, 1.0]))
    assert all(value == (0.25 if name == "accuracy" else 0.0) for name, value in found.items())


@settings(max_examples=100)
@given(st.data(), st.integers(1, 6))
def test_always_a_number_and_never_a_warning(data, n):
    draw = lambda kind: np.array(data.draw(st.lists(kind, min_size=n, max_size=n)))
    near = st.sampled_from([0.1, 0.1 + 2**-56, 0.3, 1e8, 1e8 + 1e-8, 1e-300]) | st.floats(-5, 5)
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(("pearson", "spearman"), draw(near).astype(dtype), draw(near))
        found |= evaluate(("accuracy", "f1", "matthews_correlation"), draw(st.integers(0, 1)), draw(st.integers(0, 1)))
    assert all(isinstance(value, float) and -1 - 1e-9 <= value <= 1 + 1e-9 for value in found.values())


@settings(max_examples=60)
@given(st.data(), st.integers(1, 40), st.integers(2, 4))
def test_as_scikit_learn(data, n, classes):
    """Of two classes, and Matthews' correlation of more; drawn uneven, so that constant sides are among them."""
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = lambda: np.array(data.draw(st.lists(st.integers(0, classes - 1) | st.just(1), min_size=n, max_size=n)))
    p, y = draw(), draw()
    assert METRICS["accuracy"](p, y) == sklearn.accuracy_score(y, p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class, and of constant sides, which are 0 here
        assert METRICS["matthews_correlation"](p, y) == pytest.approx(sklearn.matthews_corrcoef(y, p), abs=1e-12)
        assert METRICS["f1"](p, y) == pytest.approx(sklearn.f1_score(y == 1, p == 1, zero_division=0.0), abs=1e-12)


def test_many_examples_overflow_nothing():
    """n² of 10⁵ examples, squared, is beyond 64 bits."""
    y = np.arange(100_000) % 2
    assert METRICS["matthews_correlation"](np.where(np.arange(100_000) % 4 == 0, 1, y), y) == pytest.approx(1 / np.sqrt(3))


def test_every_task_s_metrics_are_known():
    known = {metric for task in TASKS.values() for metric in task.metrics}
    assert known | {"mean_correlation"} == set(METRICS)  # by which recipes may keep the best model


def test_labels_that_are_no_numbers():
    with pytest.raises(InputError, match="pearson is not a number here"):
        evaluate(("pearson",), np.array([1.0, 3.0, 2.0]), np.array([1.0, 2.0, np.nan]))


def test_answers_that_are_no_numbers():
    with pytest.raises(InputError, match="not numbers"):
        evaluate(("pearson",), np.array([1.0, np.nan]), np.array([1.0, 2.0]))


def test_what_a_constant_answer_reaches():
    labels = np.array([1, 1, 1, 0])
    assert metrics.of_constant("accuracy", labels) == 0.75
    assert metrics.of_constant("f1", labels) == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert metrics.of_constant("matthews_correlation", labels) == metrics.of_constant("pearson", labels) == 0


def test_answers_that_know_nothing_are_told_from_those_that_do():
    labels = np.array([1, 1, 1, 0])
    assert metrics.knows_nothing("accuracy", labels, labels) == ""
    assert metrics.knows_nothing("accuracy", np.array([1, 1, 0, 1]), labels) == "accuracy is 0.5000, that of a constant answer 0.7500"
    numbers = np.array([0.0, 1.0, 4.0, 5.0])
    assert metrics.knows_nothing("pearson", numbers + 0.5, numbers) == ""
    faint = 3.6 + 0.02 * (numbers - 2.5)  # correlation 1
    why = "answers 3.60 ± 0.04 to labels 2.50 ± 2.06 err by 5.292 squared, a constant answer by 4.250"
    assert metrics.knows_nothing("spearman", faint, numbers) == why
    assert metrics.knows_nothing("pearson", -numbers, numbers).startswith("pearson is -1.0000")


def test_intervals_of_every_metric():
    """Accuracy's by Wilson, worked out by hand; the others' hold their value, and are narrower for more examples."""
    y = np.arange(60) % 2
    p = np.where(np.arange(60) % 5 == 0, 1 - y, y)
    found = evaluate(("accuracy", "f1", "matthews_correlation"), p, y)
    assert found == {name: METRICS[name](p, y) for name in found} and type(json.loads(json.dumps(found))) is dict
    z, share, n = 1.959964, 48 / 60, 60
    middle, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert found.intervals["accuracy"]() == pytest.approx([(middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)], abs=1e-6)
    for name in ("f1", "matthews_correlation"):
        low, high = found.intervals[name]()
        few_low, few_high = evaluate((name,), p[:20], y[:20]).intervals[name]()
        assert low < found[name] < high and high - low < few_high - few_low
    assert metrics.shown(found).split("\t")[0] == "accuracy 0.8000 [0.6822, 0.8817]"
    assert metrics.shown({"loss": 0.5}) == "loss 0.5000"
