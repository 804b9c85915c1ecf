"""bench/gpu.py runs, keeps what it has measured, and what it says the device has to do at least is what the step asks of it."""

import importlib.util
import json
import os
import platform
import re
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
    """bench(name): a module of bench/; gpu.py under another name, for tests/gpu is a package."""
    monkeypatch.syspath_prepend(str(BENCH))

    def load(name):
        if name != "gpu":
            return importlib.import_module(name)
        if "bench_gpu" not in sys.modules:
            spec = importlib.util.spec_from_file_location("bench_gpu", BENCH / "gpu.py")
            sys.modules["bench_gpu"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules["bench_gpu"])
        return sys.modules["bench_gpu"]

    return load


TINY = ["--teacher", "2L-16D-2H-32F", "--student", "1L-8D-2H-16F", "--batch-size", "4", "--length", "8", "--quick"]


@pytest.mark.parametrize("beside", ["cpu", "none"])
def test_it_runs(cupy, tmp_path, beside):
    """Beside PyTorch on the CPU, which does not round as TF32 does. In a process of its own: CuPy asks for TF32 once."""
    if beside == "cpu":
        needs_ampere(cupy)
    more = ["--tf32"] if beside == "cpu" else ["--teacher-dtype", "float16", "--cases", "train"]
    arguments = [sys.executable, "gpu.py", *TINY, *more, "--torch-device", beside, "--out", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "CUPY_TF32"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=BENCH)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu-quick.json").read_text())
    assert (tmp_path / "gpu-quick.png").read_bytes().startswith(b"\x89PNG")
    assert report["machine"]["device"] and report["machine"]["cupy"]
    assert set(report["peaks"]["flops"]) == ({"float32"} if beside == "cpu" else {"float32", "float16"})
    assert [row["part"] for row in report["rows"]] == ["teacher", "student", "step"] * (3 if beside == "cpu" else 1)
    for row in report["rows"]:
        assert 0 < row["host_ms"]["median"] <= row["ours_ms"]["median"]
        assert min(row[name] for name in ("flops", "bytes", "launches", "roofline_ms", "launches_ms")) > 0
        assert row["roofline_ms"] == pytest.approx(row["products_ms"] + row["cores_ms"] + row["memory_ms"])
    assert ("4×8" in {row["case"] for row in report["rows"]}) is (beside == "cpu")
    assert report["failed"] == {} and report["to come"] == []
    if beside == "cpu":
        assert 1e-5 < report["agreement"]["gradient"] < 0.1
        assert all(row["torch"] == "eager" and row["ratio"]["median"] > 0 for row in report["rows"])
    assert ("same work" in done.stdout) is (beside == "cpu")


def test_the_host_s_share_is_measured(cupy):
    """Beside itself; what it counts is what a step asks for (test_launches.py), but for fills, which only some drivers show."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("the bench overwrites entry points with x86-64 code")
    arguments = [sys.executable, "host.py", "--quick", "--against", str(BENCH.parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=BENCH)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[2]: line for line in done.stdout.splitlines() if line.startswith("SST-2 train")}
    asked = {name: {int(a) + int(b) for a, b in re.findall(r"(\d+) \+ (\d+) \+ \d+", line)} for name, line in rows.items()}
    assert asked == {"intermediate": {243}, "prediction": {239}}


@pytest.fixture
def run(cupy, bench, monkeypatch, tmp_path):
    """run(options…): the exit status of gpu.py in this process, without PyTorch, and the report that it leaves."""

    def command(*options):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *TINY, "--torch-device", "none", "--out", str(tmp_path), *options])
        return bench("gpu").main(), json.loads((tmp_path / "gpu-quick.json").read_text())

    return command


def test_what_is_measured_stays_where_a_case_fails(run, bench, monkeypatch, tmp_path, capsys):
    """In the file while the next case runs; and where that fails, the one after it is measured all the same."""
    gpu, seen = bench("gpu"), []
    case = gpu.GpuBench.case

    def second_fails(self, name, *arguments):
        seen.append(json.loads((tmp_path / "gpu-quick.json").read_text()))
        if len(seen) == 2:
            raise MemoryError("none left")
        return case(self, name, *arguments)

    monkeypatch.setattr(gpu.GpuBench, "case", second_fails)
    status, report = run()
    assert [len(before["rows"]) for before in seen] == [0, 3, 3] and [len(before["to come"]) for before in seen] == [3, 2, 1]
    (failed,) = report["failed"].items()
    assert status == 1 and failed == (seen[1]["to come"][0], "MemoryError: none left") and failed[0] in capsys.readouterr().err
    assert [row["case"] for row in report["rows"][::3]] == [seen[0]["to come"][0], seen[0]["to come"][2]]


def test_the_page_has_every_figure(run, bench, monkeypatch, tmp_path, capsys):
    _, report = run("--cases", "full", "dev")
    row = report["rows"][-1]
    row |= {
        "torch": "eager, CUDA graphs",
        "torch_ms": {"median": 12.25, "min": 11.5, "max": 13.0},
        "ratio": {"median": 0.5, "min": 0.25, "max": 0.75},
    }
    row |= {"host_ms": {"median": 1.0, "min": 0.5, "max": 2.0}, "ours_ms": {"median": 10.0, "min": 9.0, "max": 11.0}, "launches_ms": 2.0}
    row |= {"roofline_ms": 7.5, "products_ms": 3.0, "cores_ms": 4.0, "memory_ms": 0.5}
    (tmp_path / "more.json").write_text(json.dumps({**report, "failed": {"32×128": "MemoryError: none left"}, "to come": ["dev"]}))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--markdown", str(tmp_path / "gpu-quick.json"), str(tmp_path / "more.json")])
    assert bench("gpu").main() == 0
    printed = capsys.readouterr().out
    assert printed.count(f"## {report['machine']['device']}: float32") == 2 and printed.count("| teacher |") == 4
    cells = [
        "10.00 (9.00 – 11.00)",
        "eager, CUDA graphs",
        "12.25 (11.50 – 13.00)",
        "0.50 (0.25 – 0.75)",
        "7.50",
        "2.00",
        "1.00 (0.50 – 2.00)",
    ]
    assert f"| step | {' | '.join(cells)} | arithmetic on CUDA cores (roofline), 75% |" in printed
    assert "32×128 failed: MemoryError" in printed and "Not measured: dev" in printed


def test_a_page_of_something_else_is_one_clear_line(bench, monkeypatch, tmp_path, capsys):
    for name, text in (("step.json", '{"bench": "step"}'), ("text", "no JSON"), ("absent", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--markdown", str(tmp_path / name)])
        assert bench("gpu").main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(tmp_path / name) in line and "gpu.py" in line


@pytest.mark.parametrize("faster", ["products", "cores"])
def test_attention_is_held_against_cuda_cores(bench, faster):
    """Tensor cores make the products' floor lower, and nothing else's; quicker CUDA cores that of attention, and not the products'."""
    roofline = bench("roofline")
    kernels, peaks = list(roofline.student(STUDENT, TEACHER, 32, 4096, 32 * 128**2, 4)), roofline.Peaks(1e10, 1e10, 1e14, 1e-6)
    before, after = roofline.floors(kernels, peaks), roofline.floors(kernels, peaks._replace(**{faster: 1e11}))
    assert after[f"{faster}_ms"] == pytest.approx(before[f"{faster}_ms"] / 10)
    assert after["roofline_ms"] == pytest.approx(before["roofline_ms"] - 0.9 * before[f"{faster}_ms"])
    attention = 3 * STUDENT.num_hidden_layers * 4 * 32 * 128**2 * STUDENT.hidden_size
    assert attention < before["cores_ms"] * 1e-3 * 1e10 < 1.1 * attention


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
