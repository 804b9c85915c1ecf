import numpy as np

from minitinybert.ops import linear


def test_by_hand():
    y, cache = linear.forward(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]), np.array([0.5, 0.0, -1.0]))
    assert y.tolist() == [[11.5, 17.0, 22.0]]
    dx, dW, db = linear.backward(np.array([[1.0, 0.0, 2.0]]), cache)
    assert dx.tolist() == [[17.0, 20.0]]
    assert dW.tolist() == [[1.0, 2.0], [0.0, 0.0], [2.0, 4.0]]
    assert db.tolist() == [1.0, 0.0, 2.0]


def test_gradients_are_written_where_asked():
    rng = np.random.default_rng(0)
    y, cache = linear.forward(rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 5)), rng.standard_normal(4))
    dy = rng.standard_normal(y.shape)
    _, dW, db = linear.backward(dy, cache)
    flat = np.full(40, np.nan)  # whatever was there is overwritten
    out = flat[:20].reshape(4, 5), flat[20:24]
    _, dW_out, db_out = linear.backward(dy, cache, out)
    assert dW_out is out[0] and db_out is out[1]
    assert np.array_equal(dW_out, dW) and np.array_equal(db_out, db)
    assert np.isnan(flat[24:]).all()


def test_packed_rows_are_padded_rows():
    rng = np.random.default_rng(1)
    x, W, dy = rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 5)), rng.standard_normal((2, 3, 4))
    (y, cache), (y_rows, cache_rows) = linear.forward(x, W), linear.forward(x.reshape(6, 5), W)
    assert np.array_equal(y.reshape(6, 4), y_rows)
    padded, packed = linear.backward(dy, cache), linear.backward(dy.reshape(6, 4), cache_rows)
    assert padded[2] is None and packed[2] is None  # there was no bias
    for a, b in zip(padded[:2], packed[:2], strict=True):
        assert np.array_equal(a.reshape(b.shape), b)
