"""Algorithm 1 against a slow, literal one; the released code's variant against its rules; pairs; what the draws are."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_mlm import MARKS, PIECES, SEVERAL, WHOLE, tokenizer

from minitinybert.augmentation.algorithm import (
    STOP_WORDS,
    Augmenter,
    Settings,
    basic_token,
    copies_of,
    draws,
    is_eligible,
    sides,
    vector_names,
)
from minitinybert.augmentation.words import WordReader, apply
from minitinybert.errors import InputError

NEIGHBOURS = {"walking": ["acting", "war"], "movie": ["film", "scene", "plots"]}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return WordReader(tokenizer(tmp_path_factory.mktemp("small")))


def candidates(pieces, mask):
    """A language model made of a hash: 0 to 5 words, another set for every masked sentence."""
    digest = hashlib.sha256(f"{mask} {' '.join(pieces)}".encode()).digest()
    return [WHOLE[byte % len(WHOLE)] for byte in digest[: digest[-1] % 6]]


def ask(questions):
    assert all(PIECES[q.ids[q.mask]] == "[MASK]" for q in questions)
    return [candidates([PIECES[i] for i in q.ids], q.mask) for q in questions]


def word_pieces(word):
    """WordPiece, greedily, of a lower-cased word."""
    pieces, at = [], 0
    while at < len(word):
        stop = next(stop for stop in range(len(word), at, -1) if ("##" * bool(at) + word[at:stop]) in PIECES)
        pieces.append("##" * bool(at) + word[at:stop])
        at = stop
    return pieces


def literal(x, settings, example, side=0):
    """Algorithm 1, a line of code for each of its lines."""
    p, pick = draws(settings.seed, example, side, settings.copies, len(x))
    D = []
    for n in range(settings.copies):
        x_m = list(x)
        for i in range(len(x)):
            if len(word_pieces(x[i])) == 1:
                masked = [["[MASK]"] if j == i else word_pieces(x_m[j]) for j in range(len(x))]
                C = candidates([piece for word in masked for piece in word], sum(map(len, masked[:i])))
            else:
                C = NEIGHBOURS.get(x[i], [])
            if p[n, i] <= settings.probability and C:
                x_m[i] = C[int(pick[n, i] * len(C))]
        D.append(" ".join(x_m))
    return D


words = st.sampled_from([*WHOLE, *SEVERAL, *MARKS])
sentences = st.lists(words, max_size=12)


@given(st.lists(sentences, min_size=1, max_size=4), st.integers(1, 5), st.sampled_from([0, 0.4, 1]), st.integers(0, 1 << 40))
def test_algorithm_1_to_the_letter(reader, xs, copies, probability, seed):
    settings = Settings("paper", copies, probability, 15, True, seed)
    rows = Augmenter(reader, ask, NEIGHBOURS, settings).rows([(" ".join(x),) for x in xs], first=3)
    expected = [text for e, x in enumerate(xs, 3) for text in [" ".join(x), *literal(x, settings, e)]]
    assert [row.texts[0] for row in rows] == expected
    assert [(row.example, row.copy) for row in rows] == [(e, n) for e in range(3, 3 + len(xs)) for n in range(copies + 1)]


texts = st.text(alphabet="the film is walking. \"'-,\té中\u0301\u200b😀A", max_size=40) | sentences.map(" ".join)


@given(texts, texts, st.sampled_from(["paper", "huawei-2019"]), st.integers(0, 9))
def test_what_is_kept_stays_as_it_is_written_and_the_record_replays(reader, a, b, recipe, seed):
    settings = Settings(recipe, 3, 0.5, seed=seed)
    for row in Augmenter(reader, ask, {**NEIGHBOURS, "walking": ["u.s.", "war"]}, settings).rows([(a, b)]):
        for text, source, made in zip(row.texts, (a, b), row.replacements, strict=True):
            assert apply(source, made) == text
            split = reader.split([source])[0]
            at, rest = 0, []
            for r in made:
                assert split[r.position][:3] == (r.word, r.start, r.stop) and source[r.start : r.stop] == r.word
                assert r.source == ("bert" if reader.is_piece(split[r.position]) else "glove")
                rest.append(source[at : r.start])
                at = r.stop
            assert all(part in text for part in rest)
            # New words do not run together with their neighbours.
            expected = [[w.text] for w in split]
            for r in made:
                expected[r.position] = [w.text for w in reader.split([r.replacement])[0]]
            assert [w.text for w in reader.split([text])[0]] == [word for words in expected for word in words]


def test_punctuation_without_spaces_does_not_glue_words(reader):
    always = lambda questions: [["war"] for _ in questions]
    rows = Augmenter(reader, always, {}, Settings(copies=1, probability=1)).rows([("it's good-bad.",)])
    assert rows[1].texts[0] == "war war war war war war war"
    assert apply("it's good-bad.", rows[1].replacements[0]) == rows[1].texts[0]
    some = Augmenter(reader, always, {}, Settings(copies=40, probability=0.3)).rows([("it's good-bad.",)])
    for row in some:
        assert len(reader.split([row.texts[0]])[0]) == 7


def test_words_are_replaced_with_probability_p_t_and_uniformly(reader):
    C = ["good", "bad", "dull", "love", "war"]
    settings = Settings(copies=200, probability=0.4, original=False, seed=5)
    rows = Augmenter(reader, lambda questions: [C for _ in questions], {}, settings).rows([("the film was a story of it and",)] * 10)
    made = [r for row in rows for r in row.replacements[0]]
    n = 10 * 200 * 8
    assert abs(len(made) / n - 0.4) < 4 * (0.24 / n) ** 0.5
    for group, total in ((Counter(r.replacement for r in made), len(made)), (Counter(r.position for r in made), len(made))):
        expected = total / len(group)
        assert len(group) in (5, 8) and all(abs(count - expected) < 4 * expected**0.5 for count in group.values())


def test_draws_are_keyed_by_seed_example_side_copy_and_word():
    p, pick = draws(1, 2, 0, 5, 7)
    assert p.shape == pick.shape == (5, 7) and ((p >= 0) & (p < 1)).all()
    assert (draws(1, 2, 0, 3, 4).p == p[:3, :4]).all()
    for other in (draws(2, 2, 0, 5, 7), draws(1, 3, 0, 5, 7), draws(1, 2, 1, 5, 7)):
        assert not np.intersect1d(other.p, p).size and not np.intersect1d(other.pick, pick).size
    assert len(np.unique(np.concatenate([p, pick]))) == 70


# ----------------------------------------------------------------------------------------------------------------------- pairs


def test_paper_pairs_meet_in_every_way(reader):
    rows = Augmenter(reader, lambda q: [["war"] for _ in q], {}, Settings(copies=60, probability=0.9)).rows(
        [("good film good", "dull plot dull")]
    )
    kinds = Counter(tuple(bool(side) for side in row.replacements) for row in rows if row.copy)
    assert rows[0].texts == ("good film good", "dull plot dull") and rows[0].copy == 0 and len(rows) == 61
    assert all(kinds[kind] > 8 for kind in [(True, False), (False, True), (True, True)])
    assert {row.texts[0] for row in rows if not row.replacements[0]} == {"good film good"}
    assert {row.texts[1] for row in rows if not row.replacements[1]} == {"dull plot dull"}
    assert sides(0, 0, 1000).any(1).all()


def test_huawei_pairs_have_each_variant_with_the_other_s_original(reader):
    a, b = "good film good", "dull plot dull"
    rows = Augmenter(reader, ask, {}, Settings("huawei-2019", 12, 0.5)).rows([(a, b)])
    assert rows[0].texts == (a, b)
    firsts, seconds = [row for row in rows[1:] if row.texts[1] == b], [row for row in rows[1:] if row.texts[0] == a]
    assert len(firsts) > 3 and len(seconds) > 3 and len(firsts) + len(seconds) == len(rows) - 1 <= 24
    assert rows == [rows[0], *firsts, *seconds] and len({row.texts for row in rows}) == len(rows)


# ----------------------------------------------------------------------------------------------------------- the released code


@pytest.mark.parametrize(
    "word, eligible",
    [
        ("film", True),
        ("Film", True),
        ("café", True),
        ("the", False),
        ("The", False),
        ("u2", False),
        (".", False),
        ("中", False),
        ("don", False),
    ],
)
def test_which_words_the_released_code_replaces(word, eligible):
    assert is_eligible(word) == eligible


@pytest.mark.parametrize(
    "word, paper, huawei",
    [("film", ("film", "film"), ("film",)), ("Film", ("Film", "film"), ("film",)), ("Café", ("Café", "café"), ("cafe",))],
)
def test_under_which_names_a_word_is_looked_for(word, paper, huawei):
    assert vector_names(word, "paper") == paper and vector_names(word, "huawei-2019") == huawei


@given(sentences, st.integers(0, 99))
def test_huawei_asks_once_from_the_original(reader, x, seed):
    asked = []

    def note(questions):
        asked.append(list(questions))
        return ask(questions)

    settings = Settings("huawei-2019", 6, 0.5, seed=seed)
    rows = Augmenter(reader, note, NEIGHBOURS, settings).rows([(" ".join(x).title(),)])
    eligible = [i for i, word in enumerate(x) if word.isalpha() and word not in STOP_WORDS]
    single = [i for i in eligible if len(word_pieces(x[i])) == 1]
    pieces = [[PIECES.index(p) for p in word_pieces(word)] for word in x]
    original = tuple(id for word in pieces for id in word)
    assert len(asked) == 1 and len(asked[0]) == len(single)
    for question, i in zip(asked[0], single, strict=True):
        place = sum(map(len, pieces[:i]))
        assert question.context == original and question.mask == place
        assert question.ids == (*original[:place], PIECES.index("[MASK]"), *original[place + 1 :])
    assert all(r.position in eligible for row in rows for r in row.replacements[0])
    copies = [tuple(basic_token(w.text) for w in reader.split([row.texts[0]])[0]) for row in rows]
    assert len(set(copies)) == len(copies) <= 7 and rows[0].copy == 0
    p, pick = draws(seed, 0, 0, 6, len(x))
    C = {i: candidates([PIECES[id] for id in q.ids], q.mask) for i, q in zip(single, asked[0], strict=True)}
    for row in rows[1:]:
        n = row.copy - 1
        expected = {i: C[i][int(pick[n, i] * len(C[i]))] for i in single if C[i] and p[n, i] <= 0.5}
        assert {r.position: r.replacement for r in row.replacements[0] if r.source == "bert"} == expected


@pytest.mark.parametrize(
    "recipe, task, n", [("paper", "mnli", 20), ("huawei-2019", "cola", 30), ("huawei-2019", "sst-2", 20), ("huawei-2019", "qqp", 10)]
)
def test_numbers_of_copies(recipe, task, n):
    assert copies_of(recipe, task) == n


@pytest.mark.parametrize(
    "wrong", [{"recipe": "eda"}, {"copies": 0}, {"probability": 1.5}, {"probability": float("nan")}, {"candidates": 0}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(InputError, match="--"):
        Settings(**wrong)


def test_no_original(reader):
    rows = Augmenter(reader, ask, {}, Settings(copies=2, original=False)).rows([("good film",), ("",)])
    assert [(row.example, row.copy) for row in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)] and rows[2].texts == ("",)
