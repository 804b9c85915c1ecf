"""One file as three parts: of each label alike, whatever the order of its rows, and no text in two."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.data.parts import PARTS, deal, parts_of
from minitinybert.errors import InputError

HERE = Path("reviews.csv")


def rows(n, labels, seed=0):
    rng = np.random.default_rng(seed)
    return [(f"text {i}",) for i in range(n)], rng.integers(0, labels, n)


def test_a_tenth_of_each_label_is_for_dev_and_a_tenth_for_test():
    texts, labels = rows(1000, 2)
    labels[:900] = 0
    part = deal(texts, labels, 0, HERE)
    for label in (0, 1):
        n = int((labels == label).sum())
        counts = np.bincount(part[labels == label], minlength=3)
        assert counts.sum() == n and abs(counts[1] - n / 10) <= 1 and abs(counts[2] - n / 10) <= 1


def test_numbers_are_dealt_out_of_each_tenth():
    texts, labels = rows(1000, 2)
    labels = np.random.default_rng(1).exponential(size=1000)
    part = deal(texts, labels, 0, HERE)
    order = np.argsort(labels)
    for tenth in np.split(order, 10):
        assert all(9 <= count <= 11 for count in np.bincount(part[tenth], minlength=3)[1:])


@given(st.data())
def test_the_parts_hang_on_texts_and_labels_and_the_seed_alone(data):
    n = data.draw(st.integers(20, 60))
    texts, labels = rows(n, data.draw(st.integers(1, 4)), data.draw(st.integers(0, 99)))
    part = deal(texts, labels, 3, HERE)
    order = np.array(data.draw(st.permutations(range(n))))
    np.testing.assert_array_equal(deal([texts[i] for i in order], labels[order], 3, HERE), part[order])
    assert set(labels[part == 0]) == set(labels) and {1, 2} <= set(part)


def test_another_seed_deals_otherwise_and_the_same_one_as_ever():
    texts, labels = [(f"text {i}",) for i in range(200)], np.arange(200) % 2
    part = deal(texts, labels, 0, HERE)
    assert (part != deal(texts, labels, 1, HERE)).mean() > 0.1
    # A split has to be the same in years: these are the rows of dev, worked out once.
    assert hashlib.sha256(part.tobytes()).hexdigest()[:16] == "0c7a2b46a9e6068d"


def test_rows_of_one_text_are_in_one_part():
    texts = [(f"text {i % 50}", "same") for i in range(200)]
    part = deal(texts, np.arange(200) % 2, 0, HERE)
    assert all(len(set(part[i::50])) == 1 for i in range(50))
    assert Counter(part)[1] == Counter(part)[2] == 20


def test_rare_labels_are_learned_and_too_few_rows_refused():
    texts, labels = rows(30, 1)
    labels[[3, 7]] = 1, 2
    part = deal(texts, labels, 0, HERE)
    assert PARTS[part[3]] == PARTS[part[7]] == "train"
    with pytest.raises(InputError, match=r"reviews.csv: 7 different rows are too few for train, dev and test; 8 are needed"):
        deal(texts[:7], np.arange(7) % 2, 0, HERE)
    assert set(deal(texts[:8], np.arange(8) % 2, 0, HERE)) == {0, 1, 2}


def test_a_file_is_known_by_its_bytes(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"text,label\n")
    assert parts_of(path, 4) == parts_of(path, 4) and parts_of(path, 4).digest == hashlib.sha256(b"text,label\n").hexdigest()
    with pytest.raises(InputError, match="nowhere.csv: cannot be read"):
        parts_of(tmp_path / "nowhere.csv")
