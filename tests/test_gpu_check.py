"""The runner of bench/gpu_check: what a stage says and how it ended is kept, whatever ends it. (.ci/run runs the stages themselves.)"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stages are process groups")
FOLDER = Path(__file__).parent.parent / "bench" / "gpu_check"


@pytest.fixture
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", FOLDER / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(gpu_check, tmp_path):
    return gpu_check.Check(tmp_path, 60)


def python(code):
    return [sys.executable, "-u", "-c", code]


def rows(out):
    return json.loads((out / "summary.json").read_text())


def test_each_stage_has_its_row_and_its_lines(check, tmp_path):
    assert check.stage("good", python("print('so it is'); print('3 passed')"), 30) == 0
    assert check.stage("bad", python("import sys; sys.exit('because')"), 30) == 1
    assert check.stage("skipped", python("print('3 skipped')"), 30, shows="passed") == 0
    check.leave_out("other", "there is no tool")
    seen = rows(tmp_path)
    assert [(row["stage"], row["status"], row["says"]) for row in seen] == [
        ("good", "passed", "3 passed"),
        ("bad", "failed, exit status 1", "because"),
        ("skipped", "failed, nothing passed", "3 skipped"),
        ("other", "left out", "there is no tool"),
    ]
    assert check.failed() == 2 and check.table().endswith("4 stages: 2 failed, 1 left out")
    assert "s good] so it is" in (tmp_path / "log.txt").read_text() and check.said("bad").endswith("] because")


def test_a_stage_at_its_limit_is_ended_with_its_children_and_keeps_its_log(check, tmp_path):
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('child', flush=True); time.sleep(100)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started = time.monotonic()
    assert check.stage("slow", python(code), 3) is None
    assert time.monotonic() - started < 60  # the stage is not over while the child can say something
    (row,) = rows(tmp_path)
    assert row["failed"] and row["status"] == "stopped at its limit of 3 s" and row["says"] == "child"


def test_lines_are_there_while_a_stage_runs(check, tmp_path):
    go = tmp_path / "go"
    code = f"import os, time\nprint('begun')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    thread = threading.Thread(target=check.stage, args=("long", python(code), 30))
    thread.start()
    while "s long] begun" not in (tmp_path / "log.txt").read_text():
        time.sleep(0.01)
    assert [row["status"] for row in rows(tmp_path)] == ["running"]
    go.touch()
    thread.join()
    assert [row["status"] for row in rows(tmp_path)] == ["passed"]


def test_of_a_stage_that_says_much_begin_and_end_are_kept(check, gpu_check, tmp_path):
    line = "x" * 99
    check.stage("much", python(f"for i in range(10_000): print(i, {line!r})"), 60)
    log = (tmp_path / "log.txt").read_text()
    assert gpu_check.HEAD < len(log) < 2 * (gpu_check.HEAD + gpu_check.TAIL)
    assert "] 0 x" in log and "] 9999 x" in log and "] 7000 x" not in log and "lines left out]" in log


def test_without_a_device_it_stops_there(tmp_path):
    done = whole(tmp_path)
    assert done.wait() == 1
    (row,) = rows(tmp_path)
    assert row["stage"] == "versions" and row["status"] == "failed, exit status 3" and "no CUDA device" in row["says"]
    assert "1 stages: 1 failed" in (tmp_path / "table.txt").read_text()


def test_a_signal_leaves_the_table(tmp_path):
    done = whole(tmp_path)
    while not (tmp_path / "summary.json").exists() or not rows(tmp_path):
        time.sleep(0.01)
    done.send_signal(signal.SIGTERM)
    assert done.wait(60) > 1
    assert "the whole run was stopped" in (tmp_path / "table.txt").read_text()
    assert not [row for row in rows(tmp_path) if row["status"] in ("running", "passed")]


def whole(out):
    """The command where CuPy is not to be had, nor what takes long to import."""
    for name in ("cupy", "torch", "transformers"):
        (out / f"{name}.py").write_text("raise ImportError('none here')\n")
    path = os.pathsep.join([str(out), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OUT": str(out), "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, FOLDER / "gpu_check.py", "--quick"], env=environment, stdout=subprocess.DEVNULL)
