import numpy as np
import pytest
import scipy.special

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
    assert abs(gelu.backward(np.ones_like(x), cache) - slope).max() < 6e-7


def test_the_tanh_formula_in_float32():
    """y′ less so: in 2Φ(1 − Φ), Φ's rounding near 1 is left, some 6e-8, and u′x, about 20 where Φ becomes 1, multiplies it."""
    x = GRID.astype(np.float32)
    ones = np.ones_like(x)
    (y, cache), (wide, wide_cache) = gelu.forward(x, "tanh"), gelu.forward(x.astype(np.float64), "tanh")
    assert (abs(y - wide) / np.maximum(1, abs(x))).max() < 4e-7
    assert abs(gelu.backward(ones, cache) - gelu.backward(ones.astype(np.float64), wide_cache)).max() < 3e-6


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_known_values(approximate):
    y, cache = gelu.forward(np.array([0.0, 40.0, -40.0]), approximate)
    assert y.tolist() == [0, 40, 0]
    assert gelu.backward(np.ones(3), cache).tolist() == [0.5, 1, 0]
    y, _ = gelu.forward(GRID, approximate)
    assert np.allclose(y - y[::-1], GRID, atol=1e-12)  # x Φ(x) − (−x) Φ(−x) = x


def test_the_exact_formula_in_float64():
    x = np.random.default_rng(0).standard_normal((31, 7))
    assert np.allclose(gelu.forward(x)[0], x * scipy.special.ndtr(x), rtol=1e-12, atol=1e-15)


def test_the_two_formulas_are_near_and_not_the_same():
    exact, tanh = (gelu.forward(GRID, approximate)[0] for approximate in ("none", "tanh"))
    assert 1e-4 < abs(exact - tanh).max() < 1e-3
