import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.ops import layer_norm


def drawn(seed, rows, d, eps=1e-12):
    rng = np.random.default_rng(seed)
    y, cache = layer_norm.forward(rng.standard_normal((rows, d)), rng.standard_normal(d), rng.standard_normal(d), eps)
    return rng, y, cache


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(3, 40))
def test_dx_is_orthogonal_to_ones_and_to_x_hat(seed, rows, d):
    """Layer norm sees neither a shift nor a stretch of x."""
    rng, y, cache = drawn(seed, rows, d)
    dx, *_ = layer_norm.backward(rng.standard_normal(y.shape), cache)
    length = np.linalg.norm(dx, axis=-1)
    assert (length > 1e-6).all()
    assert (abs(dx.sum(-1)) <= 1e-12 * d * length).all()
    assert (abs((dx * cache.x_hat).sum(-1)) <= 1e-9 * d * length).all()


@given(st.integers(0, 1000), st.integers(2, 40), st.floats(-50, 50), st.floats(0.5, 50))
def test_y_sees_neither_shift_nor_stretch(seed, d, shift, stretch):
    x = np.random.default_rng(seed).permutation(np.linspace(-2, 2, d))[None]
    one, zero = np.ones(d), np.zeros(d)
    y, _ = layer_norm.forward(x, one, zero, 1e-12)
    assert np.allclose(layer_norm.forward(stretch * x + shift, one, zero, 1e-12)[0], y, atol=1e-8)
    assert np.allclose([y.mean(), (y * y).mean()], [0, 1], atol=1e-8)


def test_a_constant_row_gives_the_bias_and_finite_gradients():
    for d in (1, 2, 7):
        for eps in (1e-12, 1e-5):
            x = np.full((2, d), 3.25, np.float32)
            y, cache = layer_norm.forward(x, np.ones(d, np.float32), np.arange(d, dtype=np.float32), eps)
            assert np.array_equal(y, np.tile(np.arange(d), (2, 1)))
            gradients = layer_norm.backward(np.ones_like(x), cache)
            assert all(np.isfinite(g).all() for g in gradients)
