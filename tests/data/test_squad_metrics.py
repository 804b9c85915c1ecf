"""Exact match and F1 on answers made for it, as evaluate-v1.1.py and evaluate-v2.0.py score them."""

import pytest

from minitinybert.data.squad_metrics import best_of, best_threshold, scores

CRAFTED = [  # said, answers, exact match, F1, F1 of version 2.0 where that is another
    ("the Eiffel Tower", ["Eiffel Tower"], 1, 1),  # articles
    ("eiffel tower.", ["The Eiffel Tower"], 1, 1),  # case, punctuation
    ("a  b\tc", ["b c"], 1, 1),  # white space, and a is an article
    ("theatre an hour", ["theatre hour"], 1, 1),  # articles are whole words
    ("10,000", ["10000"], 1, 1),
    ("U.S.", ["US"], 1, 1),
    ("x-ray", ["xray"], 1, 1),
    ("in the north", ["north"], 0, 2 / 3),
    ("north of Oslo", ["Oslo north", "south"], 0, 4 / 5),  # bags of words: no order
    ("red red blue", ["red blue blue"], 0, 2 / 3),  # and as often as they are there
    ("red", ["blue", "red wine", "red"], 1, 1),  # the best answer
    ("“red”", ["red"], 0, 0),  # punctuation is ASCII's
    ("naïve", ["naive"], 0, 0),
    ("", ["red"], 0, 0),
    ("red", [""], 0, 0),
    ("the", ["a"], 1, 0, 1),  # nothing is left of either
    ("the", ["a", "red"], 0, 0),  # 2.0 leaves answers out that are nothing
]


@pytest.mark.parametrize("said, answers, exact, f1, later", [(*row, row[3]) if len(row) == 4 else row for row in CRAFTED])
def test_crafted_answers(said, answers, exact, f1, later):
    if (said, answers) != ("the", ["a", "red"]):
        assert best_of(said, answers) == pytest.approx((exact, f1))
    else:
        assert best_of(said, answers) == (1, 0)
    assert best_of(said, answers, second=True) == pytest.approx((exact, later))


def test_a_question_without_an_answer():
    assert best_of("", [], second=True) == (1, 1) and best_of("red", [], second=True) == (0, 0)
    assert best_of("The", [], second=True) == (1, 1)  # no word is left


def test_means():
    said, answers = ["the red", "north of Oslo", "", "blue"], [["red"], ["Oslo"], [], []]
    assert scores(said[:2], answers[:2]) == {"f1": pytest.approx(0.75), "exact_match": 0.5}
    assert scores(said, answers, second=True) == {
        "f1": pytest.approx((1 + 0.5 + 1 + 0) / 4),
        "exact_match": 0.5,
        "has_answer_f1": pytest.approx(0.75),
        "has_answer_exact_match": 0.5,
        "no_answer": 0.5,
    }


@pytest.mark.parametrize(
    "margins, expected",
    [
        ([5, 3, 2, -1], (1.0, -3.0)),  # the two with an answer, then none of the others
        ([3, -2, 2, -1], (0.75, -3.0)),  # one with an answer; the other comes after those without
        ([-1, -2, 3, 2], (0.5, -4.0)),  # nothing is answered
        ([1, 1, 1, 1], (0.5, -2.0)),  # all or none
    ],
)
def test_the_best_threshold(margins, expected):
    f1, threshold = best_threshold(["red", "blue", "x", "y"], margins, [["red"], ["blue"], [], []])
    assert (f1, threshold) == expected
