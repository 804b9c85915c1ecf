"""Masked positions: how many, which, what becomes of them; and that a batch's parts keep their own."""

import numpy as np
import pytest
from scipy import stats

from minitinybert.data.masking import Masking, mask_batch, mask_tokens
from minitinybert.engine.batch import packed, padded_to
from minitinybert.errors import InputError
from minitinybert.training.cut import split

CLS, SEP, MASK, V = 2, 3, 4, 1000
SPECIAL = (0, CLS, SEP)


def sequences(n=400, seed=0, longest=60):
    rng = np.random.default_rng(seed)
    return [np.r_[CLS, rng.integers(5, V, rng.integers(1, longest)), SEP].astype(np.int32) for _ in range(n)]


def masked(ids, rate=0.15, key=7, **settings):
    batch = packed(ids, [np.zeros_like(i) for i in ids])
    return batch, mask_batch(batch, Masking(MASK, V, SPECIAL, rate, **settings), key)


@pytest.mark.parametrize("rate, least", [(0.15, 1), (0.0, 1), (0.0, 0), (0.4, 1), (0.99, 1)])
def test_each_sequence_has_as_many_masks_as_it_should(rate, least):
    ids = sequences()
    before, batch = masked(ids, rate, least=least)
    counts = np.diff(np.r_[0, batch.masked.ends])
    lengths = np.concatenate([np.full(run.n, run.length) for run in batch.runs])
    assert counts.tolist() == [min(max(least, round(rate * L)), L - 2) for L in lengths.tolist()]
    assert batch.totals.masked == counts.sum() == len(batch.masked.rows) == len(batch.masked.labels)
    changed = np.flatnonzero(batch.input_ids != before.input_ids)
    assert np.isin(changed, batch.masked.rows).all()
    assert (batch.masked.labels == before.input_ids[batch.masked.rows]).all()
    assert not np.isin(batch.masked.labels, SPECIAL).any()
    assert (np.diff(batch.masked.rows) > 0).all()


def test_eighty_ten_ten():
    before, batch = masked(sequences(2000))
    now, then = batch.input_ids[batch.masked.rows], batch.masked.labels
    n = len(now)
    seen = [(now == MASK).sum(), ((now != MASK) & (now != then)).sum(), (now == then).sum()]
    expected = np.array([0.8 + 0.1 / V, 0.1 * (1 - 2 / V), 0.1 + 0.1 / V]) * n
    assert n > 9000 and stats.chisquare(seen, expected).pvalue > 1e-3, (seen, expected)
    words = now[(now != MASK) & (now != then)]
    assert stats.chisquare(np.histogram(words, 10, (0, V))[0]).pvalue > 1e-3


def test_every_position_is_as_likely():
    ids = [np.r_[CLS, np.arange(5, 23), SEP].astype(np.int32)] * 6000
    _, batch = masked(ids)
    places = np.bincount(batch.position_ids[batch.masked.rows], minlength=20)
    assert places[0] == places[19] == 0
    assert stats.chisquare(places[1:19]).pvalue > 1e-3


def test_all_chosen_can_become_masks_or_random_words():
    _, batch = masked(sequences(), mask_fraction=1.0, random_fraction=0.0)
    assert (batch.input_ids[batch.masked.rows] == MASK).all()
    _, batch = masked(sequences(), mask_fraction=0.0, random_fraction=1.0)
    assert (batch.input_ids[batch.masked.rows] != batch.masked.labels).mean() > 0.99


def test_masks_depend_on_key_and_example_not_on_the_batch():
    ids = sequences(40)
    types = [np.zeros_like(i) for i in ids]
    masking = Masking(MASK, V, SPECIAL)
    whole = mask_batch(packed(ids, types), masking, 5)
    by_example = {}
    for run in whole.runs:
        for s in range(run.n):
            start = run.start + s * run.length
            by_example[int(whole.row_ids[start] >> np.uint64(16))] = whole.input_ids[start : start + run.length]
    for i in (3, 17, 39):
        alone = mask_batch(packed([ids[i]], [types[i]], np.array([i])), masking, 5)
        assert (alone.input_ids == by_example[i]).all()
        assert (mask_batch(packed([ids[i]], [types[i]], np.array([i])), masking, 6).input_ids != by_example[i]).any() or len(ids[i]) < 8
    assert (masked(ids, key=5)[1].input_ids == whole.input_ids).all()
    assert (masked(ids, key=6)[1].masked.rows.tolist()) != whole.masked.rows.tolist()


def test_another_key_makes_other_words_of_the_same_positions():
    ids = sequences(50)
    one, two = (masked(ids, rate=0.99, key=key)[1] for key in (5, 6))
    assert (one.masked.rows == two.masked.rows).mean() > 0.9
    kinds = [(batch.input_ids == MASK).astype(int) for batch in (one, two)]
    assert 0.2 < (kinds[0] != kinds[1]).mean() < 0.4  # 2 · 0.8 · 0.2


def test_padding_neither_counts_nor_is_chosen():
    ids = sequences(30)
    types = [np.zeros_like(i) for i in ids]
    masking = Masking(MASK, V, SPECIAL)
    tight, wide = mask_batch(packed(ids, types), masking, 5), mask_batch(padded_to(70, ids, types), masking, 5)
    assert sorted(tight.row_ids[tight.masked.rows]) == sorted(wide.row_ids[wide.masked.rows])
    assert sorted(tight.input_ids) == sorted(wide.input_ids[wide.attention_mask])
    assert wide.totals.masked == tight.totals.masked and not wide.input_ids[~wide.attention_mask].any()
    counts = np.diff(np.r_[0, wide.masked.ends])
    assert counts.tolist() == [max(1, round(0.15 * len(i))) for i in ids]


def test_equal_sentences_get_different_masks():
    _, batch = masked([sequences(1, longest=60)[0]] * 50)
    runs = batch.input_ids.reshape(50, -1)
    assert len({tuple(row) for row in runs.tolist()}) > 40


def test_nothing_but_special_tokens_is_left_alone_and_input_is_unchanged():
    ids = np.array([CLS, SEP, CLS, 9, SEP], np.int32)
    row_ids = np.array([0, 1, 1 << 16, (1 << 16) + 1, (1 << 16) + 2], np.uint64)
    corrupted, rows, labels = mask_tokens(ids, row_ids, Masking(MASK, V, SPECIAL, mask_fraction=1.0), 1)
    assert rows.tolist() == [3] and labels.tolist() == [9] and corrupted.tolist() == [CLS, SEP, CLS, MASK, SEP]
    assert ids.tolist() == [CLS, SEP, CLS, 9, SEP]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_keep_their_own_masks(parts):
    _, batch = masked(sequences(20))
    words, count = [], 0
    for part in split(batch, parts):
        assert part.totals == batch.totals
        assert part.masked.ends[-1] == len(part.masked.rows) and len(part.masked.ends) == part.size
        assert (part.masked.rows < len(part.input_ids)).all() and (part.masked.rows >= 0).all()
        inside = np.concatenate([np.full(run.n, run.length) for run in part.runs]).cumsum()
        assert (np.searchsorted(part.masked.rows, inside) == part.masked.ends).all()
        words += part.masked.labels.tolist()
        kept = part.input_ids[part.masked.rows]
        count += (kept == MASK).sum()
    assert words == batch.masked.labels.tolist()
    assert count == (batch.input_ids[batch.masked.rows] == MASK).sum()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 15])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(InputError, match="rate"):
        Masking(MASK, V, SPECIAL, rate)
