"""The page, reference/tinybert.py, as a whole: that it trains as the package does, stays one page, and does what it says when it is run.

(Operation by operation it is a judge of the audit; its Algorithm 1 is in augmentation/test_algorithm.py.)
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from minitinybert_reference import judge, tinybert

from minitinybert import audit
from minitinybert.audit import MODEL_CASES, Inputs, assert_close
from minitinybert.audit import models as audit_models
from minitinybert.distillation.distill import layer_map
from minitinybert.engine.parallel import Workers
from minitinybert.training.optim import PRESETS, Adam, warmup_linear
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

SOURCE = Path(tinybert.__file__).read_text(encoding="utf-8")
STEPS = {case.name: case for case in MODEL_CASES if case.name in ("distill.intermediate", "distill.prediction")}
ADAM = {"bert": {}, "adamw": {"eps": 1e-8, "correct": True}}  # the recipe `paper`'s is the page's own


@pytest.mark.parametrize("optimizer", ADAM)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", sorted(STEPS))
def test_ten_steps_of_training(name, seed, optimizer):
    """The losses of each, and every weight after them: the package's learner, schedule and Adam, two threads, against the page's loop."""
    inputs = STEPS[name].draw(audit.Draw(np.random.default_rng(seed), large=seed == 0)).cast(np.float64)
    inputs = Inputs(*judge.taken(*inputs))
    start = {n: a.copy() for n, a in inputs.arrays.items()}
    history, weights = of_the_package(inputs, optimizer)
    P, c = judge.model(inputs.settings["student"], inputs.arrays, "student.")
    T, _ = judge.model(inputs.settings["teacher"], inputs.arrays, "teacher.")
    batch, _ = judge.rectangle(**{n: inputs.arrays[n] for n in ("input_ids", "token_type_ids", "attention_mask")}, **packing(inputs))
    g = tinybert.layer_map(len(layers(P)), len(layers(T)))
    t = inputs.settings["recipe"].get("temperature", 1.0)
    lessons = {
        "distill.intermediate": lambda P, batch: tinybert.intermediate(P, batch, c, T, g),
        "distill.prediction": lambda P, batch: tinybert.prediction(P, batch, c, T, t),
    }
    page = tinybert.train(P, lessons[name], [batch] * 10, 1e-2, **ADAM[optimizer])
    for ours, theirs in zip(history, page, strict=True):
        assert ours == {term: pytest.approx(loss, rel=1e-9) for term, loss in theirs.items()}
    moved = 0
    for n, W in P.items():
        ours = weights["bert." + n if n.startswith(("embeddings", "encoder", "pooler")) else n]
        assert_close(n, ours, W, 1e-9)
        moved += not np.allclose(W, start.get("student.bert." + n, start.get("student." + n)), atol=1e-3)
    assert moved > len(P) / 2


def of_the_package(inputs, optimizer):
    student, teacher, batch = audit_models.distillation(inputs)
    with Workers(2) as workers:
        learner = Learner(student, audit_models.objective_of(inputs.settings), workers, Running(teacher))
        learner.student.parameters.flat[...] = student.parameters.flat  # the drawn projections, not those the learner starts with
        adam, history = Adam(learner.student.parameters, PRESETS[optimizer], workers), []
        for step in range(10):
            losses, gradients = learner.gradients(batch, step)
            adam.step(gradients, 1e-2 * warmup_linear(step, 10, 1))
            history.append({term: float(loss) for term, loss in losses.items()})
    return history, learner.student.parameters


def packing(inputs):
    return {"is_packed": inputs.settings["is_packed"]}


def layers(P):
    return {name.split(".")[2] for name in P if name.startswith("encoder.layer.")}


def test_both_kinds_of_batch_and_padding_are_drawn():
    drawn = [case.draw(audit.Draw(np.random.default_rng(seed), large=seed == 0)) for case in STEPS.values() for seed in range(4)]
    kinds = {(inputs.settings["is_packed"], bool(inputs.arrays["attention_mask"].all())) for inputs in drawn}
    assert {(True, False), (False, False)} <= kinds


def test_the_layer_map_is_the_package_s():
    for N in range(1, 14):
        for M in range(1, N + 1):
            assert tuple(tinybert.layer_map(M, N)) == layer_map("uniform", M, N)


def test_it_is_one_page_that_needs_numpy_and_erf():
    lines = SOURCE.splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 100
    imported = {
        alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imported == {"itertools", "math", "numpy", "scipy.special.erf"}


def test_each_backward_stands_below_its_operation():
    names = [node.name for node in ast.parse(SOURCE).body if isinstance(node, ast.FunctionDef)]
    backwards = [name for name in names if name.endswith("_backward")]
    assert len(backwards) == 10
    for name in backwards:
        assert names[names.index(name) - 1] == name.removesuffix("_backward")


@pytest.mark.slow
def test_it_runs_by_itself():
    """Every loss falls, the teacher has learnt the task, and so has its student."""
    done = subprocess.run([sys.executable, tinybert.__file__], capture_output=True, text=True, check=True)
    losses = [[float(number) for number in pair] for pair in re.findall(r"loss +(\S+) -> (\S+)", done.stdout)]
    assert len(losses) == 6 and all(last < first / 2 for first, last in losses), done.stdout
    accuracies = [float(number) for number in re.findall(r"(\S+)%", done.stdout)]
    assert len(accuracies) == 3 and min(accuracies[:2]) > 80, done.stdout


@pytest.mark.parametrize("name", [case.name for case in (*audit.CASES, *MODEL_CASES)])
def test_every_case_is_on_the_page_or_said_not_to_be(name):
    assert (name in judge._PAGE) != (name in judge.SILENT)
