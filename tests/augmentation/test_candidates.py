"""BERT's candidates: against the model asked one by one, in any batch; windows of long sentences; the k largest."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import small_mlm
from hypothesis import given
from hypothesis import strategies as st
from small_mlm import PIECES

from minitinybert.augmentation import candidates as module
from minitinybert.augmentation.candidates import BertCandidates, Question
from minitinybert.augmentation.largest import largest
from minitinybert.augmentation.words import WordReader
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert

MASK = PIECES.index("[MASK]")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    model = Bert.load(small_mlm.model(tmp_path_factory.mktemp("small") / "mlm", positions=24))
    tokenizer = Tokenizer.load(model.tokenizer_files)
    return model, tokenizer, WordReader(tokenizer).whole


@st.composite
def questions(draw):
    ids = draw(st.lists(st.integers(5, len(PIECES) - 1), min_size=1, max_size=10))
    mask = draw(st.integers(0, len(ids) - 1))
    masked = (*ids[:mask], MASK, *ids[mask + 1 :])
    return Question(masked, mask, tuple(ids) if draw(st.booleans()) else ())


def slowly(model, whole, question, k, pieces_count):
    """By the model's public forward, on one sentence."""
    ids = [2, *question.ids, 3, *question.context, *([3] if question.context else [])]
    types = [int(i >= len(question.ids) + 2) for i in range(len(ids))]
    logits = model.forward(np.array([ids]), None, np.array([types]))[0].logits[0, question.mask + 1]
    allowed = range(len(PIECES)) if pieces_count else np.flatnonzero(whole)
    best = sorted(allowed, key=lambda id: -logits[id])[:k]
    return tuple(PIECES[id] for id in sorted(best) if whole[id])


@given(st.lists(questions(), max_size=8), st.integers(1, 20), st.booleans(), st.sampled_from([1, 30, 4096]))
def test_candidates_are_the_model_s_whatever_the_batch(bert, asked, k, pieces_count, rows):
    model, _, whole = bert
    ours = BertCandidates(*bert, k, pieces_count, rows)
    expected = [slowly(model, whole, question, k, pieces_count) for question in asked]
    assert ours.ask(asked) == expected
    assert ours.ask(asked[::-1]) == expected[::-1]
    assert all(not c.startswith("##") and (len(c) == 1 or "[" not in c) for answer in expected for c in answer)


@pytest.mark.parametrize("k", [5, 15])
def test_k_candidates_or_those_among_k_pieces(bert, k):
    """##pieces are barred before K are counted; with pieces_count, as the released code has it, they are dropped after."""
    asked = [Question((MASK, id), 0) for id in range(6, 30)]
    among_words, among_pieces = (BertCandidates(*bert, k, pieces_count).ask(asked) for pieces_count in (False, True))
    assert {len(answer) for answer in among_words} == {k}
    assert all(set(few) <= set(many) for few, many in zip(among_pieces, among_words, strict=True))
    assert min(map(len, among_pieces)) < k and max(map(len, among_pieces)) <= k


def test_an_answer_is_kept_and_equal_questions_are_asked_once(bert, monkeypatch):
    ours = BertCandidates(*bert, 5)
    sizes = []
    batch = ours._batch
    monkeypatch.setattr(ours, "_batch", lambda asked: sizes.append(len(asked)) or batch(asked))
    monkeypatch.setattr(module, "_NEAR", 0.0)
    first, second = Question((MASK, 8), 0), Question((8, MASK), 1)
    answers = ours.ask([first, second, first])
    assert sizes == [2] and answers[0] == answers[2] != answers[1]
    assert ours.ask([second]) == answers[1:2] and sizes == [2]
    monkeypatch.setattr(module, "_KEPT", 2)
    ours.ask([Question((MASK, id), 0) for id in range(9, 12)])
    assert len(ours._known) == 1 and ours.ask([first]) == answers[:1] and sizes == [2, 3, 1]


def test_what_is_nearly_as_probable_is_asked_again_alone(bert, monkeypatch):
    """With a wide margin every sentence is, and the answer is the same."""
    asked = [Question((MASK, id), 0) for id in range(6, 30)]
    usual = BertCandidates(*bert, 5).ask(asked)
    monkeypatch.setattr(module, "_NEAR", 1e9)
    ours, sizes = BertCandidates(*bert, 5), []
    batch = ours._batch
    monkeypatch.setattr(ours, "_batch", lambda asked: sizes.append(len(asked)) or batch(asked))
    assert ours.ask(asked) == usual and sizes == [24] + [1] * 24


@given(st.integers(1, 60), st.data(), st.booleans())
def test_long_sentences_are_cut_around_the_mask(bert, length, data, with_context):
    mask = data.draw(st.integers(0, length - 1))
    ids = np.arange(100, 100 + length)
    context = tuple(ids.tolist()) if with_context else ()
    masked = tuple(MASK if i == mask else int(id) for i, id in enumerate(ids))
    window = BertCandidates(*bert, 5)._window(Question(masked, mask, context))
    room = 24 - 3 if with_context else 24 - 2
    assert window.ids[window.mask] == MASK and len(window.ids) + len(window.context) <= room
    if length * (1 + with_context) <= room:
        assert window == (masked, mask, context)
    else:
        assert len(window.ids) == (room // 2 if with_context else room)
        assert all(b - a == 1 for a, b in pairwise(window.context))
        left, right = window.mask, len(window.ids) - 1 - window.mask
        assert abs(left - right) <= 1 or left == mask or right == length - 1 - mask  # in the middle, but for the ends
        assert not context or (window.context[0] == 100 + mask - left and len(window.context) == len(window.ids))


def test_sentences_of_any_length_are_answered(bert):
    model, _, whole = bert
    ids = tuple(np.random.default_rng(0).integers(6, 40, 700).tolist())
    for mask in (0, 350, 699):
        question = Question((*ids[:mask], MASK, *ids[mask + 1 :]), mask)
        for asked in (question, question._replace(context=ids)):
            ours = BertCandidates(*bert, 4)
            assert ours.ask([asked]) == [slowly(model, whole, ours._window(asked), 4, False)]


def test_a_model_without_a_second_segment(tmp_path, bert):
    model, tokenizer, whole = bert
    one = Bert.new(replace(model.config, type_vocab_size=1), 0)
    assert len(BertCandidates(one, tokenizer, whole, 3).ask([Question((MASK,), 0, (7,))])[0]) == 3


def test_models_that_do_not_fit(bert):
    model, tokenizer, whole = bert
    with pytest.raises(InputError, match="no masked-language-model head"):
        BertCandidates(Bert.new(replace(model.config, head="none"), 0), tokenizer, whole, 5)
    with pytest.raises(InputError, match="do not belong together"):
        BertCandidates(Bert.new(replace(model.config, vocab_size=20), 0), tokenizer, whole, 5)
    with pytest.raises(InputError, match="no piece is a word"):
        BertCandidates(model, tokenizer, np.zeros_like(whole), 5)


@pytest.mark.parametrize("tensor", ["cls.predictions.bias", "cls.predictions.transform.dense.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_no_answer(bert, tensor, value):
    """NaN is the largest to a partition: each sentence would have the same candidates, and the run would end well."""
    model, tokenizer, whole = bert
    bad = model.astype(np.float32).for_reading()
    bad.parameters[tensor][7] = value
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match="the logits of the model of --mlm are not finite"):
        BertCandidates(bad, tokenizer, whole, 3).ask([Question((MASK, 8), 0)])


@pytest.mark.parametrize("V", [1, 31, 32, 64, 65, 97, 700, 1000])
@pytest.mark.parametrize("k", [1, 3, 10, 64])
@pytest.mark.parametrize("at_once", [1, 3000, 1 << 20], ids=lambda n: f"parts of {n}")
def test_largest(V, k, at_once, monkeypatch):
    monkeypatch.setattr("minitinybert.augmentation.largest._AT_ONCE", at_once)
    random = np.random.default_rng(V + k)
    rounded = random.integers(0, 9, (50, V)).astype(np.float32)  # equal ones
    barred = np.where(random.random((50, V)) < 0.9, -np.inf, rounded)
    for scores in (rounded, barred, random.standard_normal((50, V))):
        found = largest(scores, k)
        assert found.shape == (50, min(k, V)) and all(len(set(places.tolist())) == min(k, V) for places in found)
        assert (np.sort(np.take_along_axis(scores, found, 1)) == np.sort(scores)[:, -k:]).all()
