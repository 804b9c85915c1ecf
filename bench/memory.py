"""Peak memory of whole distillation steps against batch and length, ours and PyTorch's, each case in a process of its own.

    python bench/memory.py
    python bench/memory.py --cases 8x128 32x128

Counted: the most that was resident during three steps (teacher, student, Adam), less what was resident with both models loaded:
gradients, moments, activations and workspace. Dropout on, every sentence of full length. The last column is what a steady step of ours
allocates anew (tracemalloc's peak in a fourth step), whatever is kept from step to step left out.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import begin, paired, parser, save, spread, summary, table
from torch_twin import TorchStep, rectangle
from workload import All, OurStep, full, model_options, models, shape

from minitinybert.engine.parallel import Workers
from minitinybert.machine import select
from minitinybert.progress import log
from minitinybert.training.teacher import Running

CASES = ["8x128", "16x128", "32x128", "32x64", "32x32", "32x16"]
STEPS = 3


def main() -> None:
    args = _arguments()
    if args.child:
        print(json.dumps(child(args)))
        return
    about = begin(args)
    teacher, student = models(args)
    rows = [case(text, args) for text in args.cases]
    held = student.num_parameters * 4 / 1e6
    print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}: gradient, m and v are {held:.0f} MB each")
    lines = [
        [row["case"], f"{row['ours_mb']['median']:.0f}", f"{row['torch_mb']['median']:.0f}", f"{row['ratio']['median']:.2f}"]
        + [spread(row["ratio"]), f"{row['new_in_a_step_mb']:.0f}"]
        for row in rows
    ]
    table(lines, ["batch × length", "ours MB", "PyTorch MB", "ours / PyTorch", "pairs", "new in a step of ours MB"])
    report = {"machine": about, "teacher": shape(args.teacher, teacher), "student": shape(args.student, student), "rows": rows}
    save("memory", args, report, lambda figure: _draw(figure, rows, args.threads))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__, pairs=3)
    model_options(p)
    p.add_argument("--cases", nargs="+", default=CASES, metavar="BATCHxLENGTH")
    p.add_argument("--child", choices=("ours", "torch"), help=argparse.SUPPRESS)
    args = p.parse_args()
    for text in args.cases:
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
            p.error(f"--cases {text}: write it as 32x128")
    if args.quick:
        args.pairs, args.cases = 1, args.cases[:1]
    return args


def case(text: str, args: argparse.Namespace) -> dict[str, Any]:
    measured: dict[str, list[dict[str, float]]] = {"ours": [], "torch": []}
    for pair in range(args.pairs):
        for who in measured:
            log(f"memory: {text}, {who}, {pair + 1} of {args.pairs}")
            measured[who].append(_in_a_process(who, text, args))
    ours, other = ([m["peak_mb"] for m in values] for values in measured.values())
    new = max(m["new_in_a_step_mb"] for m in measured["ours"])
    return {"case": text, "ours_mb": summary(ours), "torch_mb": summary(other), "ratio": paired(ours, other), "new_in_a_step_mb": new}


def _in_a_process(who: str, text: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", who, "--cases", text, "--teacher", args.teacher, "--student", args.student]
    command += ["--threads", str(args.threads), "--seed", str(args.seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(args: argparse.Namespace) -> dict[str, float]:
    """One case in this process: {"peak_mb", and for ours "new_in_a_step_mb"}."""
    import torch

    select("cpu")  # numba's passes, as every command has them
    torch.set_num_threads(args.threads)
    teacher, student = models(args)
    B, L = map(int, args.cases[0].split("x"))
    sentences = full(L, B, teacher.config, args.seed)
    objective = All(student.config, teacher.config)
    if args.child == "torch":
        # Its copies are made before: it starts with its models, as ours does. No pool is opened: malloc stays as PyTorch has it.
        theirs = TorchStep(OurStep(student, objective, Workers(args.threads)).learner.student, teacher)
        padded = rectangle(sentences.examples, np.arange(B))
        del student
        return {"peak_mb": peak_of_steps(lambda: theirs(padded))}
    teacher = teacher.for_reading()  # as it is loaded for distillation
    pupil = [student]
    del student  # a learner's copy takes its place
    with Workers(args.threads) as workers:
        batch = sentences.examples.batch(np.arange(B))
        made: list[OurStep] = []

        def step() -> None:
            if pupil:  # in the first step, so that gradients and moments are counted
                made.append(OurStep(pupil.pop(), objective, workers, Running(teacher), args.seed))
            made[0](batch)

        peak = peak_of_steps(step)
        tracemalloc.start()
        step()
        return {"peak_mb": peak, "new_in_a_step_mb": tracemalloc.get_traced_memory()[1] / 1e6}


def peak_of_steps(step: Callable[[], object]) -> float:
    """MB that are resident at most during some steps, above what is resident before."""
    before = _settle()
    for _ in range(STEPS):
        step()
    return (_peak() - before) / 1e6


def _settle() -> int:
    """Bytes resident now, freed memory given back to the system and the system's peak set back to now."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        log("the peak cannot be set back here: what came before the steps may hide some of it")
    return _status("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    """A field of Linux's /proc/self/status in bytes; 0 elsewhere."""
    if not os.path.exists("/proc/self/status"):
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _draw(figure: plt.Figure, rows: list[dict[str, Any]], threads: int) -> None:
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    for shift, who, label in ((-0.2, "ours_mb", "ours"), (0.2, "torch_mb", "PyTorch")):
        axes.bar(places + shift, [row[who]["median"] for row in rows], 0.38, label=label)
    axes.set_xticks(places, [row["case"].replace("x", "×") for row in rows])
    axes.set(xlabel="batch × length", ylabel="MB above the models")
    axes.set_title(f"Peak memory of a whole distillation step, {threads} threads", fontsize=10)
    axes.legend()


if __name__ == "__main__":
    main()
