import numpy as np
import pytest

from minitinybert.engine.random import row_keys
from minitinybert.ops import dropout


def keys(*shape):
    return row_keys(3, np.arange(np.prod(shape), dtype=np.uint64).reshape(shape))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(p):
    x = np.ones((400, 500))
    y, cache = dropout.forward(x, p, keys(400))
    n, share = x.size, (y == 0).mean()
    assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / n)
    assert np.allclose(y[y != 0], 1 / (1 - p), rtol=1e-4)
    rows, columns = (y == 0).mean(1), (y == 0).mean(0)
    assert rows.std() == pytest.approx(np.sqrt(p * (1 - p) / 500), rel=0.3)
    assert columns.std() == pytest.approx(np.sqrt(p * (1 - p) / 400), rel=0.3)


def test_evaluation_and_p_zero_hand_x_through():
    x = np.ones((2, 3))
    for p, row_key in ((0.5, None), (0.0, keys(2))):
        y, cache = dropout.forward(x, p, row_key)
        assert y is x and dropout.backward(x, cache) is x


def test_a_row_s_mask_depends_on_its_key_alone():
    x = np.ones((6, 37))
    y, _ = dropout.forward(x, 0.4, keys(6))
    order = [4, 1, 5]
    assert np.array_equal(dropout.forward(x[order], 0.4, keys(6)[order])[0], y[order])
    assert np.array_equal(dropout.forward(x.reshape(2, 3, 37), 0.4, keys(2, 3))[0].reshape(6, 37), y)
    assert np.array_equal(dropout.forward(x[:, :11], 0.4, keys(6))[0], y[:, :11])
    assert len({row.tobytes() for row in y}) == 6


def test_backward_is_forward():
    rng = np.random.default_rng(0)
    x, (_, cache) = rng.standard_normal((5, 8)), dropout.forward(np.ones((5, 8)), 0.3, keys(5))
    assert np.array_equal(dropout.backward(x, cache), dropout.forward(x, 0.3, keys(5))[0])
