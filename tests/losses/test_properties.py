"""What each loss must be beyond its gradient (test_laws.py): its minimum, its parts, its relation to the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.losses import attention, cross_entropy, embedding, hidden, mlm, mse, prediction

seeds = st.integers(0, 1000)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


# Each loss on the rows `part` of one batch of 6, with the whole's count: loss, cache, backward.
PARTS = {
    "mse": (mse, lambda x, y, m, part: mse.forward(x[part], y[part], m[part, None], 40)),
    "attention": (attention, lambda x, y, m, part: attention.forward(x[part], y[part], None, 30)),
    "hidden": (hidden, lambda x, y, m, part: hidden.forward(x[part], y[part], normal(1, 5, 5), normal(2, 5), m[part], 17)),
    "embedding": (embedding, lambda x, y, m, part: embedding.forward(x[part], y[part], None, None, m[part], 17)),
    "prediction": (prediction, lambda x, y, m, part: prediction.forward(x[part], y[part], 2.0, 6)),
    "cross_entropy": (cross_entropy, lambda x, y, m, part: cross_entropy.forward(x[part], np.arange(6)[part] % 5, 6)),
    "mlm": (mlm, lambda x, y, m, part: mlm.forward(x[part], np.where(m, 1, mlm.IGNORE)[part], 4)),
}


@pytest.mark.parametrize("name", PARTS)
@given(seed=seeds, cut=st.integers(1, 5))
def test_the_parts_of_a_batch_add_up(name, seed, cut):
    """Losses and weight gradients are sums over the parts, row gradients are the parts' side by side."""
    loss_of, forward = PARTS[name]
    x, y, m = normal(seed, 6, 5), normal(seed + 1, 6, 5), normal(seed + 2, 6) > 0
    whole, *parts = (forward(x, y, m, part) for part in (slice(0, 6), slice(0, cut), slice(cut, 6)))
    assert sum(loss for loss, _ in parts) == pytest.approx(whole[0], rel=1e-12)
    as_tuple = lambda gradients: gradients if isinstance(gradients, tuple) else (gradients,)
    rows, *weights = as_tuple(loss_of.backward(0.7, whole[1]))
    (rows_1, *weights_1), (rows_2, *weights_2) = (as_tuple(loss_of.backward(0.7, cache)) for _, cache in parts)
    assert np.allclose(rows, np.concatenate([rows_1, rows_2]), rtol=1e-12, atol=1e-15)
    for a, b, c in zip(weights, weights_1, weights_2, strict=True):
        assert (a is None and b is None and c is None) or np.allclose(a, b + c, rtol=1e-12, atol=1e-14)


@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_attention_is_the_mean_over_heads_of_their_mse(seed, heads, L):
    A_S, A_T = normal(seed, 2, heads, L, L), normal(seed + 1, 2, heads, L, L)
    each = [mse.forward(A_S[:, i], A_T[:, i])[0] for i in range(heads)]
    assert attention.forward(A_S, A_T)[0] == pytest.approx(np.mean(each), rel=1e-12)
    assert attention.forward(A_S.reshape(-1), A_T.reshape(-1))[0] == pytest.approx(np.mean(each), rel=1e-12)


@given(seeds)
def test_equal_traces_cost_nothing_and_move_nothing(seed):
    x = normal(seed, 3, 4)
    for loss_of, result in ((mse, mse.forward(x, x)), (attention, attention.forward(x, x)), (hidden, hidden.forward(x, x, None))):
        assert result[0] == 0
        gradient = loss_of.backward(1.0, result[1])
        assert not (gradient[0] if isinstance(gradient, tuple) else gradient).any()
    assert not prediction.backward(1.0, prediction.forward(x, x, 2.0)[1]).any()


@given(seeds)
def test_what_is_masked_is_not_seen(seed):
    """Other numbers where the mask is False change neither loss nor gradient; the gradient there is zero."""
    x, y, mask = normal(seed, 4, 5), normal(seed + 1, 4, 5), normal(seed + 2, 4, 5) > 0
    mask[0, 0] = True
    loss, cache = mse.forward(x, y, mask)
    other = np.where(mask, x, 1e3)
    loss_2, cache_2 = mse.forward(other, y, mask)
    assert loss == loss_2 and np.array_equal(mse.backward(1.0, cache), mse.backward(1.0, cache_2))
    assert not mse.backward(1.0, cache)[~mask].any()
    rows = mask[:, 0]
    W, b = normal(3, 6, 5), normal(4, 6)
    _, hidden_cache = hidden.forward(x, normal(5, 4, 6), W, b, rows)
    _, seen = hidden.forward(x[rows], normal(5, 4, 6)[rows], W, b)
    for a, c in zip(hidden.backward(1.0, hidden_cache)[1:], hidden.backward(1.0, seen)[1:], strict=True):
        assert np.allclose(a, c, rtol=1e-12)


def test_a_mask_of_ones_is_no_mask():
    x, y = normal(0, 3, 4), normal(1, 3, 4)
    assert mse.forward(x, y, np.ones((3, 4), bool))[0] == mse.forward(x, y)[0]


@given(seeds, st.sampled_from([1.0, 100.0, 1e4]))
def test_the_gradients_of_logits_sum_to_zero(seed, scale):
    z_S, z_T, labels = scale * normal(seed, 5, 7), scale * normal(seed + 1, 5, 7), np.arange(5)
    for loss_of, (loss, cache) in (
        (prediction, prediction.forward(z_S, z_T)),
        (cross_entropy, cross_entropy.forward(z_S, labels)),
        (mlm, mlm.forward(z_S, np.where(labels == 2, mlm.IGNORE, labels))),
    ):
        assert np.isfinite(loss) and loss >= 0
        assert abs(loss_of.backward(1.0, cache).sum(-1)).max() < 1e-14


@given(seeds)
def test_hard_soft_targets_are_labels(seed):
    """A teacher that is sure makes the prediction loss cross-entropy."""
    z, labels = normal(seed, 4, 3), np.array([0, 2, 1, 1])
    sure = np.where(labels[:, None] == np.arange(3), 0.0, -1e4)
    soft, c_soft = prediction.forward(z, sure)
    hard, c_hard = cross_entropy.forward(z, labels)
    assert soft == pytest.approx(hard, rel=1e-12)
    assert np.allclose(prediction.backward(1.0, c_soft), cross_entropy.backward(1.0, c_hard), atol=1e-15)


@given(seeds)
def test_the_prediction_loss_is_least_where_student_and_teacher_agree(seed):
    z_T = normal(seed, 4, 3)
    least, _ = prediction.forward(z_T, z_T)
    p = np.exp(z_T) / np.exp(z_T).sum(-1, keepdims=True)
    assert least == pytest.approx(-(p * np.log(p)).sum() / 4, rel=1e-12)
    assert prediction.forward(z_T + normal(seed + 1, 4, 3), z_T)[0] > least
    assert prediction.forward(z_T + 5.0, z_T)[0] == pytest.approx(least, rel=1e-12)


def test_temperature_divides_both_logits():
    z_S, z_T = normal(0, 4, 3), normal(1, 4, 3)
    assert prediction.forward(2 * z_S, 2 * z_T, 2.0)[0] == pytest.approx(prediction.forward(z_S, z_T)[0], rel=1e-14)


def test_mlm_where_nothing_is_asked():
    loss, cache = mlm.forward(normal(0, 2, 3, 5), np.full((2, 3), mlm.IGNORE))
    assert loss == 0 and not mlm.backward(1.0, cache).any()
    assert mlm.backward(1.0, cache).shape == (2, 3, 5)


def test_mlm_is_cross_entropy_of_the_asked_rows():
    z, labels = normal(0, 2, 3, 5), np.array([[-100, 4, -100], [0, -100, 2]])
    rows = labels != mlm.IGNORE
    loss, cache = mlm.forward(z, labels)
    expected, c = cross_entropy.forward(z[rows], labels[rows])
    assert loss == pytest.approx(expected, rel=1e-14)
    assert np.allclose(mlm.backward(0.3, cache)[rows], cross_entropy.backward(0.3, c))
    assert not mlm.backward(0.3, cache)[~rows].any()


def test_without_a_projection_there_is_no_gradient_for_one():
    _, cache = hidden.forward(normal(0, 4, 3), normal(1, 4, 3), None)
    _, dW, db = hidden.backward(1.0, cache)
    assert dW is None and db is None
