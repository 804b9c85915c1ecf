"""Attention among the sentences of a batch: runs, padding, dropout, and the [CLS] rows alone."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.engine.batch import Run
from minitinybert.model import self_attention

HEADS, D = 2, 6


class Sentences(NamedTuple):
    """What attention looks at of a batch."""

    runs: list[Run]
    attention_mask: np.ndarray | None = None


def forward(qkv, batch, p=0.0, keys=None, q=None):
    """Every token asks, or those whose queries are given."""
    q = qkv[:, :D] if q is None else q
    return self_attention.attend(q, qkv[:, D : 2 * D], qkv[:, 2 * D :], batch, HEADS, p, keys)


def backward(dcontext, cache, dscores=None):
    return np.concatenate(self_attention.attend_backward(dcontext, dscores, cache), axis=1)


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
    context, scores, cache = forward(qkv, Sentences(runs), p, row_keys)
    dscores = rng.standard_normal(scores.shape)
    dqkv = backward(dcontext, cache, dscores)
    wide_keys = padded(keys) if drop else None
    context_2, scores_2, cache_2 = forward(padded(qkv), Sentences([Run(0, B, L)], real.reshape(-1)), p, wide_keys)
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
    alone = [forward(piece, Sentences([Run(0, 1, len(piece))]))[0] for piece in pieces]
    runs, _ = runs_of([lengths[i] for i in order])
    together, *_ = forward(np.concatenate([pieces[i] for i in order]), Sentences(runs))
    assert np.allclose(together, np.concatenate([alone[i] for i in order]), rtol=1e-12)


def test_a_run_of_equal_sentences_is_each_alone():
    qkv = np.random.default_rng(0).standard_normal((6, 3 * D))
    one, scores, _ = forward(qkv, Sentences([Run(0, 2, 3)]))
    two, scores_2, _ = forward(qkv, Sentences([Run(0, 1, 3), Run(3, 1, 3)]))
    assert np.allclose(one, two, rtol=1e-14) and np.allclose(scores, scores_2, rtol=1e-14)


def test_scores_are_seen_before_mask_and_softmax():
    rng = np.random.default_rng(1)
    qkv, mask = rng.standard_normal((4, 3 * D)), np.array([True, False, True, True])
    _, scores, _ = forward(qkv, Sentences([Run(0, 1, 4)], mask))
    q, k = qkv[:, : D // 2], qkv[:, D : D + D // 2]  # head 0
    assert np.allclose(scores.reshape(HEADS, 4, 4)[0], q @ k.T / np.sqrt(D // HEADS))


def test_heads_and_tokens_draw_their_own_dropout():
    keys = np.arange(3, dtype=np.uint64)
    kept = lambda cache: cache.rectangles[0].weights.dropout.keep
    _, _, cache = forward(np.zeros((3, 3 * D)), Sentences([Run(0, 1, 3)]), 0.5, keys)
    many = forward(np.zeros((40, 3 * D)), Sentences([Run(0, 1, 40)]), 0.5, np.arange(40, dtype=np.uint64))[2]
    rows = kept(many).reshape(-1, 40)
    assert len({row.tobytes() for row in rows}) == len(rows) == 80
    assert np.array_equal(kept(cache).reshape(-1, 3)[:3], rows[:3, :3])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 100))
def test_one_query_a_sentence_is_the_first_row_of_all(lengths, seed):
    """Context, scores and gradients, dropout and padding too."""
    rng = np.random.default_rng(seed)
    runs, T = runs_of(sorted(lengths))
    qkv, keys, mask = rng.standard_normal((T, 3 * D)), rng.integers(0, 2**63, T, np.uint64), rng.random(T) < 0.8
    first = np.array([run.start for run in runs])
    mask[first] = True
    batch = Sentences(runs, mask)
    context, scores, cache = forward(qkv, batch, 0.3, keys)
    one, scores_one, cache_one = forward(qkv, batch, 0.3, keys[first], q=qkv[first, :D])
    rows = np.concatenate([A[:, :, 0].ravel() for A in self_attention.split_runs(scores, runs, HEADS)])
    assert np.allclose(one, context[first], rtol=1e-12) and np.allclose(scores_one, rows, rtol=1e-12)
    dcontext = np.zeros((T, D))
    dcontext[first] = rng.standard_normal((len(runs), D))
    dq, *dkv = self_attention.attend_backward(dcontext[first], None, cache_one)
    dqkv = backward(dcontext, cache)
    assert np.allclose(dq, dqkv[first, :D], rtol=1e-10, atol=1e-13)
    assert np.allclose(np.concatenate(dkv, axis=1), dqkv[:, D:], rtol=1e-10, atol=1e-13)
