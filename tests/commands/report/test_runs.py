"""What a run's directory says: its steps, names, curves and settings."""

import json

import numpy as np
import pytest

from minitinybert.commands.report.runs import MOST_RUNS, read_runs
from minitinybert.distillation.recipes import DEFAULT, RECIPES
from minitinybert.errors import InputError


def write(directory, *rows):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return directory


def test_the_runs_of_the_commands(made):
    teacher, general, student = read_runs([made.here / name for name in ("teacher", "general", "student")])
    assert [step.name for step in (*teacher.steps, *general.steps)] == ["fine-tuning", "general distillation"]
    assert [step.name for step in student.steps] == ["intermediate step", "prediction step"]
    assert student.last.about["teacher"] == str(made.here / "teacher") and student.last.recipe == DEFAULT
    curves = student.steps[0].curves()
    assert set(curves["losses"]) == {"embedding", "hidden", "attention"}
    assert set(curves["layers"]) == {"hidden.1", "hidden.2", "attention.1", "attention.2"} and not curves["dev"]
    steps, values = curves["losses"]["hidden"]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert values == pytest.approx(np.add(curves["layers"]["hidden.1"][1], curves["layers"]["hidden.2"][1]))
    assert student.last.steps_of_epoch == pytest.approx(4) and len(curves["lr"]["learning rate"][0]) == 8
    assert set(teacher.last.curves()["dev"]) == {"accuracy"}
    told = teacher.last.told()
    assert told["epochs"] == 10 and told["lr"] == 5e-3 and told["examples"] == 60 and "log_every" not in told


def test_switches_that_are_not_the_default_s_are_told(tmp_path):
    settings = {"epochs": 2.0, **vars(RECIPES["huawei-2019"])}
    about = {"what": "distill general", "settings": settings}
    (run,) = read_runs([write(tmp_path / "out", {"step": 1, "losses": {"hidden": 1.0}, "run": about})])
    told = run.last.told()
    assert run.last.recipe == RECIPES["huawei-2019"] and told["projection"] == "shared" and told["epochs"] == 2.0
    assert "temperature" not in told


def test_names_are_as_short_as_they_can_be(tmp_path):
    row = {"step": 1, "losses": {"prediction": 1.0}}
    paths = [write(tmp_path / name, row) for name in ("a/x/out", "b/x/out", "b/y/out", "b/teacher")]
    assert [run.name for run in read_runs([*paths, paths[0]])] == ["a/x/out", "b/x/out", "y/out", "teacher"]


def test_long_curves_are_thinned_to_means(tmp_path):
    rows = [{"step": i, "losses": {"hidden": float(i % 2)}} for i in range(1, 1001)]
    (run,) = read_runs([write(tmp_path / "out", *rows)])
    steps, values = run.last.curves()["losses"]["hidden"]
    assert len(steps) <= 400 and steps[-1] == 1000 and np.mean(values) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("loss, name", [("hidden", "general distillation"), ("prediction", "prediction step"), ("mse", "fine-tuning")])
def test_a_run_that_does_not_say_what_it_is_is_known_by_its_losses(tmp_path, loss, name):
    (run,) = read_runs([write(tmp_path / "out", {"step": 1, "losses": {loss: 1.0}})])
    assert run.last.name == name and run.last.recipe == DEFAULT and run.last.told() == {}


@pytest.mark.parametrize("about", [3, [], "x", {"what": 3, "settings": []}, {"settings": {"layers": 3, "temperature": "hot"}}])
def test_whatever_stands_where_a_run_says_what_it_is_does_no_harm(tmp_path, about):
    (run,) = read_runs([write(tmp_path / "out", {"step": 1, "epoch": "x", "lr": [], "losses": {"hidden": 1.0}, "run": about})])
    assert run.last.recipe == DEFAULT and run.last.steps_of_epoch == 0 and run.last.curves()["lr"] == {}
    assert isinstance(run.last.told(), dict)


def test_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no metrics.jsonl in it; give the --out of"):
        read_runs([tmp_path])
    with pytest.raises(InputError, match="no line of it is a run's"):
        read_runs([write(tmp_path / "empty")])
    many = [write(tmp_path / str(i), {"step": 1}) for i in range(MOST_RUNS + 1)]
    with pytest.raises(InputError, match="at most 8"):
        read_runs(many)
