"""What mpiexec starts in test_ranks.py: commands of the command line, one after the other, and one rank that may come to grief; or
the gradients of a few steps."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from minitinybert.commands.cli import main
from minitinybert.data.masking import Masking, mask_batch
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import MaskedLM, Supervised
from minitinybert.engine import ranks
from minitinybert.engine.batch import packed
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

TEACHER = Config(
    vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_position_embeddings=16,
    initializer_range=0.1,  # teacher and student say different things: their difference is not rounding
    head="classifier",
)  # fmt: skip
STUDENT = replace(TEACHER, hidden_size=16, num_hidden_layers=1, intermediate_size=32)
OBJECTIVES = {
    "intermediate": (Intermediate(STUDENT, TEACHER), STUDENT),
    "prediction": (Prediction(), STUDENT),
    "supervised": (Supervised(), STUDENT),
    "mlm": (MaskedLM(), replace(STUDENT, head="mlm", pooler=False)),
}
MUTANTS = ("sum", "mean", "one left out")  # the first is none


def trouble(kind, at, rank):
    """On `rank` alone, in step `at`: an exception, a kill, or a polite request to stop."""
    from mpi4py import MPI

    left, own = [at], Supervised.__call__

    def call(self, *arguments):
        left[0] -= 1
        if left[0] == 0 and MPI.COMM_WORLD.rank == rank:
            if kind == "exception":
                raise RuntimeError("out of luck")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGTERM}[kind])
        return own(self, *arguments)

    Supervised.__call__ = call


def batch_of(n, seed):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(5, TEACHER.vocab_size, length).astype(np.int32) for length in rng.integers(5, 10, n)]  # two ranks have some
    batch = packed(ids, [np.zeros_like(i) for i in ids], labels=rng.integers(2, size=n))
    return mask_batch(batch, Masking(mask_id=4, vocab_size=TEACHER.vocab_size, special=(0, 1, 2, 3, 4)), seed)


def gradients(ours, dtype):
    """Objective -> the flat gradients of two steps, dropout on. The second has three sentences: of four ranks one has none."""
    found = {}
    for name, (objective, config) in OBJECTIVES.items():
        with Workers(1, ours) as workers:
            learner = Learner(Bert.new(config, 1, dtype), objective, workers, Running(Bert.new(TEACHER, 0, dtype)))
            steps = [learner.gradients(batch_of(n, n), step)[1].flat.copy() for step, n in enumerate((9, 3))]
        found[name] = np.stack(steps)
    return found


def mutate(ours, mutant):
    """The ranks' sum made wrong."""
    add_up = type(ours).add_up

    def wrong(flat):
        if mutant == "one left out" and ours.rank == 1:
            flat[...] = 0
        add_up(ours, flat)
        if mutant == "mean":
            flat /= ours.size

    ours.add_up = wrong


def write_gradients(directory):
    """A file a rank."""
    ours, found = ranks.started(), {}
    for mutant in MUTANTS:
        mutate(ours, mutant)
        for dtype in ("float32", "float64"):
            found |= {f"{mutant} {dtype} {name}": flat for name, flat in gradients(ours, np.dtype(dtype)).items()}
    np.savez(Path(directory) / f"{ours.rank}.npz", **found)


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    for module in job.get("without", ()):
        sys.modules[module] = None
    if "gradients" in job:
        write_gradients(job["gradients"])
    if "trouble" in job:
        trouble(*job["trouble"])
    for command in job.get("commands", ()):
        if status := main(command):
            sys.exit(status)
