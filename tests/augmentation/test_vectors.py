"""Neighbours against a slow search; who is nobody's neighbour."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.augmentation import vectors as module
from minitinybert.augmentation.vectors import Neighbours
from minitinybert.data.vectors import WordVectors


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 60), st.integers(0, 1 << 30))
def test_neighbours_are_those_of_a_slow_search(n, d, k, seed):
    random = np.random.default_rng(seed)
    table = random.integers(-2, 3, (n, d)).astype(np.float32)  # with zero vectors, and equal ones
    words = [f"w{i}" for i in range(n)]
    asked = random.choice([*words, "nowhere"], 10).tolist()
    found = Neighbours(WordVectors(words, table)).nearest(asked, k)
    for word, near in zip(asked, found, strict=True):
        i = words.index(word) if word in words else None
        if i is None or not table[i].any():
            assert near == []
            continue
        cosine = lambda j, i=i: np.dot(table[i], table[j]) / np.linalg.norm(table[i]) / np.linalg.norm(table[j])
        others = [j for j in range(n) if j != i and table[j].any()]
        assert len(near) == len(set(near)) == min(k, len(others)) and word not in near
        np.testing.assert_allclose([cosine(words.index(w)) for w in near], sorted(map(cosine, others), reverse=True)[:k], atol=1e-6)


def test_an_answer_does_not_depend_on_what_is_asked_with_it(monkeypatch):
    random = np.random.default_rng(0)
    table = Neighbours(WordVectors([f"w{i}" for i in range(3000)], random.standard_normal((3000, 20))))
    asked = [f"w{i}" for i in range(0, 3000, 37)]
    together = table.nearest(asked, 15)
    assert together == [table.nearest([word], 15)[0] for word in asked]
    monkeypatch.setattr(module, "_SCORES", 7000)
    assert table.nearest(asked, 15) == together
    assert table.nearest([], 15) == []


def test_what_stands_for_no_word_is_no_neighbour():
    odd = ["<unk>", "new york", "</s>", "", "[MASK]", "[sep]", "[UNK]", "[unused7]", "a\x85", "x[ENT]y", "x[ent]y"]
    words = ["a", "zero", *odd, "b", "[c]"]
    table = WordVectors(words, np.array([[1, 0], [0, 0], *[[1, 0]] * len(odd), [0, 1], [0, 1]]))
    assert Neighbours(table, ["[ENT]", "+"]).nearest(["a", "b"], 5) == [["x[ent]y", "b", "[c]"], ["[c]", "a", "x[ent]y"]]
    assert Neighbours(table).nearest(["a"], 2) == [["x[ENT]y", "x[ent]y"]]
    assert "a" in table and "zero" not in table and len(table) == len(words)
