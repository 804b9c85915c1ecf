"""Loaders take a file or end in one line, whatever its bytes: some hundred mutants of each, the same at every run."""

import signal
import subprocess
import sys

import pytest

pytest.importorskip("resource")

from minitinybert.errors import InputError

from . import campaign
from .campaign import Bench, Worker, good
from .loaders import LOADERS, Loader

COUNT = 300  # `python -m tests.faults.campaign` tries more


@pytest.fixture(scope="module")
def worker():
    made = Worker()
    yield made
    made.close()


@pytest.mark.parametrize("name", LOADERS)
def test_a_mutant_works_or_is_refused_in_one_line(worker, name):
    count = COUNT // LOADERS[name].cost
    ends = dict(worker.judge(name, 0, 0, count))
    assert len(ends) == count
    assert not {number: verdict for number, verdict in ends.items() if not good(verdict)}


# ------------------------------------------------------------------------------------------------- what would see a fault


def ends(monkeypatch, directory, use):
    """What is said of a loader that does `use` with each mutant; the good file it takes."""
    monkeypatch.setattr(campaign, "SECONDS", 0.2)
    before = signal.signal(signal.SIGPROF, campaign._too_slow)
    try:
        made = Loader(
            lambda place: (place / "a").write_bytes(b"good"), {"a": "bytes"}, lambda d: (d / "a").read_bytes() == b"good" or use(d)
        )
        monkeypatch.setitem(LOADERS, "made", made)
        bench = Bench("made", directory / "made")
        return {bench.verdict(0, number) for number in range(5)} - {"works"}
    finally:
        signal.signal(signal.SIGPROF, before)


def raising(error):
    def use(directory):
        raise error

    return use


def for_ever(directory):
    while True:
        pass


def swallowing(directory):
    try:
        for_ever(directory)
    except Exception:
        raise InputError("damaged") from None


class Empty(InputError):
    def __str__(self):
        return "two\nlines"


@pytest.mark.parametrize(
    ("use", "end"),
    [
        (raising(InputError("a\nb")), "refused"),
        (raising(KeyError("x")), "KeyError at"),
        (raising(MemoryError()), "MemoryError at"),
        (raising(SystemExit(2)), "SystemExit at"),
        (raising(Empty()), "a line that is none: 'two"),
        (raising(InputError("")), "a line that is none: ''"),
        (for_ever, "slow at"),
        (swallowing, "slow at"),
    ],
)
def test_each_end_is_told(monkeypatch, tmp_path, use, end):
    told = ends(monkeypatch, tmp_path, use)
    assert told and all(verdict.startswith(end) for verdict in told)
    assert all(good(verdict) for verdict in told) == (end == "refused")


def test_a_process_that_dies_is_told_and_the_next_goes_on(monkeypatch, tmp_path):
    """Of a worker that ends itself at number 2."""
    script = (
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    for number in range(*json.loads(line)[2:]):\n"
        "        number == 2 and os.kill(os.getpid(), 11)\n"
        "        print(json.dumps([number, 'works']), flush=True)\n"
    )
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: real([sys.executable, "-c", script], **more))
    worker = Worker()
    said = dict(worker.judge("any", 0, 0, 5))
    worker.close()
    assert {number for number, verdict in said.items() if verdict == "works"} == {0, 1, 3, 4}
    assert said[2].startswith("the process died (status -11)")


def test_a_mutant_is_a_function_of_seed_loader_and_number(tmp_path):
    one, other = (Bench("recipe", tmp_path / name) for name in "ab")
    made = [one.mutant(0, number) for number in range(50)]
    assert made == [other.mutant(0, number) for number in range(50)] != [one.mutant(1, number) for number in range(50)]
    assert len({data for _, data in made}) > 40
