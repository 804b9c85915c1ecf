"""Attention among sentences: runs, padding, dropout; its gradient as such is in test_laws.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.engine.batch import Run
from minitinybert.ops import attention

HEADS, D = 2, 6


def forward(qkv, *arguments):
    """Every token asks."""
    return attention.forward(qkv[:, :D], qkv[:, D:], *arguments)


def backward(*arguments):
    return np.concatenate(attention.backward(*arguments), axis=1)


def runs_of(lengths):
    runs, start = [], 0
    for length in lengths:
        runs.append(Run(start, 1, length))
        start += length
    return runs, start


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 100), st.booleans())
def test_padding_changes_no_real_row(lengths, seed, drop):
    """Packed, and as a rectangle with a mask: equal contexts, scores and gradients at real tokens, no gradient at padding."""
    rng = np.random.default_rng(seed)
    runs, T = runs_of(lengths)
    B, L = len(lengths), max(lengths) + 1
    real = np.arange(L) < np.array(lengths)[:, None]
    qkv, dcontext, keys = rng.standard_normal((T, 3 * D)), rng.standard_normal((T, D)), rng.integers(0, 2**63, T, np.uint64)

    def padded(rows):
        full = rng.standard_normal((B, L, *rows.shape[1:])).astype(rows.dtype) if rows.dtype.kind == "f" else np.zeros((B, L), rows.dtype)
        full[real] = rows
        return full.reshape(B * L, *rows.shape[1:])

    p, row_keys = (0.4, keys) if drop else (0.0, None)
    context, scores, cache = forward(qkv, runs, HEADS, None, p, row_keys)
    dscores = rng.standard_normal(scores.shape)
    dqkv = backward(dcontext, cache, dscores)
    rectangle = [Run(0, B, L)]
    wide_keys = padded(keys) if drop else None
    context_2, scores_2, cache_2 = forward(padded(qkv), rectangle, HEADS, real.reshape(-1), p, wide_keys)
    pairs = np.broadcast_to(real[:, None, :, None] & real[:, None, None, :], (B, HEADS, L, L))
    wide_dscores = np.zeros((B, HEADS, L, L))
    wide_dscores[pairs] = dscores
    wide_dcontext = padded(dcontext) * real.reshape(-1, 1)
    dqkv_2 = backward(wide_dcontext, cache_2, wide_dscores)
    rows = real.reshape(-1)
    assert np.allclose(context_2[rows], context, rtol=1e-10, atol=1e-12)
    assert np.allclose(scores_2.reshape(pairs.shape)[pairs], scores, rtol=1e-10, atol=1e-12)
    assert np.allclose(dqkv_2[rows], dqkv, rtol=1e-9, atol=1e-12)
    assert not dqkv_2[~rows].any()


@given(st.permutations(range(4)), st.integers(0, 100))
def test_the_order_of_sentences_does_not_matter(order, seed):
    rng = np.random.default_rng(seed)
    lengths = [1, 2, 2, 5]
    pieces = [rng.standard_normal((n, 3 * D)) for n in lengths]
    alone = [forward(piece, [Run(0, 1, len(piece))], HEADS)[0] for piece in pieces]
    runs, _ = runs_of([lengths[i] for i in order])
    together, *_ = forward(np.concatenate([pieces[i] for i in order]), runs, HEADS)
    assert np.allclose(together, np.concatenate([alone[i] for i in order]), rtol=1e-12)


def test_a_run_of_equal_sentences_is_each_alone():
    qkv = np.random.default_rng(0).standard_normal((6, 3 * D))
    one, scores, _ = forward(qkv, [Run(0, 2, 3)], HEADS)
    two, scores_2, _ = forward(qkv, [Run(0, 1, 3), Run(3, 1, 3)], HEADS)
    assert np.allclose(one, two, rtol=1e-14) and np.allclose(scores, scores_2, rtol=1e-14)


def test_scores_are_seen_before_mask_and_softmax():
    rng = np.random.default_rng(1)
    qkv, mask = rng.standard_normal((4, 3 * D)), np.array([True, False, True, True])
    _, scores, _ = forward(qkv, [Run(0, 1, 4)], HEADS, mask)
    q, k = qkv[:, : D // 2], qkv[:, D : D + D // 2]  # head 0
    assert np.allclose(scores.reshape(HEADS, 4, 4)[0], q @ k.T / np.sqrt(D // HEADS))


def test_one_token_attends_to_itself():
    qkv = np.random.default_rng(2).standard_normal((1, 3 * D))
    context, _, cache = forward(qkv, [Run(0, 1, 1)], HEADS)
    assert np.allclose(context, qkv[:, 2 * D :], rtol=1e-14)
    dqkv = backward(np.ones((1, D)), cache)
    assert not dqkv[:, : 2 * D].any() and np.allclose(dqkv[:, 2 * D :], 1)


def test_heads_and_tokens_draw_their_own_dropout():
    keys = np.arange(3, dtype=np.uint64)
    _, _, cache = forward(np.zeros((3, 3 * D)), [Run(0, 1, 3)], HEADS, None, 0.5, keys)
    many = forward(np.zeros((40, 3 * D)), [Run(0, 1, 40)], HEADS, None, 0.5, np.arange(40, dtype=np.uint64))[2]
    rows = many.weights[0].dropout.keep.reshape(-1, 40)
    assert len({row.tobytes() for row in rows}) == len(rows) == 80
    assert np.array_equal(cache.weights[0].dropout.keep.reshape(-1, 3)[:3], rows[:3, :3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sentence_of_padding_alone_stays_finite(dtype):
    qkv = np.random.default_rng(3).standard_normal((4, 3 * D)).astype(dtype)
    context, _, cache = forward(qkv, [Run(0, 2, 2)], HEADS, np.array([True, True, False, False]))
    dqkv = backward(np.ones_like(context), cache)
    assert np.isfinite(context).all() and np.isfinite(dqkv).all()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 100))
def test_one_query_a_sentence_is_the_first_row_of_all(lengths, seed):
    """Context, scores and gradients, dropout and padding too."""
    rng = np.random.default_rng(seed)
    runs, T = runs_of(sorted(lengths))
    qkv, keys, mask = rng.standard_normal((T, 3 * D)), rng.integers(0, 2**63, T, np.uint64), rng.random(T) < 0.8
    first = np.array([run.start for run in runs])
    mask[first] = True
    context, scores, cache = forward(qkv, runs, HEADS, mask, 0.3, keys)
    one, scores_one, cache_one = attention.forward(qkv[first, :D], qkv[:, D:], runs, HEADS, mask, 0.3, keys[first])
    rows = np.concatenate([A[:, :, 0].ravel() for A in attention.split_runs(scores, runs, HEADS)])
    assert np.allclose(one, context[first], rtol=1e-12) and np.allclose(scores_one, rows, rtol=1e-12)
    dcontext = np.zeros((T, D))
    dcontext[first] = rng.standard_normal((len(runs), D))
    dq, dkv = attention.backward(dcontext[first], cache_one)
    dqkv = backward(dcontext, cache)
    assert np.allclose(dq, dqkv[first, :D], rtol=1e-10, atol=1e-13) and np.allclose(dkv, dqkv[:, D:], rtol=1e-10, atol=1e-13)
