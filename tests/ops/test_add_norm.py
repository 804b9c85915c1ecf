import numpy as np
import pytest

from minitinybert.ops import add_norm, dropout, layer_norm


@pytest.mark.parametrize("T", [1, 700])
def test_it_is_its_parts(T):
    rng = np.random.default_rng(0)
    a, x = rng.standard_normal((2, T, 5))
    gain, bias = rng.standard_normal((2, 5))
    keys = np.arange(T, dtype=np.uint64)
    y, cache = add_norm.forward(a, x, gain, bias, 1e-5, 0.3, keys)
    dropped, c_drop = dropout.forward(a, 0.3, keys)
    expected, c_norm = layer_norm.forward(x + dropped, gain, bias, 1e-5)
    assert np.allclose(y, expected, rtol=1e-12)
    dy = rng.standard_normal(y.shape)
    da, dx, dgain, dbias = add_norm.backward(dy, cache)
    ds, dgain_2, dbias_2 = layer_norm.backward(dy, c_norm)
    assert np.allclose(dx, ds, rtol=1e-12) and np.allclose(da, dropout.backward(ds, c_drop), rtol=1e-12)
    assert np.allclose(dgain, dgain_2) and np.allclose(dbias, dbias_2)
