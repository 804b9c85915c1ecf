"""Examples of a corpus: every token, documents apart, pairs half at random, all a function of (seed, epoch, index)."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.data import segments as segments_module
from minitinybert.data.corpus import build_shards
from minitinybert.data.masking import Masking
from minitinybert.data.segments import Segments
from minitinybert.errors import InputError

from .corpora import draw, words, write

CLS, SEP, MASK = 2, 3, 4
MASKING = Masking(MASK, 100, (0, CLS, SEP))


def corpus_of(tmp_path, documents, **settings):
    return build_shards([write(tmp_path / "a", documents)], words(), tmp_path / "shards", **settings)


def document_of(corpus, tokens):
    """Which document each of `tokens` (places in the corpus) is in."""
    return np.searchsorted(corpus.starts[corpus.documents], tokens, "right") - 1


@pytest.mark.parametrize("block", [1 << 18, 7])
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("max_length", [6, 16, 128])
def test_single_segments_hold_every_token_once_in_order(tmp_path, monkeypatch, max_length, epoch, block):
    monkeypatch.setattr(segments_module, "_BLOCK", block)
    corpus = corpus_of(tmp_path, draw(1, 40, 50), shard_bytes=1000)
    segments = Segments(corpus, CLS, SEP, max_length, seed=1)
    index = segments._pack(epoch)
    assert index.start_a[0] == 0 and index.start_a[-1] + index.length_a[-1] == corpus.num_tokens
    assert (index.start_a[1:] == (index.start_a + index.length_a)[:-1]).all()
    assert index.length_a.min() > 0 and index.length_a.max() <= max_length - 2
    assert (document_of(corpus, index.start_a) == document_of(corpus, index.start_a + index.length_a - 1)).all()
    seen = [segments.example(i, 0) for i in range(len(segments))]
    assert all(ids[0] == CLS and ids[-1] == SEP and not types.any() for ids, types in seen)
    assert np.concatenate([ids[1:-1] for ids, _ in seen]).tolist() == corpus.tokens(0, corpus.num_tokens).tolist()
    assert segments.lengths(0).tolist() == [len(ids) for ids, _ in seen]


def test_sentences_are_packed_until_the_next_does_not_fit(tmp_path):
    documents = [[[5] * 4, [6] * 4, [7] * 4, [8] * 9, [9] * 3], [[10] * 25]]
    segments = Segments(corpus_of(tmp_path, documents), CLS, SEP, 12, short=0.0)
    inner = [segments.example(i, 0)[0][1:-1].tolist() for i in range(len(segments))]
    assert inner == [[5] * 4 + [6] * 4, [7] * 4, [8] * 9, [9] * 3, [10] * 8, [10] * 8, [10] * 9]


def test_a_share_of_the_examples_is_short(tmp_path):
    corpus = corpus_of(tmp_path, [[[5 + i % 90, 6] for i in range(4000)]])
    lengths = [Segments(corpus, CLS, SEP, 66, short=short).lengths(0) for short in (0.0, 0.1)]
    assert (lengths[0][:-1] == 66).all()
    assert 0.05 < (lengths[1] < 66).mean() < 0.16


@pytest.mark.parametrize("block", [1 << 18, 11])
@pytest.mark.parametrize("max_length", [7, 20, 128])
def test_pairs_hold_every_token_once_but_for_random_ones(tmp_path, monkeypatch, max_length, block):
    monkeypatch.setattr(segments_module, "_BLOCK", block)
    corpus = corpus_of(tmp_path, draw(2, 60, 30), shard_bytes=1000)
    index = Segments(corpus, CLS, SEP, max_length, seed=3, pairs=True).index(0)
    at = 0
    for start_a, length_a, start_b, length_b, is_random in zip(*index, strict=True):
        assert start_a == at and length_a > 0 and length_b > 0 and length_a + length_b <= max_length - 3
        a = document_of(corpus, np.array([start_a, start_a + length_a - 1]))
        b = document_of(corpus, np.array([start_b, start_b + length_b - 1]))
        assert a[0] == a[1] and b[0] == b[1] and (a[0] != b[0] if is_random else start_b == start_a + length_a and a[0] == b[0])
        if is_random:  # whole sentences, or the start of one
            assert start_b in corpus.starts
            assert start_b + length_b in corpus.starts or start_b + length_b < corpus.starts[np.searchsorted(corpus.starts, start_b) + 1]
        at = start_a + length_a + (0 if is_random else length_b)
    assert at == corpus.num_tokens


def test_half_of_the_pairs_are_random_and_other_documents_are_equally_likely(tmp_path):
    rng = np.random.default_rng(0)
    corpus = corpus_of(tmp_path, [[[5 + int(rng.integers(90))] * 5 for _ in range(300)] for _ in range(20)])
    index = Segments(corpus, CLS, SEP, 48, pairs=True, short=0.0).index(0)
    n = len(index.start_a)
    assert n > 700 and abs(index.is_random_next.mean() - 0.5) < 3 * 0.5 / n**0.5
    others = np.bincount(document_of(corpus, index.start_b[index.is_random_next]), minlength=20)
    assert others.min() > 0.3 * others.mean()


def test_a_pair_reads_as_bert_writes_it(tmp_path):
    segments = Segments(corpus_of(tmp_path, draw(4)), CLS, SEP, 40, pairs=True)
    for i in range(len(segments)):
        ids, types = segments.example(i, 1)
        (first, last) = np.flatnonzero(ids == SEP)
        assert ids[0] == CLS and last == len(ids) - 1
        assert types.tolist() == [0] * (first + 1) + [1] * (last - first)


@pytest.mark.parametrize("pairs", [False, True])
def test_examples_are_a_function_of_seed_epoch_and_index(tmp_path, pairs):
    corpus = corpus_of(tmp_path, draw(5, 50))
    make = lambda **settings: Segments(corpus, CLS, SEP, 24, **{"seed": 1, "pairs": pairs, "masking": MASKING, **settings})
    one, two = make(), make()
    two.batch(np.arange(5), epoch=3)  # what was asked before does not matter
    for epoch in (0, 1, 0):
        a, b = one.batch(np.array([7, 3, 11]), epoch=epoch), two.batch(np.array([11, 3, 7]), epoch=epoch)
        alone = two.batch(np.array([3]), epoch=epoch)
        assert sorted(a.input_ids.tolist()) == sorted(b.input_ids.tolist())
        place = a.sentences.tolist().index(3)
        start = int(a.cls_rows[place])
        assert (a.input_ids[start : start + len(alone.input_ids)] == alone.input_ids).all()
    ids = lambda segments, epoch: [segments.batch(np.array([i]), epoch=epoch).input_ids.tolist() for i in range(len(segments))]
    assert ids(one, 0) == ids(two, 0) and ids(one, 1) == ids(two, 1)
    assert ids(one, 0) != ids(one, 1)
    assert ids(make(seed=2), 0) != ids(one, 0)
    still = make(dynamic=False)
    assert ids(still, 0) == ids(still, 1) == ids(one, 0)


def test_every_epoch_has_as_many_examples(tmp_path):
    corpus = corpus_of(tmp_path, draw(6, 100))
    for pairs in (False, True):
        segments = Segments(corpus, CLS, SEP, 30, pairs=pairs, short=0.5)
        counts = {len(segments._pack(epoch).start_a) for epoch in range(6)}
        assert len(counts) > 1
        for epoch in range(6):
            index = segments.index(epoch)
            assert len(index.start_a) == len(segments) == len(segments.lengths(epoch))
            n = len(segments._pack(epoch).start_a)
            assert len(set(index.start_a.tolist())) == min(n, len(segments))


def test_a_part_of_the_corpus_keeps_to_itself(tmp_path):
    corpus = corpus_of(tmp_path, draw(7, 40))
    first, last = 31, len(corpus) - 17
    for pairs in (False, True):
        index = Segments(corpus, CLS, SEP, 30, pairs=pairs, first=first, last=last).index(1)
        low, high = corpus.starts[first], corpus.starts[last]
        assert (index.start_a >= low).all() and (index.start_a + index.length_a <= high).all()
        if pairs:
            assert (index.start_b >= low).all() and (index.start_b + index.length_b <= high).all()


def test_what_cannot_be_sampled_is_said(tmp_path):
    corpus = corpus_of(tmp_path, [[[5, 6], [7]]])
    with pytest.raises(InputError, match="two documents"):
        Segments(corpus, CLS, SEP, 30, pairs=True)
    with pytest.raises(InputError, match="max-length 5: at least 6"):
        Segments(corpus, CLS, SEP, 5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=2, max_size=6),
    st.integers(7, 40),
    st.integers(0, 99),
    st.booleans(),
)
def test_any_corpus_can_be_cut(tmp_path_factory, shape, max_length, seed, pairs):
    tmp_path = tmp_path_factory.mktemp("corpus")
    corpus = corpus_of(tmp_path, [[[5] * n for n in document] for document in shape])
    segments = Segments(corpus, CLS, SEP, max_length, seed, pairs, short=0.3)
    lengths = segments.lengths(1)
    assert lengths.max() <= max_length and lengths.min() >= (5 if pairs else 3)
    batch = segments.batch(np.arange(len(segments)), epoch=1)
    assert batch.totals.tokens == lengths.sum()


def test_the_index_of_an_epoch_is_small_beside_the_text(tmp_path):
    rng = np.random.default_rng(0)
    corpus = corpus_of(tmp_path, [rng.integers(5, 100, (500, 30)).tolist() for _ in range(20)], shard_bytes=1 << 18)
    tracemalloc.start()
    segments = Segments(corpus, CLS, SEP, 128, masking=MASKING)
    segments.batch(np.arange(32), epoch=1)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 0.5 * corpus.num_tokens, f"{held} bytes held for {corpus.num_tokens} tokens"
