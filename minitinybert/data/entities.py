"""Entities of tagged words, and their scores, as the CoNLL shared tasks define them (conlleval; in
Python the library seqeval, whose only release does not build with today's setuptools).

An entity is right where its kind, its first and its last word are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
    said, meant = ({(i, *entity) for i, labels in enumerate(side) for entity in entities(labels)} for side in (predicted, true))
    right = len(said & meant)
    precision, recall = right / max(len(said), 1), right / max(len(meant), 1)
    f1 = 2 * right / max(len(said) + len(meant), 1)
    return {"f1": f1, "precision": precision, "recall": recall, "accuracy": accuracy(predicted, true)}


def accuracy(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """The share of all words whose label is right."""
    pairs = [pair for sides in zip(predicted, true, strict=True) for pair in zip(*sides, strict=True)]
    return sum(a == b for a, b in pairs) / max(len(pairs), 1)
