"""Several ranks on this machine learn what one process does; where one fails, all end, and a checkpoint is left."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli_method import world  # noqa: F401  (a fixture)

from minitinybert import ranks
from minitinybert.audit import assert_close
from minitinybert.bert import Bert
from minitinybert.cli import main
from minitinybert.errors import InputError
from minitinybert.parallel import Workers

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
SHAPE = "1L-8D-2H-16F"


@pytest.fixture(scope="module")
def mpiexec(tmp_path_factory):
    """mpiexec(n, commands, trouble) -> what came of it."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install 'minitinybert[mpi]'", exc_type=ImportError)
    if MPIEXEC is None:
        pytest.skip("no mpiexec here: pip install mpich")

    def run(n, commands, **job):
        path = tmp_path_factory.mktemp("job") / "job.json"
        path.write_text(json.dumps({"commands": [[str(a) for a in command] for command in commands], **job}))
        arguments = [MPIEXEC, "-n", str(n), sys.executable, Path(__file__).with_name("ranks_job.py"), path]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture(scope="module")
def commands(world, tmp_path_factory):  # noqa: F811
    """The training commands, done by one process in the folder that is returned: name -> arguments but for --out."""
    out = tmp_path_factory.mktemp("one")
    task, text = ("--task", "sst-2", "--data", world), ("--corpus", world / "corpus.txt", "--max-length", 32)
    short = ("--batch-size", 16, "--log-every", 2, "--lr", 3e-3, "--threads", 1)
    listed = {
        "mlm": ("pretrain", "--model", "2L-16D-2H-32F", "--train-vocabulary", 80, *text, "--epochs", 0.6, *short),
        "teacher": ("finetune", "--model", out / "mlm", *task, "--epochs", 20, *short),
        "tuned": ("finetune", "--model", out / "mlm", *task, "--epochs", 1, *short, "--batch-size", 3, "--save-every", 9),
        "general": ("distill", "general", "--teacher", out / "mlm", "--student", SHAPE, *text, "--epochs", 0.4, *short),
        "data": ("augment", "--mlm", out / "mlm", "--vectors", world / "glove.txt", *task, "--copies", 1, "--provenance"),
        "student": (
            "distill", "task", "--teacher", out / "teacher", "--student", SHAPE, *task,
            "--intermediate-epochs", 1.5, "--epochs", 0.5, *short,
        ),
    }  # fmt: skip
    for name, arguments in listed.items():
        assert main([str(a) for a in (*arguments, "--out", out / name)]) == 0, name
    return out, listed


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["losses"] for row in rows if "losses" in row]


@pytest.mark.parametrize("n", [2, 4])
def test_ranks_learn_what_one_process_does(mpiexec, commands, tmp_path, n):
    """Batches of three sentences on four ranks are among them."""
    one, listed = commands
    names = [name for name in listed if name != "teacher"]
    done = mpiexec(n, [(*listed[name], "--out", tmp_path / name) for name in names])
    assert done.returncode == 0, done.stderr
    for name in ("mlm", "tuned", "general", "student", "student/intermediate"):
        assert losses(one / name) and losses(tmp_path / name) == [pytest.approx(row, rel=1e-3) for row in losses(one / name)], name
        here, there = Bert.load(one / name).parameters, Bert.load(tmp_path / name).parameters
        for tensor in here:
            if "key.bias" not in tensor:  # its gradient is zero by mathematics; Adam magnifies what rounding leaves of it
                assert_close(tensor, there[tensor], here[tensor], 2e-2, 0.1)
    for file in ("mlm/corpus/shard-00000.tokens.npy", "mlm/corpus/sentences.npy", "data/train.tsv", "data/provenance.jsonl"):
        assert (one / file).read_bytes() == (tmp_path / file).read_bytes(), file
    assert done.stderr.count("finetune sst-2: step 40/40") == 1 and done.stdout.count("model:") <= len(names)  # one rank speaks


def test_one_rank_asked_to_stop_stops_all_and_the_run_goes_on_to_the_same_bits(mpiexec, commands, tmp_path):
    _, listed = commands
    tuned = lambda name, *more: (*listed["tuned"], "--out", tmp_path / name, *more)
    done = mpiexec(2, [tuned("parts")], trouble=("stop", 13, 1))
    assert done.returncode not in (0, None) and done.stderr.count("stopped after step 13; the same command with --resume") == 1, done.stderr
    done = mpiexec(2, [tuned("parts", "--resume"), tuned("whole")])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert losses(tmp_path / "parts") == [pytest.approx(row, rel=1e-6) for row in losses(tmp_path / "whole")]


@pytest.mark.parametrize("kind", ["exception", "kill"])
def test_a_rank_that_dies_ends_the_job_and_leaves_a_checkpoint(mpiexec, commands, tmp_path, kind):
    _, listed = commands
    tuned = (*listed["tuned"], "--out", tmp_path / "out")
    done = mpiexec(2, [tuned], trouble=(kind, 13, 1))
    assert done.returncode != 0
    line = "minitinybert: rank 1 of 2 failed (RuntimeError: out of luck); --resume goes on from the last checkpoint"
    assert done.stderr.count(line) == (kind == "exception"), done.stderr
    assert (tmp_path / "out" / "checkpoint" / "last.safetensors").exists()
    assert main([str(a) for a in (*tuned, "--resume")]) == 0


def test_what_is_wrong_with_all_is_said_once(mpiexec, tmp_path):
    done = mpiexec(2, [("evaluate", "--model", tmp_path / "none", "--task", "sst-2", "--data", tmp_path)])
    assert done.returncode != 0 and done.stderr.count("minitinybert: ") == 1, done.stderr
    done = mpiexec(2, [("audit",)])
    assert "audit is not a command for mpiexec" in done.stderr


def test_without_mpi4py_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(InputError, match=r"pip install 'minitinybert\[mpi\]'"):
        ranks.started()


@pytest.mark.parametrize("items", [0, 1, 5, 8])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_items_are_mapped_over_ranks_in_their_order(items, size):
    class Rank(ranks.Ranks):
        def __init__(self, rank):
            self.rank, self.size = rank, size

        def gather(self, value):
            return [value] if size == 1 else [[i * i for i in range(items)[r::size]] for r in range(size)]

    for rank in range(size):
        with Workers(1, Rank(rank)) as workers:
            assert workers.map_over_ranks(lambda i: i * i, range(items)) == [i * i for i in range(items)]


def test_one_process_alone_waits_for_nobody():
    flat = np.arange(3.0)
    ranks.ALONE.add_up(flat)
    assert ranks.started() is ranks.ALONE and ranks.ALONE.gather(7) == [7] and (flat == np.arange(3)).all()
