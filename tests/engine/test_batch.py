"""Batches: packed and padded hold the same rows, bad shapes are refused, an epoch holds every example once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.data.batching import by_length, epoch_batches
from minitinybert.engine.batch import packed, padded
from minitinybert.errors import InputError

lengths_strategy = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def sentences(lengths, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 50, n).astype(np.int32) for n in lengths]
    return ids, [np.zeros_like(i) for i in ids]


@given(lengths_strategy)
def test_packed_keeps_every_sentence_whole(lengths):
    ids, types = sentences(lengths)
    batch = packed(ids, types, labels=np.arange(len(ids)))
    starts = [run.start + i * run.length for run in batch.runs for i in range(run.n)]
    assert starts == batch.cls_rows.tolist()
    assert batch.runs[-1].stop == sum(lengths) == batch.totals.tokens == batch.totals.rows
    assert batch.totals.pairs == sum(n * n for n in lengths)
    for start, sentence in zip(starts, batch.sentences, strict=True):
        n = lengths[sentence]
        assert (batch.input_ids[start : start + n] == ids[sentence]).all()
        assert (batch.position_ids[start : start + n] == np.arange(n)).all()
    assert (batch.labels == batch.sentences).all()


def test_the_rows_dropout_is_keyed_by_are_the_same_packed_and_padded():
    ids, types = sentences([3, 5])
    rectangle = np.zeros((2, 5), int)
    mask = np.zeros((2, 5), int)
    for i, row in enumerate(ids):
        rectangle[i, : len(row)], mask[i, : len(row)] = row, 1
    a, b = packed(ids, types), padded(rectangle, mask)
    assert b.row_ids[mask.reshape(-1).astype(bool)].tolist() == a.row_ids.tolist()
    assert (b.totals.tokens, b.totals.pairs, b.totals.rows, b.totals.row_pairs) == (8, 34, 10, 50)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((np.zeros(4, int),), "shape (4,)"),
        ((np.zeros((2, 0), int),), "shape (2, 0)"),
        ((np.zeros((2, 3), int), np.ones((2, 4), int)), "attention_mask has shape (2, 4)"),
        ((np.zeros((2, 3), int), None, np.ones((3, 3), int)), "token_type_ids has shape (3, 3)"),
    ],
)
def test_bad_shapes_are_named(arguments, words):
    with pytest.raises(InputError) as error:
        padded(*arguments)
    assert words in str(error.value)


def test_an_empty_sentence_is_refused():
    with pytest.raises(InputError, match="at least one token"):
        packed([np.zeros(0, np.int32)], [np.zeros(0, np.int32)])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 3))
def test_an_epoch_is_every_example_once_and_a_function_of_seed_and_epoch(lengths, size, epoch):
    lengths = np.array(lengths)
    batches = epoch_batches(lengths, size, 7, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    again = epoch_batches(lengths, size, 7, epoch)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    if len(lengths) > 20:
        assert np.concatenate(batches).tolist() != np.concatenate(epoch_batches(lengths, size, 7, epoch + 1)).tolist()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 300))
def test_evaluation_batches_bound_their_tokens(lengths, rows):
    lengths = np.array(lengths)
    batches = list(by_length(lengths, rows))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= rows for b in batches)
