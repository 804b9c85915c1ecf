"""A few kills, errors and full disks at every command; the campaign by hand is of all: kills.py says how."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .commands import differences, tree

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def campaign(*arguments):
    """In a process of its own: this one may have threads, which a fork would not copy."""
    return subprocess.run([sys.executable, "-m", "tests.faults.kills", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_kills_and_errors_end_in_the_same_tree():
    done = campaign("--count", "40")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "40 faults" in done.stdout and " 0 things wrong" in done.stdout and " 0 ended" not in done.stdout


def test_full_disks_end_in_the_same_tree():
    done = campaign("--count", "10", "--only", "full-disks", "--commands", "distill-task", "pretrain")
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout.strip())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "10 faults, " in done.stdout and " 0 things wrong" in done.stdout and " 0 ended" not in done.stdout


def test_a_tree_that_differs_is_seen(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text(f'{{"step": 1, "seconds": {len(name)}}}\n')
        (tmp_path / name / "d" / "a").write_bytes(b"a")
    same, other = tree(tmp_path / "one"), tmp_path / "other"
    assert differences(same, tree(other)) == []
    (other / "d" / "a").write_bytes(b"b")
    (other / ".left").mkdir()
    (other / "metrics.jsonl").write_text('{"step": 2}\n')
    assert [line.split(":")[0] for line in differences(same, tree(other))] == [".left", "d/a", "metrics.jsonl"]
