"""Words with their places: against the text, and what of a vocabulary is a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_mlm import MARKS, PIECES, WHOLE, tokenizer

from minitinybert.augmentation.words import Replacement, WordReader, apply


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return WordReader(tokenizer(tmp_path_factory.mktemp("small")))


@given(st.text(max_size=30) | st.text(alphabet="film goodéE\u0301.,' 中\t[MASK]", max_size=30))
def test_words_lie_in_the_text_in_order_and_hold_all_its_pieces(reader, text):
    words = reader.split([text])[0]
    assert all(text[w.start : w.stop] == w.text and w.text and w.ids for w in words)
    assert all(a.stop <= b.start for a, b in zip(words, words[1:], strict=False))
    assert [id for w in words for id in w.ids] == reader.tokenizer.tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "text, words, single",
    [
        ("The film's good.", ["The", "film", "'", "s", "good", "."], [True] * 6),
        ("it was walking", ["it", "was", "walking"], [True, True, False]),
        ("cafe\u0301 Film", ["cafe\u0301", "Film"], [False, True]),
        ("😀 film", ["😀", "film"], [False, True]),  # [UNK] is no piece of a word
        ("it [MASK]war[SEP]", ["it", "[MASK]", "war", "[SEP]"], [True, False, True, False]),
        ("中中", ["中", "中"], [True, True]),
        ("", [], []),
    ],
)
def test_splitting(reader, text, words, single):
    found = reader.split([text])[0]
    assert [w.text for w in found] == words and [reader.is_piece(w) for w in found] == single


def test_which_pieces_are_words(reader):
    whole = [PIECES[id] for id in reader.whole.nonzero()[0]]
    assert set(whole) == {*WHOLE, *MARKS, *"abcdefghijklmnopqrstuvwxyz", "中"}


@pytest.mark.parametrize(
    "text, chosen, expected",
    [
        ("a-b", {1: "war"}, "a war b"),
        ("a-b", {0: "war", 1: "film", 2: "it"}, "war film it"),
        ("a-b", {0: "war", 2: "it"}, "war-it"),
        ("a - b", {1: "war"}, "a war b"),
        ("a\t-  b", {0: "x", 1: "war", 2: "y"}, "x\twar  y"),
        ("it's", {1: "."}, "it.s"),
        ("a-b", {1: "war", 2: "."}, "a war."),
        ("a--b", {1: "war"}, "a war-b"),
        ("a--b", {2: "war"}, "a-war b"),
        ("a--b", {1: "war", 2: "film"}, "a war film b"),
    ],
)
def test_a_space_comes_only_where_words_would_run_together(reader, text, chosen, expected):
    words = reader.split([text])[0]
    made = reader.replacements(text, words, {i: (new, "bert") for i, new in chosen.items()})
    assert apply(text, made) == expected and [(r.position, r.source) for r in made] == [(i, "bert") for i in sorted(chosen)]


def test_applying_nothing():
    assert apply("it  was ", []) == "it  was " and apply("", [Replacement(0, 0, 0, "", "x", "bert")]) == "x"
