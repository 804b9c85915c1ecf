"""A rank's share of a batch, made without the rest of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.data.batching import EncodedExamples, share_of
from minitinybert.data.corpus import build_shards
from minitinybert.data.masking import Masking
from minitinybert.data.segments import Segments
from minitinybert.engine.batch import Batch, Masked
from minitinybert.engine.ranks import Ranks

from .corpora import draw, words, write


class Rank(Ranks):
    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def share(self, batch):
        parts = batch.split(self.size)
        return parts[self.rank] if self.rank < len(parts) else None


def assert_shares_of_the_whole(examples, indices, extra, epoch, size):
    whole = examples.batch(indices, extra, epoch)
    for rank in range(size):
        expected = Rank(rank, size).share(whole)
        got = share_of(Rank(rank, size), examples, indices, examples.lengths(epoch), extra, epoch)
        assert (got is None) is (expected is None)
        for field in Batch.__dataclass_fields__ if got else ():
            a, b = getattr(got, field), getattr(expected, field)
            a, b = (a["logits"], b["logits"]) if field == "extra" and extra else (a, b)
            parts = zip(a, b, strict=True) if isinstance(a, Masked) else [(a, b)]
            assert all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in parts), field


@pytest.mark.parametrize("pad_to", [None, 9])
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), size=st.integers(1, 6), seed=st.integers(0, 99))
def test_it_is_what_it_would_be_of_the_whole(pad_to, lengths, size, seed):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 99, n).astype(np.int32) for n in lengths]
    examples = EncodedExamples(ids, [i % 2 for i in ids], np.arange(len(ids)), pad_to)
    indices, extra = rng.permutation(len(ids))[: rng.integers(1, len(ids) + 1)], {"logits": rng.standard_normal((len(ids), 2))}
    assert_shares_of_the_whole(examples, indices, extra, 0, size)


@pytest.mark.parametrize("masking", [None, Masking(4, 100, (0, 2, 3))])
@pytest.mark.parametrize("epoch", [0, 1])
def test_of_a_corpus_it_is_the_epoch_s(tmp_path, epoch, masking):
    corpus = build_shards([write(tmp_path / "a", draw(1, 20, 30))], words(), tmp_path / "shards")
    segments = Segments(corpus, 2, 3, 16, pairs=True, seed=1, masking=masking)
    indices = np.random.default_rng(epoch).permutation(len(segments))[:11]
    assert_shares_of_the_whole(segments, indices, None, epoch, 3)
