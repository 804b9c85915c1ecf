"""A batch is cut into shares of whole sentences; a rank's, made without the rest of it, is what it would be of the whole."""

import numpy as np
import pytest
from data.corpora import draw, words, write
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.data.batching import EncodedExamples
from minitinybert.data.corpus import build_shards
from minitinybert.data.masking import Masking
from minitinybert.data.segments import Segments
from minitinybert.engine.batch import Batch, Masked, packed
from minitinybert.engine.ranks import Ranks
from minitinybert.training import cut

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


class Rank(Ranks):
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def batch_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 50, n).astype(np.int32) for n in lengths]
    return packed(ids, [np.zeros_like(i) for i in ids], labels=rng.integers(0, 9, len(ids)))


@given(LENGTHS, st.integers(1, 15))
def test_shares_hold_each_sentence_once_and_keep_the_totals(lengths, count):
    batch = batch_of(lengths)
    assert batch.lengths.tolist() == sorted(lengths)
    shares = cut.split(batch, count)
    assert 1 <= len(shares) <= count
    for name in ("sentences", "labels", "input_ids", "row_ids", "lengths"):
        assert np.concatenate([getattr(s, name) for s in shares]).tolist() == getattr(batch, name).tolist(), name
    for share in shares:
        assert share.totals == batch.totals
        assert share.cls_rows[0] == 0
        assert share.runs[-1].stop == len(share.input_ids)


@given(st.lists(st.integers(1, 9), min_size=8, max_size=40), st.integers(2, 4))
def test_shares_have_about_as_many_rows_each(lengths, count):
    """No one more than an even cut and a sentence at each of its ends."""
    batch = batch_of(lengths)
    for share in cut.split(batch, count):
        assert len(share.input_ids) <= len(batch.input_ids) / count + 2 * max(lengths)


@pytest.mark.parametrize("sentences, threads, count", [(2, 1, 1), (2, 2, 2), (30, 1, 3), (30, 2, 2), (40, 2, 4), (2, 4, 2)])
def test_a_thread_s_shares_have_some_thousand_rows(sentences, threads, count):
    """Of 100 rows a sentence: as many shares as threads, or whole multiples; of two sentences no more than two."""
    assert [s.size for s in cut.thread_shares(batch_of([100] * sentences), threads)] == pytest.approx([sentences / count] * count, abs=1)


def assert_shares_of_the_whole(examples, indices, epoch, size):
    whole = examples.batch(indices, epoch)
    for rank in range(size):
        expected = cut.rank_share(whole, Rank(rank, size))
        got = cut.rank_share_of(examples, indices, examples.lengths(epoch), epoch, Rank(rank, size))
        assert (got is None) is (expected is None)
        for field in Batch.__dataclass_fields__ if got else ():
            a, b = getattr(got, field), getattr(expected, field)
            pairs = zip(a, b, strict=True) if isinstance(a, Masked) else [(a, b)]
            assert all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs), field


@pytest.mark.parametrize("pad_to", [None, 9])
@given(lengths=LENGTHS, size=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_rank_s_is_what_it_would_be_of_the_whole(pad_to, lengths, size, seed):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 99, n).astype(np.int32) for n in lengths]
    examples = EncodedExamples(ids, [i % 2 for i in ids], np.arange(len(ids)), pad_to)
    indices = rng.permutation(len(ids))[: rng.integers(1, len(ids) + 1)]
    assert_shares_of_the_whole(examples, indices, 0, size)


@pytest.mark.parametrize("masking", [None, Masking(4, 100, (0, 2, 3))])
@pytest.mark.parametrize("epoch", [0, 1])
def test_of_a_corpus_it_is_the_epoch_s(tmp_path, epoch, masking):
    corpus = build_shards([write(tmp_path / "a", draw(1, 20, 30))], words(), tmp_path / "shards")
    segments = Segments(corpus, 2, 3, 16, pairs=True, seed=1, masking=masking)
    indices = np.random.default_rng(epoch).permutation(len(segments))[:11]
    assert_shares_of_the_whole(segments, indices, epoch, 3)
