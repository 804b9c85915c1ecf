import numpy as np
import pytest

from minitinybert.engine.memory import BLOCK
from minitinybert.ops import add_norm, dropout, layer_norm


@pytest.mark.parametrize("T", [1, BLOCK // 5 + 1])
def test_it_is_its_parts(T):
    """Over more than one block of rows, too."""
    rng = np.random.default_rng(0)
    a, x = rng.standard_normal((2, T, 5))
    b, gain, bias = rng.standard_normal((3, 5))
    keys = np.arange(T, dtype=np.uint64)
    y, cache = add_norm.forward(a, b, x, gain, bias, 1e-5, 0.3, keys)
    dropped, c_drop = dropout.forward(a + b, 0.3, keys)
    expected, c_norm = layer_norm.forward(x + dropped, gain, bias, 1e-5)
    assert np.allclose(y, expected, rtol=1e-12)
    dy = rng.standard_normal(y.shape)
    out = tuple(np.full(5, np.nan) for _ in range(3))
    da, db, dx, dgain, dbias = add_norm.backward(dy, cache, out)
    ds, dgain_2, dbias_2 = layer_norm.backward(dy, c_norm)
    assert np.allclose(dx, ds, rtol=1e-12) and np.allclose(da, dropout.backward(ds, c_drop), rtol=1e-12)
    assert np.allclose(db, da.sum(0)) and np.allclose(dgain, dgain_2) and np.allclose(dbias, dbias_2)
    assert db is out[0] and dgain is out[1] and dbias is out[2]
