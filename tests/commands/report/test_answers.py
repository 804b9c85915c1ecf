"""Scores, tests, confusion and calibration by hand, and against what `evaluate` says of the same models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minitinybert.commands.answer import evaluate
from minitinybert.commands.record import task_of
from minitinybert.commands.report import answers
from minitinybert.commands.report.runs import read_runs
from minitinybert.data.glue import TASKS
from minitinybert.data.significance import mcnemar, wilson
from minitinybert.engine.parallel import Workers
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert


def asked(run, most=None):
    """(dev, truth, {model: answers}, task) of a run's step and its teacher."""
    about = read_runs([run])[0].last.about
    task = task_of(about["task"], "")
    dev = answers.read_dev(task, Path(about["data"]), most)
    with Workers(1) as workers:
        said = answers.ask(Bert.load(run), dev, about["max_length"], workers, "x")
    return dev, answers.truth_of(dev), said, about


@pytest.mark.parametrize("kind", ["sentences", "numbers", "tokens", "questions"])
def test_scores_are_those_of_evaluate(made, kinds, kind):
    run = made.here / "student" if kind == "sentences" else kinds[kind][1]
    dev, truth, said, about = asked(run)
    with Machine(threads=1) as machine:
        expected = evaluate(str(run), dev.task, about["data"], machine, about["max_length"])["dev"]
    scores = answers.scores(said, truth, 0)
    assert len(scores) >= 1 and next(iter(scores)) == dev.task.main_metric
    for name, (value, low, high) in scores.items():
        assert value == pytest.approx(expected[name]) and low <= value <= high
    assert dev.taken == dev.there == len(truth.texts) == len(said.shown)


def test_the_interval_of_a_share_is_wilson_s_and_its_test_mcnemar_s(made):
    _, truth, ours, _ = asked(made.here / "student")
    *_, theirs, _ = asked(made.here / "baseline")
    right = ours.said["accuracy"]
    assert answers.scores(ours, truth, 0)["accuracy"] == (right.mean(), *wilson(int(right.sum()), len(right)))
    (verdict,) = answers.compare("a", "b", {"a": ours, "b": theirs}, truth, 0)
    assert (verdict.only_a, verdict.only_b, verdict.p) == mcnemar(right, theirs.said["accuracy"])
    assert verdict.difference == pytest.approx(right.mean() - theirs.said["accuracy"].mean())
    assert verdict.low <= verdict.difference <= verdict.high


def test_other_metrics_are_tested_by_a_bootstrap(kinds):
    _, truth, ours, _ = asked(kinds["numbers"][1])
    *_, theirs, _ = asked(kinds["numbers"][0])
    verdicts = answers.compare("a", "b", {"a": ours, "b": theirs}, truth, 3)
    assert [v.metric for v in verdicts] == ["pearson", "spearman"] and all(v.only_a is None and 0 < v.p <= 1 for v in verdicts)
    assert answers.confusion(ours, truth) is None and answers.calibration(ours, truth) is None
    apart = np.abs(ours.numbers - theirs.numbers)
    assert answers.parted(ours, theirs)[0] == apart.argmax() and len(answers.parted(ours, theirs)) == 20


@pytest.mark.parametrize("kind, most", [("numbers", 7), ("tokens", 5), ("questions", 3)])
def test_the_first_examples_alone(kinds, kind, most):
    dev, truth, said, _ = asked(kinds[kind][0], most)
    whole, _, all_said, _ = asked(kinds[kind][0])
    assert (dev.taken, dev.there) == (most, whole.there) and len(truth.texts) == most
    assert said.shown == all_said.shown[:most]


def told(classes, sure, said=None):
    classes = np.array(classes)
    return answers.Answers({"accuracy": classes}, list(map(str, classes)), np.array(sure), classes, np.array(sure))


def test_confusion_and_calibration_by_hand():
    truth = answers.Truth(["t"] * 5, list("01120"), {}, ["no", "yes", "maybe"], np.array([0, 1, 1, 2, 0]))
    ours = told([0, 1, 0, 2, 2], [0.95, 0.55, 0.58, 0.91, 0.41])
    assert answers.confusion(ours, truth).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    found = answers.calibration(ours, truth)
    assert found.counts == [1, 2, 2] and found.right == [0, 0.5, 1]
    assert found.confidence == pytest.approx([0.41, 0.565, 0.93])
    assert found.error == pytest.approx((1 * 0.41 + 2 * 0.065 + 2 * 0.07) / 5)
    unknown = truth._replace(classes=np.array([0, -1, 1, 2, 0]))  # a label that no model gives is in no row
    assert answers.confusion(ours, unknown).sum() == 4
    assert answers.confusion(ours, truth._replace(names=["x"] * 21)) is None


def test_where_two_part_the_surest_come_first():
    ours, theirs = told([0, 1, 1, 0], [0.9, 0.6, 0.9, 0.5]), told([0, 0, 0, 1], [0.9, 0.7, 0.99, 0.9])
    assert answers.parted(ours, theirs) == [2, 3, 1]


def test_a_students_metric_of_words_is_that_of_all_of_them(kinds):
    """Entities' F1 is worked out of each sentence's counts: of some sentences alone it is the F1 of these."""
    from minitinybert.data import entities

    dev, truth, said, _ = asked(kinds["tokens"][1])
    chosen = np.array([3, 3, 0, 7])
    metric, right, _ = truth.measures["f1"]
    tags = [dev.examples.tags[i] for i in chosen]
    expected = entities.scores([said.shown[i].split() for i in chosen], tags)["f1"]
    assert metric(said.said["f1"][chosen], right[chosen]) == pytest.approx(expected)
    assert answers.confusion(said, truth).sum() == sum(map(len, dev.examples.tags)) and 0 <= answers.calibration(said, truth).error <= 1


def test_pairs_of_models_that_are_compared():
    teachers = {"student": "teacher", "other": "teacher"}
    assert answers.names_of_pairs(["teacher", "student", "other", "baseline"], teachers) == [
        ("student", "teacher"), ("other", "teacher"), ("student", "other"), ("student", "baseline"), ("other", "baseline"),
    ]  # fmt: skip
    assert answers.names_of_pairs(["a", "b"], {}) == [("a", "b")] and answers.names_of_pairs(["a"], {}) == []


def test_rows_without_a_gold_label_are_left_out(tmp_path):
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ngood film\t1\nbad\t-1\nbad plot\t0\n")
    dev = answers.read_dev(replace(TASKS["sst-2"], unlabelled="drop"), tmp_path)
    assert dev.taken == 2 and answers.truth_of(dev).shown == ["1", "0"]
