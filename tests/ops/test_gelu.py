import numpy as np
import pytest
import scipy.special

from minitinybert.engine.memory import BLOCK
from minitinybert.ops import gelu

GRID = np.linspace(-12, 12, 200_001)


def test_the_float32_polynomial_is_as_good_as_float32():
    """Against erf in float64, y and y′ over the whole range, errors absolute: 4e-7 is a few roundings of numbers near 1."""
    x = GRID.astype(np.float32)
    y, cache = gelu.forward(x)
    wide = x.astype(np.float64)
    phi = 0.5 * (1 + scipy.special.erf(wide / np.sqrt(2)))
    slope = phi + wide * np.exp(-wide * wide / 2) / np.sqrt(2 * np.pi)
    near = np.maximum(1, abs(wide))
    assert (abs(y - wide * phi) / near).max() < 4e-7
    assert abs(cache.slope - slope).max() < 6e-7


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_known_values(approximate):
    y, cache = gelu.forward(np.array([0.0, 40.0, -40.0]), None, approximate)
    assert y.tolist() == [0, 40, 0]
    assert cache.slope.tolist() == [0.5, 1, 0]
    y, _ = gelu.forward(GRID, None, approximate)
    assert np.allclose(y - y[::-1], GRID, atol=1e-12)  # x Φ(x) − (−x) Φ(−x) = x


def test_the_two_formulas_are_near_and_not_the_same():
    exact, tanh = (gelu.forward(GRID, None, approximate)[0] for approximate in ("none", "tanh"))
    assert 1e-4 < abs(exact - tanh).max() < 1e-3


@pytest.mark.parametrize("rows", [1, BLOCK // 7 - 1, BLOCK // 7, BLOCK // 7 + 1, 2 * (BLOCK // 7) + 3])
def test_blocks_meet(rows):
    """The array is worked through in blocks of rows; where they meet, nothing is left out or done twice."""
    rng = np.random.default_rng(0)
    x, b = rng.standard_normal((rows, 7)), rng.standard_normal(7)
    y, cache = gelu.forward(x, b)
    assert np.allclose(y, (x + b) * scipy.special.ndtr(x + b), rtol=1e-12, atol=1e-15)
    dx, db = gelu.backward(np.ones_like(x), cache)
    assert dx.shape == x.shape and np.allclose(db, dx.sum(0))


def test_without_a_cache_the_answer_is_the_same():
    x = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    y, cache = gelu.forward(x, keep_cache=False)
    assert cache.slope is None and (y == gelu.forward(x)[0]).all()
