"""Entities of tagged words, and their scores, as the CoNLL shared tasks define them (conlleval; in
Python the library seqeval, whose only release does not build with today's setuptools).

An entity is right where its kind, its first and its last word are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

_MARKED = re.compile(r"[BIES](-.+)?")  # begin, inside, end, single


def are_marks(labels: Iterable[str]) -> bool:
    """Whether labels are of entities: O for none, else B, I, E or S and mostly a kind, B-PER."""
    return all(label == "O" or _MARKED.fullmatch(label) for label in labels)


def entities(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """(kind, first word, last word) of each entity of a sentence, IOB1, IOB2 and IOBES alike: one
    begins where the mark says so or none of its kind is under way.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [('PER', 0, 1), ('LOC', 3, 3), ('LOC', 4, 4)]
    """
    found = []
    first, before, kind_before = 0, "O", "_"
    for i, label in enumerate([*labels, "O"]):
        mark, kind = label[0], label[1:].split("-", 1)[-1] or "_"
        other = kind != kind_before
        if before != "O" and (mark in "BSO" or before in "ES" or other):
            found.append((kind_before, first, i - 1))
        if mark in "BS" or (mark != "O" and (before in "ESO" or other)):
            first = i
        before, kind_before = mark, kind
    return found


def scores(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> dict[str, float]:
    """precision, recall and f1 of the entities of all sentences together, and the accuracy of all
    words; 0 where there is nothing to divide by. predicted, true: each sentence's labels."""
    return of_counts(counts(predicted, true))


def counts(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> np.ndarray:
    """(sentences, 5): entities that are right, that are said, that are meant; words whose label is
    right, and all words."""
    rows = []
    for ours, theirs in zip(predicted, true, strict=True):
        said, meant = set(entities(ours)), set(entities(theirs))
        right = sum(a == b for a, b in zip(ours, theirs, strict=True))
        rows.append((len(said & meant), len(said), len(meant), right, len(theirs)))
    return np.array(rows, np.int64).reshape(-1, 5)


def of_counts(rows: np.ndarray) -> dict[str, float]:
    """The scores of the sentences that `counts` counted."""
    right, said, meant, words, all_words = rows.sum(axis=0).tolist()
    share = lambda part, whole: part / max(whole, 1)
    return {
        "f1": share(2 * right, said + meant),
        "precision": share(right, said),
        "recall": share(right, meant),
        "accuracy": share(words, all_words),
    }
