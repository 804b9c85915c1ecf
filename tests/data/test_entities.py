"""Entities and their scores: by hand, beside what seqeval 1.2.2 said of random labels (seqeval.jsonl), and beside seqeval itself where
it is there: its release does not build with today's setuptools."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.data.entities import are_marks, entities, scores

LABELS = st.sampled_from(["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "E-LOC", "S-LOC", "B", "I", "I-a-b"])
SENTENCES = st.lists(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=9), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "labels, expected",
    [
        ("O O", []),
        ("B-A I-A", [("A", 0, 1)]),  # IOB2
        ("I-A I-A B-A", [("A", 0, 1), ("A", 2, 2)]),  # IOB1: B only where two touch
        ("S-A B-A I-A E-A", [("A", 0, 0), ("A", 1, 3)]),  # IOBES
        ("B-A I-B", [("A", 0, 0), ("B", 1, 1)]),
        ("O I-A O I-A", [("A", 1, 1), ("A", 3, 3)]),
        ("E-A I-A", [("A", 0, 0), ("A", 1, 1)]),
        ("B-a-b I-a-b", [("a-b", 0, 1)]),
        ("B I O", [("_", 0, 1)]),
    ],
)
def test_entities(labels, expected):
    assert entities(labels.split()) == expected


def test_scores_by_hand():
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    said = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "B-LOC"]]
    # Of four that are said two are right, kind and words; three are true. Of six words four are right.
    assert scores(said, true) == {
        "f1": pytest.approx(4 / 7),
        "precision": pytest.approx(2 / 4),
        "recall": pytest.approx(2 / 3),
        "accuracy": pytest.approx(4 / 6),
    }
    assert scores([["O"]], [["O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}
    assert scores([["NN", "VB"]], [["NN", "NN"]])["accuracy"] == 0.5


def test_the_same_place_in_another_sentence_is_another_entity():
    assert scores([["B-A"], ["O"]], [["O"], ["B-A"]])["f1"] == 0


def test_which_labels_are_marks():
    assert are_marks(["O", "B-PER", "I-PER", "S-x", "E-x", "B"])
    for labels in (["NN", "IN"], ["O", "B-PER", "NN"], ["B_PER"], ["0", "1"]):
        assert not are_marks(labels)


@pytest.mark.parametrize("line", (Path(__file__).parent / "seqeval.jsonl").read_text(encoding="utf-8").splitlines())
def test_what_seqeval_said(line):
    case = json.loads(line)
    true, said = ([labels.split() for labels in case[side]] for side in ("true", "said"))
    assert [[list(entity) for entity in entities(labels)] for labels in true] == case["entities"]
    assert scores(said, true) == {name: pytest.approx(case[name]) for name in ("f1", "precision", "recall", "accuracy")}


@given(SENTENCES)
def test_seqeval_says_the_same(pairs):
    metrics, labeling = pytest.importorskip("seqeval.metrics"), pytest.importorskip("seqeval.metrics.sequence_labeling")
    true, said = ([[pair[side] for pair in sentence] for sentence in pairs] for side in (0, 1))
    for labels in true:
        assert entities(labels) == labeling.get_entities(labels)
    found = scores(said, true)
    for name in ("f1", "precision", "recall"):
        assert found[name] == pytest.approx(getattr(metrics, f"{name}_score")(true, said, zero_division=0))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, said))
