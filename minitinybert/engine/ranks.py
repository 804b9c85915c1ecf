"""Several processes as one run, over MPI: `mpiexec -n 4 minitinybert distill general …`, on one
machine or on many that share the files.

Each rank takes its share of the same batch's sentences (training/cut.py), so the flat gradients add
up; they are summed once a step, and every rank takes the same step. Rank 0 alone writes and speaks.
A rank that fails ends the job.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from .. import extras
from ..errors import CRASHED, InputError, out_of_memory
from ..progress import log
from .device import Array, to_host

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # where mpiexec and srun write how many there are
COMMANDS = ("pretrain", "finetune", "distill", "augment", "evaluate")
T = TypeVar("T")
_PATIENCE = 1.0  # seconds that a rank leaves to rank 0 to say what is wrong with all of them


class Ranks:
    """A process alone. (MpiRanks: one of several.) local: how many ranks share this machine's cores
    and devices."""

    rank, size, local = 0, 1, 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def add_up(self, flat: Array) -> None:
        """The sum over the ranks, in place, on every rank the same bits."""

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank. Small things, on the host."""
        return [value]

    def most(self, value: int) -> int:
        """The largest of the ranks' values."""
        return value

    def wait(self) -> None:
        """Until all ranks are here."""

    def device(self, name: str) -> str:
        """`cuda` alone means the ranks of a machine take its devices in turn."""
        return name


ALONE = Ranks()


class MpiRanks(Ranks):
    def __init__(self, comm: Any):
        from mpi4py import MPI

        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.place, self.local = machine.rank, machine.size
        self._in_place, self._largest = MPI.IN_PLACE, MPI.MAX
        self._nccl: Any = None  # False: it cannot be used

    def add_up(self, flat: Array) -> None:
        if hasattr(flat, "get"):
            self._add_up_on_device(flat)
        else:
            self.comm.Allreduce(self._in_place, flat)

    def _add_up_on_device(self, flat: Array) -> None:
        """By NCCL, from device to device; where it cannot be used, by way of the host."""
        if self._nccl is None:
            self._nccl = self._start_nccl()
        if self._nccl:
            self._nccl.all_reduce(flat, flat)
            return
        host = to_host(flat)
        self.comm.Allreduce(self._in_place, host)
        flat.set(host)

    def _start_nccl(self) -> Any:
        import cupy
        from cupy.cuda import nccl

        runtime = cupy.cuda.runtime
        missing = "" if nccl.available else extras.hint("nccl")
        gpus = self.gather(Gpu(missing, platform.node(), runtime.deviceGetPCIBusId(runtime.getDevice())))
        if why := nccl_is_out(gpus):
            log(f"warning: the ranks' gradients are summed by way of the host, which is slow: {why}")
            return False
        from cupyx.distributed import init_process_group

        return init_process_group(self.size, self.rank, use_mpi=True)

    def gather(self, value: Any) -> list[Any]:
        return self.comm.allgather(value)

    def most(self, value: int) -> int:
        return self.comm.allreduce(value, self._largest)

    def wait(self) -> None:
        self.comm.Barrier()

    def device(self, name: str) -> str:
        if name != "cuda":
            return name
        try:
            import cupy

            devices = cupy.cuda.runtime.getDeviceCount()
        except (ImportError, RuntimeError):  # machine.select says what is missing. Asking it here would leave a context on device 0
            return name
        return f"cuda:{self.place % devices}" if devices else name


class Gpu(NamedTuple):
    """What a rank tells the others of its device before they choose how to add up."""

    missing: str  # what would bring NCCL; empty where it is there
    machine: str
    bus: str  # on PCI: devices are told apart by this, as NCCL does; numbers are not the same for all where each rank sees but its own


def nccl_is_out(gpus: Sequence[Gpu]) -> str:
    """Why the ranks of these devices cannot use NCCL: all must have it, and each a device of its
    own. Empty where they can."""
    holders: dict[tuple[str, str], int] = {}
    for rank, gpu in enumerate(gpus):
        if gpu.missing:
            return f"rank {rank} on {gpu.machine} has no NCCL ({gpu.missing})"
        other = holders.setdefault((gpu.machine, gpu.bus), rank)
        if other != rank:
            return f"ranks {other} and {rank} share GPU {gpu.bus} of {gpu.machine}"
    return ""


def started() -> Ranks:
    """The ranks of this job: ALONE without mpiexec, or as its only one. InputError where MPI is not
    there."""
    if _told_sizes() <= {"1"}:
        return ALONE
    world = load_mpi().COMM_WORLD
    return MpiRanks(world) if world.size > 1 else ALONE


def load_mpi() -> Any:
    """mpi4py's module MPI, which its import initialises. InputError where it or the MPI library
    under it is not there."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the second is how mpi4py's wheels say that no MPI library is there
        if getattr(error, "name", None) == "mpi4py":
            raise InputError(f"mpi4py, which several ranks need, is not installed; {extras.hint('mpi4py')}") from None
        why = str(error).splitlines()[-1]  # the last that it tried
        raise InputError(f"mpi4py finds no MPI library ({why}); pip install mpich, or name one in MPI4PY_LIBMPI") from None
    return MPI


def _told_sizes() -> set[str]:
    """How many ranks the launchers say there are; none without one, two answers where srun starts
    an mpiexec."""
    told = {os.environ[name] for name in _SIZES if name in os.environ}
    if not told and "PMIX_RANK" in os.environ:  # PMIx leaves the size out; Slurm, which may start by it, says it elsewhere
        told.add(os.environ.get("SLURM_STEP_NUM_TASKS", "unknown"))
    return told


def run(command: str, work: Callable[[Ranks], T]) -> T:
    """`work` on this rank; what fails on one rank ends all of them, for they would wait for it for
    ever."""
    ranks = started()
    if ranks.size == 1:
        return work(ranks)
    if not ranks.first:
        os.environ["MINITINYBERT_QUIET"] = "1"
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (to the end of the process)
    try:
        if command not in COMMANDS:
            raise InputError(f"{command} is not a command for mpiexec; {', '.join(COMMANDS)} are")
        return work(ranks)
    except InputError as error:
        _end(ranks, str(error), 2)
    except MemoryError as error:
        _end(ranks, f"rank {ranks.rank} of {ranks.size}: {out_of_memory(error)}", 2)
    except Exception as error:
        what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        _end(ranks, f"rank {ranks.rank} of {ranks.size} failed ({what}); --resume goes on from the last checkpoint", CRASHED)
    raise SystemExit(CRASHED)  # where the job does not end at once


def _end(ranks: Any, line: str, status: int) -> None:
    if not ranks.first:
        time.sleep(_PATIENCE)  # what fails on every rank is said by rank 0
    print(f"minitinybert: {line}", file=sys.stderr, flush=True)
    ranks.comm.Abort(status)
