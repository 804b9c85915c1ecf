"""A model's card: what the hub reads of it, and a command that makes the model again."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from faults.commands import COMMANDS, make_inputs

from minitinybert.commands.card import FILE, of_recipe
from minitinybert.commands.cli import main
from minitinybert.distillation.recipes import RECIPES

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """With a teacher and a student that was distilled from it."""
    directory = tmp_path_factory.mktemp("cards") / "inputs"
    make_inputs(directory)
    line = COMMANDS["distill-task"].line(directory)
    out = line.index("--out") + 1
    assert main([*line[:out], str(directory / "student"), *line[out + 1 :], "--seed", "3", "--set", "temperature=2"]) == 0
    return directory


def command_of(card):
    return shlex.split(next(line for line in card.splitlines() if line.startswith("    minitinybert ")))[1:]


def test_the_hub_reads_the_front_matter(place):
    card = hub.ModelCard.load(place / "student" / FILE)
    (result,) = card.data.eval_results
    assert (card.data.library_name, card.data.pipeline_tag, card.data.metrics) == ("transformers", "text-classification", ["accuracy"])
    assert set(card.data.tags) == {"minitinybert", "bert", "tinybert", "distillation"} and card.data.model_name == "student"
    assert (result.dataset_type, result.dataset_config, result.dataset_split, result.metric_type) == ("glue", "sst2", "dev", "accuracy")
    rows = [json.loads(line) for line in (place / "student" / "metrics.jsonl").read_text().splitlines()]
    assert result.metric_value == pytest.approx(max(row["dev"]["accuracy"] for row in rows if "dev" in row), abs=1e-6)
    assert "base_model" not in (place / "student" / FILE).read_text()  # the teacher is none of the hub's


def test_it_says_teacher_scores_sizes_and_labels(place):
    text = (place / "student" / FILE).read_text()
    teacher = hub.ModelCard.load(place / "teacher" / FILE).data.eval_results[0].metric_value
    assert f"| dev, the teacher | {teacher:.4f} |" in text and "distilled from teacher on sst-2" in text
    assert "| this model | 1L-8D-2H-16F |" in text and "| its teacher | 2L-16D-2H-24F |" in text
    assert "Labels: negative, positive." in text and str(place.parent) not in text


def test_the_command_makes_the_same_model(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    command = command_of((place / "student" / FILE).read_text())
    assert "--set" in command and command[:2] == ["distill", "task"]
    assert main([*command, "--out", str(tmp_path / "again"), "--threads", "1"]) == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (place / "student/model.safetensors").read_bytes()


def test_one_that_somebody_has_changed_stays(place, capsys):
    line = COMMANDS["distill-task"].line(place)
    line[line.index("--out") + 1] = str(place / "student")
    card = place / "student" / FILE
    made = card.read_text()
    for text in (made, made.replace("student", "My student", 1), "mine\n", ""):
        card.write_text(text)
        assert main([*line, "--seed", "3", "--set", "temperature=2", "--resume"]) == 0
        assert card.read_text() == text and ("and stays" in capsys.readouterr().err) == (text != made)
    card.unlink()
    assert main([*line, "--seed", "3", "--set", "temperature=2", "--resume"]) == 0
    assert card.read_text() == made


def test_a_recipe_is_its_name_or_what_is_set_on_top_of_the_default():
    assert of_recipe(RECIPES["huawei-2019"]) == [("--recipe", "huawei-2019")]
    changed = replace(RECIPES["default"], temperature=2.0, projection_bias=True)
    assert of_recipe(changed) == [("--set", "projection_bias=true"), ("--set", "temperature=2.0")]


@pytest.mark.parametrize("name, task", [("distill-general", "feature-extraction"), ("pretrain", "fill-mask")])
def test_models_of_raw_text_have_one(place, tmp_path, monkeypatch, name, task):
    monkeypatch.chdir(tmp_path)
    assert main(COMMANDS[name].line(place)) == 0
    card = hub.ModelCard.load(Path("out") / FILE)
    assert card.data.pipeline_tag == task and command_of(card.text)[0] == name.split("-")[0]
