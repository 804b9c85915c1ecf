"""Labels of words and answers to questions with --device cuda: training ends where the CPU's does, and so do answers."""

import json

import pytest
from commands import test_questions as questions
from commands import test_words as words
from commands.test_task import new_model

from gpu.test_commands import run, same
from minitinybert.model.bert import Bert

pytestmark = pytest.mark.gpu
SHORT = ("--batch-size", 16, "--log-every", 2, "--lr", 3e-3)
FEW = ("--intermediate-epochs", 0.3, "--epochs", 0.3)


@pytest.fixture(scope="module")
def methods(cupy, tmp_path_factory):
    """task -> its commands with --out `out`/name, of few examples, as they were run on the CPU; where; what it is asked."""
    root = tmp_path_factory.mktemp("tokens")
    data = {"tokens": words.lay(root / "words", {"train": 60, "dev": 12}), "squad": questions.lay(root / "squad", False, 40, 6)}
    vocabulary = {"tokens": words.WORDS, "squad": questions.WORDS}
    length = {"tokens": (), "squad": questions.LENGTH}
    made = {}
    for task, place in data.items():
        model, out = new_model(root / f"model-{task}", words=vocabulary[task]), root / task / "cpu"
        of_task = ("--task", task, "--data", place, *length[task])
        student = ("distill", "task", "--teacher", out / "teacher", "--student", "1L-8D-2H-16F", *of_task, *FEW, *SHORT)
        teacher = ("finetune", "--model", model, *of_task, "--epochs", 6, *SHORT)
        made[task] = out, of_task, {"teacher": teacher, "student": student, "released": (*student, "--recipe", "huawei-2019")}
    return made


@pytest.mark.parametrize("task", ["tokens", "squad"])
def test_training_and_answers_are_the_cpu_s(capsys, methods, task, tmp_path):
    out, of_task, commands = methods[task]
    for name, command in commands.items():
        run(capsys, *command, "--out", out / name)
        run(capsys, *command, "--out", tmp_path / name, "--device", "cuda")
        if name != "teacher":  # of many steps rounding grows
            same(out / name, tmp_path / name, blind=("qa_outputs.bias", "layer.0.output.LayerNorm.bias") if task == "squad" else ())
        assert Bert.load(tmp_path / name).config.head == {"tokens": "tokens", "squad": "spans"}[task]
    evaluate = ("evaluate", "--model", out / "teacher", *of_task)
    here, there = (run(capsys, *evaluate, *device)["results"]["dev"] for device in ((), ("--device", "cuda")))
    assert there == pytest.approx(here, abs=1e-4), json.dumps([here, there])
