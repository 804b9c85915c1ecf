import numpy as np
import pytest

from minitinybert.ops import feed_forward, gelu, linear


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_it_is_its_three_lines(approximate):
    rng = np.random.default_rng(0)
    x, W1, b1, W2, b2 = (rng.standard_normal(shape) for shape in ((2, 3, 4), (7, 4), (7,), (4, 7), (4,)))
    y, cache = feed_forward.forward(x, W1, b1, W2, b2, approximate)
    a, _ = gelu.forward(linear.forward(x, W1, b1)[0], approximate)
    assert np.array_equal(y, linear.forward(a, W2, b2)[0])
    assert np.array_equal(feed_forward.forward(x, W1, b1, W2, None, approximate)[0], linear.forward(a, W2)[0])
    dy = rng.standard_normal(y.shape)
    out = tuple(np.full(w.shape, np.nan) for w in (W1, b1, W2, b2))
    written, plain = feed_forward.backward(dy, cache, (out[:2], out[2:])), feed_forward.backward(dy, cache)
    assert np.allclose(plain[4], dy.sum((0, 1)), rtol=1e-12)
    for i, (a, b) in enumerate(zip(written, plain, strict=True)):
        assert np.array_equal(a, b) and (i == 0 or a is out[i - 1])
