"""Metrics by hand on a few numbers, and where they are undefined."""

import numpy as np
import pytest

from minitinybert.data.metrics import evaluate
from minitinybert.errors import InputError


def test_by_hand():
    labels, predictions = np.array([1, 1, 1, 0, 0]), np.array([1, 0, 1, 1, 0])
    found = evaluate(("accuracy", "f1", "matthews_correlation"), predictions, labels)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["matthews_correlation"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    found = evaluate(("pearson", "spearman"), np.array([1.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    assert found["spearman"] == pytest.approx(1) and 0.9 < found["pearson"] < 1


@pytest.mark.parametrize("names", [("accuracy", "f1", "matthews_correlation"), ("pearson", "spearman")])
@pytest.mark.filterwarnings("error")
def test_constant_answers_are_zero_not_nan(names):
    found = evaluate(names, np.zeros(4), np.array([0.0, 1.0, 1.0, 1.0]))
    assert all(value == (0.25 if name == "accuracy" else 0.0) for name, value in found.items())


def test_answers_that_are_no_numbers():
    with pytest.raises(InputError, match="not numbers"):
        evaluate(("pearson",), np.array([1.0, np.nan]), np.array([1.0, 2.0]))
