"""What a distillation step on a GPU costs the host: Python's and CuPy's work, the device's left out.

    python bench/host.py                       CPU milliseconds a step, and what a step asks the device for
    python bench/host.py --against DIR         beside another checkout, interleaved: seven pairs
    python bench/host.py --quick               whether it runs

The step: a batch of 32 sentences on the host, checked and copied up; BERT-base's forward pass, TinyBERT4's forward and backward with
dropout, the losses, clipping and Adam. Three entry points are overwritten in memory by a counter and `return 0`: cuLaunchKernel of the
driver, cublasGemmEx and cublasSgemm of cuBLAS (and cudaMemsetAsync, where the driver's library has it). So everything that Python and
CuPy do is counted: arguments, checks, allocations from the pool, views, launches down to the driver's door, the copies up. Not counted
are what the driver and cuBLAS do behind it, and what a full queue makes the host wait. Nothing is computed: the arrays hold rubbish.
Each batch has other lengths than the one before, as in training; a batch comes back after 48 steps.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BATCHES, SENTENCES = 48, 32
CASES = {"SST-2 dev": 25.0, "SST-2 train": 13.0, "32×128": None}  # the mean length drawn, as bench/step.py has it; None: all of 128
OBJECTIVES = ("intermediate", "prediction")
KINDS = {"launches": "cuLaunchKernel", "products": "cublasGemmEx cublasSgemm_v2", "fills": "cudaMemsetAsync"}


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--against", type=Path, metavar="DIR", help="another checkout, which is `before`")
    p.add_argument("--pairs", type=int, default=7)
    p.add_argument("--steps", type=int, default=96, help="of one measurement")
    p.add_argument("--quick", action="store_true", help="one case, two pairs of three steps: whether it runs, not figures")
    p.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # one checkout's process: a case a line, its figures a line
    args = p.parse_args()
    if args.quick:
        args.pairs, args.steps = 2, 3
    cases = list(CASES)[1:2] if args.quick else list(CASES)
    if args.serve:
        serve(args.steps)
    else:
        report(args, cases)


# ---------------------------------------------------------------------------------------------------------------------- one checkout


def serve(steps: int) -> None:
    counts = stub()
    jobs: dict[str, Job] = {}
    for line in sys.stdin:
        case, objective = json.loads(line)
        if line not in jobs:
            jobs.clear()
            jobs[line] = Job(CASES[case], objective, steps)
        print(json.dumps(jobs[line].measure(counts, steps)), flush=True)


class Job:
    """The steps of one case, their batches on the host."""

    def __init__(self, mean: float | None, objective: str, steps: int):
        from minitinybert import machine
        from minitinybert.distillation.distill import Intermediate, Prediction
        from minitinybert.engine.batch import packed
        from minitinybert.engine.parallel import Workers
        from minitinybert.model.bert import Bert, layout
        from minitinybert.model.config import Config
        from minitinybert.model.parameters import Parameters
        from minitinybert.training.optim import Adam
        from minitinybert.training.shares import Learner
        from minitinybert.training.teacher import Running

        cupy = machine.select("cuda")  # and its kernels
        rng = np.random.default_rng(0)
        dropped = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        teacher = Config(head="classifier", **dropped)
        student = Config(hidden_size=312, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1200, head="classifier", **dropped)
        on_device = lambda config: Bert(config, Parameters.zeros(layout(config), np.float32, cupy))
        made = Prediction() if objective == "prediction" else Intermediate(student, teacher)
        workers = Workers(1).__enter__()  # for as long as the process lives
        self.learner = Learner(on_device(student), made, workers, Running(on_device(teacher)))
        self.adam = Adam(self.learner.student.parameters)
        self.batches = []
        for lengths in _lengths(mean, rng):
            ids = [rng.integers(1000, 30000, n).astype(np.int32) for n in lengths]
            self.batches.append(packed(ids, [0 * i for i in ids], None, np.zeros(SENTENCES, int)))
        self.number = 0
        self._run(min(steps, BATCHES))  # compiles

    def _run(self, steps: int) -> None:
        for _ in range(steps):
            _, gradients = self.learner.gradients(self.batches[self.number % BATCHES], self.number)
            self.adam.step(gradients, 5e-5)
            self.number += 1

    def measure(self, counts, steps: int) -> dict[str, float]:
        before, started = list(counts), time.process_time()
        self._run(steps)
        seconds = time.process_time() - started
        return {"ms": 1e3 * seconds / steps, **{kind: (counts[i] - before[i]) / steps for i, kind in enumerate(KINDS)}}


def _lengths(mean: float | None, rng: np.random.Generator) -> np.ndarray:
    """(batches, sentences): of about equal lengths in a batch, as an epoch's batches are."""
    if mean is None:
        return np.full((BATCHES, SENTENCES), 128)
    drawn = np.minimum(3 + rng.gamma(1.7, (mean - 3) / 1.7, BATCHES * SENTENCES), 64).round().astype(int)
    return rng.permutation(np.sort(drawn).reshape(BATCHES, SENTENCES))


def stub():
    """Overwrites the entry points; an array with as many calls as there were of each of KINDS."""
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux":
        sys.exit("bench/host.py: the device's entry points are overwritten with x86-64 code, on Linux alone")
    import cupy

    if not cupy.cuda.is_available():
        sys.exit("bench/host.py: CuPy finds no CUDA device")
    a = cupy.ones((2, 2), np.float32)
    a @ a  # loads cuBLAS
    libc = ctypes.CDLL(None, use_errno=True)
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libcu" in line}
    libraries = [ctypes.CDLL(path) for path in sorted(loaded) if Path(path).name.startswith(("libcuda.so", "libcublas.so"))]
    counts, found = (ctypes.c_uint64 * len(KINDS))(), set()
    for i, names in enumerate(KINDS.values()):
        for name in names.split():
            for library in libraries:
                if not hasattr(library, name):
                    continue
                # mov rax, counter; inc qword [rax]; xor eax, eax; ret
                code = b"\x48\xb8" + struct.pack("<Q", ctypes.addressof(counts) + 8 * i) + b"\x48\xff\x00\x31\xc0\xc3"
                at = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
                page = at & -os.sysconf("SC_PAGESIZE")
                if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(at + len(code) - page), 7):
                    sys.exit(f"bench/host.py: the system does not let {name} be overwritten: {os.strerror(ctypes.get_errno())}")
                ctypes.memmove(at, code, len(code))
                found.add(name)
    missing = {"cuLaunchKernel", "cublasGemmEx"} - found
    if missing:
        sys.exit(f"bench/host.py: {', '.join(sorted(missing))} not found in {', '.join(sorted(loaded))}")
    return counts


# ---------------------------------------------------------------------------------------------------------------------- both, interleaved


def report(args: argparse.Namespace, cases: list[str]) -> None:
    from tabulate import tabulate

    own = Path(__file__).resolve()
    checkouts = {"now": own.parents[1]} | ({"before": args.against.resolve()} if args.against else {})
    servers = {name: _start(root, own, args) for name, root in checkouts.items()}
    rows = []
    for case in cases:
        for objective in OBJECTIVES:
            said: dict[str, list[dict]] = {name: [] for name in servers}
            for number in range(args.pairs):
                for name in list(servers)[:: 1 if number % 2 else -1]:
                    said[name].append(_ask(servers[name], case, objective))
            rows.append([case, objective])
            for name in reversed(servers):
                rows[-1] += [_spread([s["ms"] for s in said[name]], 2), " + ".join(f"{said[name][0][kind]:.0f}" for kind in KINDS)]
            if args.against:
                rows[-1].append(_spread([n["ms"] / b["ms"] for n, b in zip(said["now"], said["before"], strict=True)], 2))
    headers = ["", ""]
    for name in reversed(servers):
        headers += [f"{name}, CPU ms a step", " + ".join(KINDS)]
    print(f"Python {platform.python_version()}; {args.pairs} rounds of {args.steps} steps: the median, the smallest and the largest")
    print(tabulate(rows, headers=[*headers, "now / before"][: len(rows[0])], disable_numparse=True))
    for server in servers.values():
        server.stdin.close()
        server.wait()


def _start(root: Path, own: Path, args: argparse.Namespace) -> subprocess.Popen:
    """A checkout's process: its own bench/host.py where it has one, else this file on its package."""
    theirs = root / "bench" / own.name
    command = [sys.executable, str(theirs if theirs.exists() else own), "--serve", "--steps", str(args.steps)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(server: subprocess.Popen, case: str, objective: str) -> dict[str, float]:
    assert server.stdin and server.stdout
    server.stdin.write(json.dumps([case, objective]) + "\n")
    server.stdin.flush()
    line = server.stdout.readline()
    if not line:
        sys.exit(f"bench/host.py: the process of {server.args} ended; what it said stands above")  # type: ignore[str-bytes-safe]
    return json.loads(line)


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} – {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
