"""bench/gpu.py runs, and what it says the device has to do at least is what the step asks of it."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpu.conftest import needs_ampere
from minitinybert.engine.batch import packed
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training.teacher import Running

pytest.importorskip("torch")
pytestmark = pytest.mark.gpu
BENCH = Path(__file__).parents[2] / "bench"
STUDENT = Config(2000, 24, 3, 4, 40, max_position_embeddings=32, head="classifier")
TEACHER = replace(STUDENT, hidden_size=32, num_hidden_layers=6, intermediate_size=48)


@pytest.fixture
def bench(monkeypatch):
    """bench(name): a module of bench/."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.mark.parametrize("beside", ["cpu", "none"])
def test_it_runs(cupy, tmp_path, beside):
    """Beside PyTorch on the CPU, which does not round as TF32 does. In a process of its own: CuPy asks for TF32 once."""
    if beside == "cpu":
        needs_ampere(cupy)
    shapes = ["--teacher", "2L-16D-2H-32F", "--student", "1L-8D-2H-16F", "--batch-size", "4", "--length", "8"]
    more = ["--tf32"] if beside == "cpu" else ["--teacher-dtype", "float16"]
    arguments = [sys.executable, "gpu.py", *shapes, *more, "--quick", "--torch-device", beside, "--out", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "CUPY_TF32"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=BENCH)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu-quick.json").read_text())
    assert (tmp_path / "gpu-quick.png").read_bytes().startswith(b"\x89PNG")
    assert report["machine"]["device"] and report["machine"]["cupy"]
    assert set(report["peaks"]["flops"]) == ({"float32"} if beside == "cpu" else {"float32", "float16"})
    assert [row["part"] for row in report["rows"]] == ["teacher", "student", "step"] * 3
    for row in report["rows"]:
        assert row["ours_ms"]["min"] > 0
        assert min(row[name] for name in ("flops", "bytes", "launches", "roofline_ms", "launches_ms", "host_ms")) > 0
    if beside == "cpu":
        assert 1e-5 < report["agreement"]["gradient"] < 0.1
        assert all(row["torch"] == "eager" and row["ratio"]["median"] > 0 for row in report["rows"])
    assert ("same work" in done.stdout) is (beside == "cpu")


@pytest.fixture
def step(cupy, bench):
    """The roofline's and the real step of one batch."""
    workload, roofline = bench("workload"), bench("roofline")
    lengths = (5, 9, 7, 5, 3, 12)
    batch = packed([np.arange(1, n + 1) for n in lengths], [np.zeros(n, int) for n in lengths], None, np.zeros(len(lengths), int))
    sizes = batch.totals.sentences, batch.totals.tokens, batch.totals.pairs
    asked = list(roofline.teacher(TEACHER, STUDENT, *sizes, 4))
    learned = list(roofline.student(STUDENT, TEACHER, *sizes, 4))
    with Workers(1) as workers:
        objective, batch = workload.All(STUDENT, TEACHER), batch.to(cupy)
        teacher, student = Bert.new(TEACHER, 2).to(cupy), Bert.new(STUDENT, 1).to(cupy)
        known = workload.KnownTraces(teacher, objective.teacher_view, [batch], 1)
        alone = workload.OurStep(student, objective, workers, known)
        whole = workload.OurStep(student, objective, workers, Running(teacher))
        yield {"teacher": (asked, lambda: whole.ask_teacher(batch)), "student": (learned, lambda: alone(batch))}


@pytest.mark.parametrize("part", ["teacher", "student"])
def test_launches_are_as_counted(step, count, part):
    kernels, run = step[part]
    assert sum(work.launches for work in kernels) == count(run)


def test_flops_are_the_benches_of_the_cpu(step, bench):
    """But for the head's products, which those leave out: they are few."""
    workload, (S, T, P) = bench("workload"), (6, 41, sum(n * n for n in (5, 9, 7, 5, 3, 12)))
    asked, learned = (sum(work.flops for work in step[part][0]) for part in ("teacher", "student"))
    d, C = TEACHER.hidden_size, TEACHER.num_labels
    assert asked == workload.forward_flops(TEACHER, T, P) + 2 * S * d * (d + C)
    assert workload.step_flops(STUDENT, TEACHER, T, P) < learned < 1.5 * workload.step_flops(STUDENT, TEACHER, T, P)
