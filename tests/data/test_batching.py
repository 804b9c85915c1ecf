"""A rank's share of a batch, made without the rest of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.batch import Batch
from minitinybert.data.batching import EncodedExamples, share_of
from minitinybert.ranks import Ranks


class Rank(Ranks):
    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def share(self, batch):
        parts = batch.split(self.size)
        return parts[self.rank] if self.rank < len(parts) else None


@pytest.mark.parametrize("pad_to", [None, 9])
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), size=st.integers(1, 6), seed=st.integers(0, 99))
def test_it_is_what_it_would_be_of_the_whole(pad_to, lengths, size, seed):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 99, n).astype(np.int32) for n in lengths]
    examples = EncodedExamples(ids, [i % 2 for i in ids], np.arange(len(ids)), pad_to)
    indices, extra = rng.permutation(len(ids))[: rng.integers(1, len(ids) + 1)], {"logits": rng.standard_normal((len(ids), 2))}
    whole = examples.batch(indices, extra)
    for rank in range(size):
        expected = Rank(rank, size).share(whole)
        got = share_of(Rank(rank, size), examples, indices, examples.lengths(), extra)
        assert (got is None) is (expected is None)
        for field in Batch.__dataclass_fields__ if got else ():
            a, b = getattr(got, field), getattr(expected, field)
            a, b = (a["logits"], b["logits"]) if field == "extra" else (a, b)
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, field
