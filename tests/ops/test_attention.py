"""Attention on one rectangle of heads; among the sentences of a batch it is model/test_self_attention.py's, its gradient test_laws.py's."""

import numpy as np
import pytest

from minitinybert.ops import attention

N, H, L, D_K = 2, 3, 4, 5


def drawn(dtype=np.float64, L=L):
    return np.random.default_rng(0).standard_normal((3, N, H, L, D_K)).astype(dtype)


def test_by_hand():
    """One head of one sentence, written out."""
    q, k, v = drawn()
    context, scores, _ = attention.forward(q, k, v)
    A = q[1, 2] @ k[1, 2].T / np.sqrt(D_K)
    P = np.exp(A) / np.exp(A).sum(1, keepdims=True)
    assert np.allclose(scores[1, 2], A, rtol=1e-12) and np.allclose(context[1, 2], P @ v[1, 2], rtol=1e-12)


def test_scores_are_seen_before_mask_and_softmax():
    q, k, v = drawn()
    mask = np.array([[True, False, True, True], [True, True, True, False]]).reshape(N, 1, 1, L)
    context, scores, cache = attention.forward(q, k, v, mask)
    assert np.array_equal(scores, attention.forward(q, k, v)[1])
    P = cache.weights.softmax.p
    assert not P[0, :, :, 1].any() and not P[1, :, :, 3].any() and np.allclose(P.sum(-1), 1, rtol=1e-14)
    real = [0, 2, 3]
    alone, _, _ = attention.forward(q[:1], k[:1, :, real], v[:1, :, real])
    assert np.allclose(context[:1], alone, rtol=1e-12)


def test_the_scores_gradient_is_added_to_what_comes_through_the_context():
    q, k, v = drawn()
    context, scores, cache = attention.forward(q, k, v)
    dcontext, dscores = np.random.default_rng(1).standard_normal((2, *scores.shape[:3], L))
    dcontext = np.repeat(dcontext[..., :1], D_K, axis=-1)
    both = attention.backward(dcontext, cache, dscores)
    one, other = attention.backward(dcontext, cache), attention.backward(0 * dcontext, cache, dscores)
    for a, b, c in zip(both, one, other, strict=True):
        assert np.allclose(a, b + c, rtol=1e-12, atol=1e-14)
    assert np.allclose(other[0], dscores @ k / np.sqrt(D_K), rtol=1e-12) and not other[2].any()


def test_what_is_dropped_is_dropped_again_on_the_way_back():
    """D, worked out again from P and the mask, is the forward's to the bit; one dropped entry takes no part in dv."""
    q, k, v = drawn()
    keys = np.arange(N * H * L, dtype=np.uint64).reshape(N, H, L)
    A = q @ k.swapaxes(-1, -2)
    D, weights = attention.weigh(A, None, 0.5, keys)
    assert np.array_equal(attention.weighed(weights), D) and 0.2 < (D == 0).mean() < 0.8
    context, _, cache = attention.forward(q, k, v, None, 0.5, keys)
    D = attention.weighed(cache.weights)
    assert np.allclose(context, D @ v, rtol=1e-14)
    _, _, dv = attention.backward(np.ones_like(context), cache)
    assert np.allclose(dv, np.repeat(D.sum(2)[..., None], D_K, axis=-1), rtol=1e-12)


def test_one_token_attends_to_itself():
    q, k, v = drawn(L=1)
    context, _, cache = attention.forward(q, k, v)
    assert np.allclose(context, v, rtol=1e-14)
    dq, dk, dv = attention.backward(np.ones_like(v), cache)
    assert not dq.any() and not dk.any() and np.allclose(dv, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sentence_of_padding_alone_stays_finite(dtype):
    q, k, v = drawn(dtype)
    mask = np.array([True, False])[:, None, None, None] & np.ones((N, 1, 1, L), bool)
    context, _, cache = attention.forward(q, k, v, mask)
    gradients = attention.backward(np.ones_like(context), cache)
    assert np.isfinite(context).all() and all(np.isfinite(gradient).all() for gradient in gradients)
