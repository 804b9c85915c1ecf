"""What mpiexec starts in test_ranks.py: commands of the command line, one after the other, and one rank that may come to grief."""

import json
import os
import signal
import sys
from pathlib import Path

from mpi4py import MPI

from minitinybert.cli import main
from minitinybert.objectives import Supervised


def trouble(kind, at, rank):
    """On `rank` alone, in step `at`: an exception, a kill, or a polite request to stop."""
    left, own = [at], Supervised.__call__

    def call(self, *arguments):
        left[0] -= 1
        if left[0] == 0 and MPI.COMM_WORLD.rank == rank:
            if kind == "exception":
                raise RuntimeError("out of luck")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGTERM}[kind])
        return own(self, *arguments)

    Supervised.__call__ = call


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    if "trouble" in job:
        trouble(*job["trouble"])
    for command in job["commands"]:
        if status := main(command):
            sys.exit(status)
