"""Intervals and paired tests, against values worked out by hand, published ones, and drawn examples on which the truth is known."""

import math

import numpy as np
import pytest

from minitinybert.data.metrics import METRICS
from minitinybert.data.significance import bootstrap, mcnemar, paired_bootstrap, wilson

accuracy = METRICS["accuracy"]


@pytest.mark.parametrize(("correct", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)])
def test_wilson_s_interval_is_the_published_one(correct, n, low, high):
    """Newcombe (1998), Statistics in Medicine 17, table I: method 3, the score interval; and of none of 20, z² / (n + z²)."""
    assert wilson(correct, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    mirrored = wilson(n - correct, n)
    assert mirrored == (pytest.approx(1 - high, abs=5e-5), pytest.approx(1 - low, abs=5e-5))


def test_wilson_s_bounds_solve_its_equation():
    """|p̂ − p| = z √(p (1 − p) / n) at either bound, with z of the confidence asked for."""
    for confidence, z in ((0.9, 1.6448536), (0.95, 1.9599640), (0.99, 2.5758293)):
        for p in wilson(37, 50, confidence):
            assert abs(37 / 50 - p) == pytest.approx(z * math.sqrt(p * (1 - p) / 50), rel=1e-6)


@pytest.mark.parametrize(("correct", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_what_is_no_share_is_refused(correct, n):
    with pytest.raises(ValueError):
        wilson(correct, n)


def answers(both, only_a, only_b, neither):
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    order = np.random.default_rng(0).permutation(len(a))
    return np.array(a, bool)[order], np.array(b, bool)[order]


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 3), (3, 9), (6, 6), (1, 0), (0, 15)])
def test_mcnemar_is_the_binomial_tail_of_the_pairs_that_differ(only_a, only_b):
    n, k = only_a + only_b, min(only_a, only_b)
    expected = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    for both, neither in ((0, 1), (200, 30)):  # on which they agree, nothing is said
        found = mcnemar(*answers(both, only_a, only_b, neither))
        assert found[:2] == (only_a, only_b) and found.p == pytest.approx(expected, rel=1e-12)


def test_models_that_agree_everywhere_do_not_differ():
    assert mcnemar(*answers(5, 0, 0, 2)) == (0, 0, 1.0)
    labels = np.arange(20) % 2
    assert paired_bootstrap(accuracy, labels, labels, labels.copy(), draws=50) == (0.0, 0.0, 0.0, 1.0)


def test_answers_to_other_examples_are_refused():
    for test in (mcnemar, lambda a, b: paired_bootstrap(accuracy, np.ones(3), a, b), lambda a, b: paired_bootstrap(accuracy, b, a, a)):
        with pytest.raises(ValueError, match="same examples"):
            test(np.ones(3), np.ones(4))
        with pytest.raises(ValueError, match="one at least"):
            test(np.ones(0), np.ones(0))


def test_the_bootstrap_of_an_accuracy_is_its_normal_interval():
    """A difference of accuracies is a mean of differences in {−1, 0, 1}, whose standard error is known."""
    a, b = answers(700, 120, 60, 120)
    found = paired_bootstrap(accuracy, np.ones(1000, int), a.astype(int), b.astype(int), seed=3)
    error = np.std(a.astype(float) - b) / math.sqrt(1000)
    assert found.value == pytest.approx(0.06)
    assert (found.low, found.high) == (pytest.approx(0.06 - 1.96 * error, abs=0.002), pytest.approx(0.06 + 1.96 * error, abs=0.002))
    assert found.p == pytest.approx(2 / 2001)  # 4.5 standard errors from 0: no draw is on the other side
    turned = paired_bootstrap(accuracy, np.ones(1000, int), b.astype(int), a.astype(int), seed=3)
    assert turned == (-found.value, pytest.approx(-found.high), pytest.approx(-found.low), found.p)


def test_the_bootstrap_draws_pairs():
    """Drawn apart, two models that part on one of 400 examples would seem to differ by some hundredths."""
    labels = np.arange(400) % 2
    a = np.where(np.random.default_rng(1).random(400) < 0.3, 1 - labels, labels)
    b = a.copy()
    b[0] = 1 - b[0]
    found = paired_bootstrap(METRICS["matthews_correlation"], labels, a, b, draws=300)
    assert abs(found.value) < 0.01 and found.high - found.low < 0.03 and found.p > 0.3


def test_the_bootstrap_is_a_function_of_its_seed_and_of_any_metric():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=80)
    a, b = labels + 0.3 * rng.normal(size=80), labels + 1.5 * rng.normal(size=80)
    first = paired_bootstrap(METRICS["spearman"], labels, a, b, seed=5, draws=200)
    assert first == paired_bootstrap(METRICS["spearman"], labels, a, b, seed=5, draws=200)
    assert first != paired_bootstrap(METRICS["spearman"], labels, a, b, seed=6, draws=200)
    assert 0 < first.low < first.value < first.high and first.p < 0.02
    narrow = paired_bootstrap(METRICS["spearman"], labels, a, b, seed=5, draws=200, confidence=0.5)
    assert first.low < narrow.low < narrow.high < first.high


def test_one_model_s_interval_is_its_normal_interval():
    right, _ = answers(700, 100, 0, 200)
    low, high = bootstrap(accuracy, np.ones(1000, int), right.astype(int), seed=1)
    error = math.sqrt(0.8 * 0.2 / 1000)
    assert (low, high) == (pytest.approx(0.8 - 1.96 * error, abs=0.003), pytest.approx(0.8 + 1.96 * error, abs=0.003))
    with pytest.raises(ValueError, match="same examples"):
        bootstrap(accuracy, np.ones(3), np.ones(4))


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_equal_models_are_found_to_differ_as_seldom_as_said(share):
    """Of 300 pairs of equally good models some 5 % at most have p ≤ 0.05."""
    rng = np.random.default_rng(0)
    found = [mcnemar(rng.random(60) < share, rng.random(60) < share).p <= 0.05 for _ in range(300)]
    assert 0 < sum(found) <= 0.05 * 300 + 8
