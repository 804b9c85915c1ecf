"""Several ranks on this machine learn what one process does; where one fails, all end, and a checkpoint is left."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from augmentation.test_files import mlm, outcome, vectors, write  # noqa: F401  (fixtures among them)
from commands.test_cli_method import world  # noqa: F401  (a fixture)

from minitinybert import extras
from minitinybert.audit import assert_close, compare
from minitinybert.augmentation import files
from minitinybert.augmentation.files import augment
from minitinybert.commands.cli import main
from minitinybert.data.glue import TASKS
from minitinybert.engine import ranks
from minitinybert.engine.parallel import Workers
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert

from .ranks_job import MUTANTS, OBJECTIVES, gradients

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
SHAPE = "1L-8D-2H-16F"
ASK_MPI = """
from minitinybert import errors
from minitinybert.engine import ranks
try:
    ranks.load_mpi()
except errors.InputError as absent:
    print(absent)
"""  # in a process of its own, for MPI would begin in this one


@pytest.fixture(scope="module")
def mpiexec(tmp_path_factory):
    """mpiexec(n, commands, trouble) -> what came of it."""
    if absent := subprocess.run([sys.executable, "-c", ASK_MPI], capture_output=True, text=True, check=True).stdout.strip():
        pytest.skip(absent)
    if MPIEXEC is None:
        pytest.skip("no mpiexec here: pip install mpich")

    def run(n, commands=(), **job):
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
        "mlm": ("pretrain", "--model", "2L-16D-2H-32F", "--train-vocabulary", 80, *text, "--epochs", 0.6, *short, "--keep-state"),
        "teacher": ("finetune", "--model", out / "mlm", *task, "--epochs", 20, *short),
        "tuned": ("finetune", "--model", out / "mlm", *task, "--epochs", 1, *short, "--batch-size", 3, "--save-every", 9),
        "general": ("distill", "general", "--teacher", out / "mlm", "--student", SHAPE, *text, "--epochs", 0.4, *short),
        "data": ("augment", "--mlm", out / "mlm", "--vectors", world / "glove.txt", *task, "--copies", 1, "--provenance"),
        "student": (
            "distill", "task", "--teacher", out / "teacher", "--student", SHAPE, *task,
            "--intermediate-epochs", 1.5, "--epochs", 0.5, *short, "--keep-state",
        ),
    }  # fmt: skip
    for name, arguments in listed.items():
        assert main([str(a) for a in (*arguments, "--out", out / name)]) == 0, name
    return out, listed


@pytest.fixture(scope="module")
def undisturbed(mpiexec, commands, tmp_path_factory):
    """What two ranks make of "tuned", in 40 steps."""
    out = tmp_path_factory.mktemp("two") / "whole"
    done = mpiexec(2, [(*commands[1]["tuned"], "--out", out)])
    assert done.returncode == 0, done.stderr
    return out


def assert_same_run(out, other):
    """To the bit; the losses are sums that a checkpoint may have cut in two."""
    assert (out / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert losses(out) == [pytest.approx(row, rel=1e-6) for row in losses(other)]


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["losses"] for row in rows if "losses" in row]


@pytest.mark.parametrize("n", [2, 4])
def test_the_gradients_of_ranks_are_those_of_one_process(mpiexec, tmp_path, n):
    """To the rounding of sums in another order, on every rank the same bits; a mean in the sum's place, or a rank left out, is far off."""
    done = mpiexec(n, gradients=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = [np.load(tmp_path / f"{rank}.npz") for rank in range(n)]
    assert all((others[name] == found[0][name]).all() for others in found for name in found[0])
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-14)):
        alone = gradients(ranks.ALONE, np.dtype(dtype))
        for name in OBJECTIVES:
            for step, expected in enumerate(alone[name]):
                errors = [compare(name, found[0][f"{mutant} {dtype} {name}"][step], expected) for mutant in MUTANTS]
                assert errors[0].error <= tolerance, (dtype, step, str(errors[0]))
                assert all(0.05 < wrong.error < 10 for wrong in errors[1:]), (dtype, step, errors)


@pytest.mark.parametrize("n", [2, 4])
def test_ranks_learn_what_one_process_does(mpiexec, commands, tmp_path, n):
    """Batches of three sentences on four ranks are among them. Adam magnifies what rounding leaves of small gradients and does not see
    their scale: how the gradients add up is shown above, here that nothing else differs."""
    one, listed = commands
    names = [name for name in listed if name != "teacher"]
    done = mpiexec(n, [(*listed[name], "--out", tmp_path / name) for name in names])
    assert done.returncode == 0, done.stderr
    for name in ("mlm", "tuned", "general", "student", "student/intermediate"):
        assert losses(one / name) and losses(tmp_path / name) == [pytest.approx(row, rel=1e-5) for row in losses(one / name)], name
        here, there = Bert.load(one / name).parameters, Bert.load(tmp_path / name).parameters
        for tensor in here:
            if "key.bias" not in tensor:  # its gradient is zero by mathematics; Adam magnifies what rounding leaves of it
                assert_close(tensor, there[tensor], here[tensor], 1e-3, 0.1)
    shards = (f"mlm/checkpoint/corpus/{name}.npy" for name in ("shard-00000.tokens", "sentences"))
    for file in (*shards, "data/train.tsv", "data/provenance.jsonl"):
        assert (one / file).read_bytes() == (tmp_path / file).read_bytes(), file
    assert done.stderr.count("finetune sst-2: step 40/40") == 1 and done.stdout.count("model:") <= len(names)  # one rank speaks


def test_one_rank_asked_to_stop_stops_all_and_the_run_goes_on_to_the_same_bits(mpiexec, commands, undisturbed, tmp_path):
    tuned = (*commands[1]["tuned"], "--out", tmp_path / "out")
    done = mpiexec(2, [tuned], trouble=("stop", 13, 1))
    assert done.returncode not in (0, None) and done.stderr.count("stopped after step 13; the same command with --resume") == 1, done.stderr
    done = mpiexec(2, [(*tuned, "--resume")])
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "out", undisturbed)


TOLD = {
    "exception": re.escape("minitinybert: rank 1 of 2 failed (RuntimeError: out of luck); --resume goes on from the last checkpoint"),
    "kill": r"(?i)signal:? 9\b",  # by mpiexec: nobody can say anything after SIGKILL
}


@pytest.mark.parametrize("kind", ["exception", "kill"])
def test_a_rank_that_dies_ends_the_job_and_the_run_goes_on_from_its_checkpoint(mpiexec, commands, undisturbed, tmp_path, kind):
    """The checkpoint is of step 9."""
    tuned, checkpoint = (*commands[1]["tuned"], "--out", tmp_path / "out"), tmp_path / "out" / "checkpoint" / "last.safetensors"
    done = mpiexec(2, [tuned], trouble=(kind, 13, 1))
    assert time.time() - checkpoint.stat().st_mtime < 20  # nobody waits for the dead
    assert done.returncode != 0
    assert [len(re.findall(line, done.stderr + done.stdout)) > 0 for line in TOLD.values()] == [name == kind for name in TOLD], done
    done = mpiexec(2, [(*tuned, "--resume")], trouble=("exception", 40 - 9 + 1, 0))  # begun anew, it would come that far
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "out", undisturbed)


def test_what_is_wrong_with_all_is_said_once(mpiexec, tmp_path):
    done = mpiexec(2, [("evaluate", "--model", tmp_path / "none", "--task", "sst-2", "--data", tmp_path)])
    assert done.returncode != 0 and done.stderr.count("minitinybert: ") == 1, done.stderr
    done = mpiexec(2, [("audit",)])
    assert "audit is not a command for mpiexec" in done.stderr


def test_without_cupy_ranks_say_what_one_process_says(mpiexec, monkeypatch, capsys, tmp_path):
    command = ["evaluate", "--model", str(tmp_path), "--task", "sst-2", "--data", str(tmp_path), "--device", "cuda"]
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(command) == 2
    line = capsys.readouterr().err
    assert re.search("cupy.* (is not installed|cannot be imported)", line, re.IGNORECASE)
    done = mpiexec(2, [command], without=["cupy"])
    assert done.returncode == 2 and done.stderr.count(line) == 1, done


LAUNCHED = {  # what the launcher tells -> whether it is a job of several
    "mpiexec": ({"PMI_SIZE": "2"}, True),
    "mpirun": ({"OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1"}, True),
    "srun by PMIx": ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "2"}, True),
    "PMIx, which does not tell": ({"PMIX_RANK": "0"}, True),
    "mpirun under srun": ({"OMPI_COMM_WORLD_SIZE": "2", "PMI_SIZE": "1"}, True),
    "one of mpiexec": ({"PMI_SIZE": "1"}, False),
    "one of mpirun": ({"OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"}, False),
    "one of srun by PMIx": ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1"}, False),
    "nobody": ({"SLURM_STEP_NUM_TASKS": "2"}, False),
}


@pytest.mark.parametrize("told, several", LAUNCHED.values(), ids=LAUNCHED)
def test_without_mpi4py_it_says_what_to_install_unless_there_is_one_rank(monkeypatch, told, several):
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    if several:
        with pytest.raises(InputError, match=r"pip install 'minitinybert\[mpi\]'"):
            ranks.started()
    else:
        assert ranks.started() is ranks.ALONE


def test_without_an_mpi_library_one_line_says_so(tmp_path):
    """mpi4py is there, and the library under it is not: which of the launcher's ranks this is, nobody can tell."""
    pytest.importorskip("mpi4py", reason=extras.hint("mpi4py"))
    environment = {**os.environ, "MPI4PY_LIBMPI": str(tmp_path / "none"), "PMI_SIZE": "2"}
    command = [sys.executable, "-m", "minitinybert", "evaluate", "--model", tmp_path, "--task", "sst-2", "--data", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert re.match(r"minitinybert: mpi4py finds no MPI library \(.*none: cannot open.*\); pip install mpich, or ", done.stderr), done


def gpus(*places):
    """As ranks tell them: "a0" is GPU 0 of machine a, "a0-" one without NCCL."""
    return [ranks.Gpu("pip …" if place.endswith("-") else "", place[0], f"0000:0{place[1]}:00.0") for place in places]


@pytest.mark.parametrize(
    "places, why",
    [
        (["a0"], ""),
        (["a0", "a1", "b0", "b1"], ""),  # Slurm shows each rank but its own GPU, which then is number 0 for all
        (["a0", "a0"], "ranks 0 and 1 share GPU 0000:00:00.0 of a"),  # two GPUs there, and --device cuda:0 for both
        (["a0", "b1", "a1", "b1"], "ranks 1 and 3 share GPU 0000:01:00.0 of b"),
        (["a0", "b0-"], "rank 1 on b has no NCCL (pip …)"),
    ],
)
def test_nccl_is_used_where_all_have_it_and_a_gpu_of_their_own(places, why):
    assert ranks.nccl_is_out(gpus(*places)) == why


class OnDevice:
    """As much of a CuPy array as the ranks' sum looks at."""

    def __init__(self, values):
        self.values = np.array(values)

    def get(self):
        return self.values.copy()

    def set(self, host):
        self.values[...] = host


@pytest.fixture
def two_ranks(monkeypatch):
    """two_ranks(places) -> the second of two ranks on those GPUs, with nothing of CUDA or MPI behind it: the other adds 10, by NCCL 100."""

    class Nccl:
        def all_reduce(self, flat, out):
            out.values += 100

    def second(*places):
        told, comm = gpus(*places), SimpleNamespace(Allreduce=lambda _, host: np.add(host, 10, out=host), allgather=lambda own: told)
        own = SimpleNamespace(getDevice=lambda: 0, deviceGetPCIBusId=lambda device: told[1].bus, getDeviceCount=lambda: 3)
        cuda = SimpleNamespace(nccl=SimpleNamespace(available=not told[1].missing), runtime=own)
        modules = {"cupy": SimpleNamespace(cuda=cuda), "cupy.cuda": cuda, "cupyx": SimpleNamespace()}
        modules["cupyx.distributed"] = SimpleNamespace(init_process_group=lambda size, rank, use_mpi: Nccl())
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        rank = object.__new__(ranks.MpiRanks)
        rank.__dict__.update(comm=comm, rank=1, size=2, place=4, local=5, _in_place=None, _nccl=None)
        return rank

    return second


def test_device_arrays_add_up_by_nccl_or_else_by_way_of_the_host_which_is_said_once(two_ranks, capsys):
    for places, added, said in ((("a0", "a1"), 100, 0), (("a0", "a0"), 10, 1)):
        rank, flat = two_ranks(*places), OnDevice([1.0, 2.0])
        for _ in range(2):
            rank.add_up(flat)
        assert (flat.values == np.array([1.0, 2.0]) + 2 * added).all()
        assert capsys.readouterr().err.count("by way of the host, which is slow: ranks 0 and 1 share GPU") == said


def test_the_ranks_of_a_machine_take_its_devices_in_turn(two_ranks, monkeypatch):
    rank = two_ranks("a0", "a1")
    assert [rank.device(name) for name in ("cuda", "cuda:2", "cpu")] == ["cuda:1", "cuda:2", "cpu"]
    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", lambda: 0)
    assert rank.device("cuda") == "cuda"


class Thread(ranks.Ranks):
    """One of several ranks in this process; `told` is theirs together."""

    def __init__(self, rank, told, barrier):
        self.rank, self.size, self.local, self.told, self.barrier = rank, len(told), len(told), told, barrier

    def gather(self, value):
        self.told[self.rank] = value
        self.wait()
        answers = list(self.told)
        self.wait()
        return answers

    def wait(self):
        self.barrier.wait(60)


@pytest.mark.parametrize("size", [2, 3])
def test_one_rank_reads_the_vectors_and_all_augment_to_the_same_bytes(mlm, vectors, tmp_path, monkeypatch, size):  # noqa: F811
    read, load = [], files.load_vectors
    monkeypatch.setattr(files, "load_vectors", lambda *arguments: read.append(arguments) or load(*arguments))
    monkeypatch.setattr(files, "_EXAMPLES", 2)  # four shards
    task, data = TASKS["sts-b"], write(tmp_path / "data", "sts-b", 7)
    told, barrier = [None] * size, threading.Barrier(size)

    def run(name, ours=ranks.ALONE):
        return augment(mlm, vectors, task, data, tmp_path / name, copies=3, provenance=True, workers=1, ranks=ours)

    def work(rank):
        try:
            return run("several", Thread(rank, told, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        summaries = list(pool.map(work, range(size)))
    assert len(read) == 1 and all(summary == summaries[0] for summary in summaries)
    assert {**run("one"), "train": summaries[0]["train"]} == summaries[0] and summaries[0]["glove"] > 0
    assert outcome(tmp_path / "several") == outcome(tmp_path / "one")


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
