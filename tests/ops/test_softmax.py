import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.ops import softmax


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 30), st.sampled_from([1.0, 100.0, 1e4]))
def test_gradients_sum_to_zero_and_rows_to_one(seed, rows, L, scale):
    rng = np.random.default_rng(seed)
    p, cache = softmax.forward(scale * rng.standard_normal((rows, L)))
    dp = rng.standard_normal(p.shape)
    ds = softmax.backward(dp, cache)
    assert np.allclose(p.sum(-1), 1, atol=1e-14)
    assert (abs(ds.sum(-1)) <= 1e-13 * abs(dp).sum(-1)).all()


@given(st.integers(0, 1000), st.floats(-1e4, 1e4))
def test_a_shift_of_a_row_changes_nothing(seed, shift):
    s = np.random.default_rng(seed).standard_normal((3, 6))
    assert np.allclose(softmax.forward(s + shift)[0], softmax.forward(s)[0], rtol=1e-10)


def test_masked_places_get_nothing_and_pass_nothing_back():
    rng = np.random.default_rng(0)
    for dtype, low in ((np.float64, -1e9), (np.float32, -1e9), (np.float32, float(np.finfo(np.float32).min))):
        s = 1e4 * rng.standard_normal((4, 5)).astype(dtype)
        bias = np.array([0, low, 0, low, 0], dtype)
        p, cache = softmax.forward(s + bias)
        ds = softmax.backward(rng.standard_normal(s.shape).astype(dtype), cache)
        assert p.dtype == ds.dtype == dtype
        assert not p[:, [1, 3]].any() and not ds[:, [1, 3]].any()
        assert np.allclose(p[:, [0, 2, 4]], softmax.forward(s[:, [0, 2, 4]])[0], rtol=1e-6)


def test_a_row_of_masked_places_alone_is_a_distribution_still():
    p, _ = softmax.forward(np.zeros((1, 4), np.float32) + np.finfo(np.float32).min)
    assert p.tolist() == [[0.25] * 4]


def test_one_place_takes_all_and_its_gradient_is_zero():
    p, cache = softmax.forward(np.array([[-7.0]]))
    assert p.tolist() == [[1.0]] and softmax.backward(np.array([[3.0]]), cache).tolist() == [[0.0]]
