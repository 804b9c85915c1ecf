"""How time and memory of ours grow: a distillation step with its tokens, layers, vocabulary and threads, and reading a file with its rows.

    python bench/growth.py

Each case is a process of its own, all cases once a round. A step is a whole one (teacher, student, every loss, dropout, clipping, Adam)
on sentences of one length, so that attention's share, which grows with its square, is the same in all. `layers` are the student's and
the teacher's. `rows` are of a task's file, read, split into word pieces and encoded. Seconds are the quickest of a process after its
first; memory is the peak above what was resident before (models or tokenizer), with what the libraries set up on first use. `growth` is
b of time ~ x^b over the last doubling: 1 is linear, less is what does not grow. Threads are told by what one takes / what as many take.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import begin, parser, save, spread, summary, table
from memory import peak_of_steps
from sides import peaks
from workload import All, OurStep, full, model_options, models, own_text, shape, tokenizer_of

from minitinybert import machine
from minitinybert.commands.task_data import encode
from minitinybert.data.glue import TASKS, read_split
from minitinybert.engine.parallel import Workers, available_cores
from minitinybert.model.bert import Bert
from minitinybert.progress import log
from minitinybert.training.teacher import Running

LENGTH, TOKENS = 32, 2048
CASES = {
    "tokens": [1024, 2048, 4096, 8192],
    "layers": [1, 2, 4, 8],
    "vocabulary": [15261, 30522, 61044, 122088],
    "rows": [10000, 20000, 40000, 80000],
    "threads": [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= available_cores()],
}
QUICK = {"tokens": [64, 128], "layers": [1, 2], "vocabulary": [1000, 2000], "rows": [100, 200], "threads": [1, 2]}
FIELDS = {"layers": "num_hidden_layers", "vocabulary": "vocab_size"}  # of both models


def main() -> None:
    args = _arguments()
    if args.child:
        print(json.dumps(child(*args.child, args)))
        return
    about = begin(args)
    about["gemm"] = peaks(args)
    args.pairs = 1 if args.quick else args.pairs
    cases = {axis: (QUICK if args.quick else CASES)[axis] for axis in args.axes}
    measured: dict[tuple[str, int], list[dict[str, float]]] = {(axis, x): [] for axis, xs in cases.items() for x in xs}
    for number in range(args.pairs):
        for axis, x in list(measured)[:: 1 if number % 2 else -1]:
            log(f"growth: {axis} {x}, {number + 1} of {args.pairs}")
            measured[axis, x].append(_in_a_process(axis, x, args))
    axes = {axis: _grown(axis, xs, [measured[axis, x] for x in xs]) for axis, xs in cases.items()}
    teacher, student = models(args)
    named = {"teacher": shape(args.teacher, teacher), "student": shape(args.student, student)}
    print(f"teacher {named['teacher']}; student {named['student']}; sentences of {LENGTH}; {TOKENS} tokens where they do not grow")
    for axis, grown in axes.items():
        table(_lines(grown), [axis, "seconds", "smallest – largest", "MB", "speed-up" if axis == "threads" else "growth", "of memory"])
    save("growth", args, {"machine": about, **named, "axes": axes}, lambda figure: _draw(figure, axes, about["processor"]), size=(11, 6))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__, pairs=3)
    model_options(p)
    p.set_defaults(teacher="4L-768D-12H-3072F")  # BERT-base's width, and few layers: many cases are measured
    p.add_argument("--axes", nargs="+", default=list(CASES), choices=list(CASES), metavar="AXIS", help="which to measure")
    p.add_argument("--child", nargs=2, metavar=("AXIS", "X"), help=argparse.SUPPRESS)
    return p.parse_args()


def _in_a_process(axis: str, x: int, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", axis, str(x), "--teacher", args.teacher, "--student", args.student]
    command += ["--threads", str(x if axis == "threads" else args.threads), "--seed", str(args.seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _grown(axis: str, xs: list[int], measured: list[list[dict[str, float]]]) -> dict[str, Any]:
    """The cases of an axis; from each to the next the exponent of growth, round by round; of threads the speed-up over the first."""
    cases = []
    for i, (x, now) in enumerate(zip(xs, measured, strict=True)):
        case: dict[str, Any] = {"x": x, "seconds": summary(m["seconds"] for m in now), "mb": summary(m["mb"] for m in now)}
        if i and axis == "threads":
            case["speed_up"] = summary(a["seconds"] / b["seconds"] for a, b in zip(measured[0], now, strict=True))
        elif i:
            step = math.log(x / xs[i - 1])
            case["growth"] = {
                what: summary(math.log(max(b[what], 1e-9) / max(a[what], 1e-9)) / step for a, b in zip(measured[i - 1], now, strict=True))
                for what in ("seconds", "mb")
            }
        cases.append(case)
    return {"cases": cases}


def _lines(grown: dict[str, Any]) -> list[list[str]]:
    lines = []
    for case in grown["cases"]:
        growth = [f"{g['median']:.2f} ({spread(g)})" for g in case.get("growth", {}).values()]
        speed_up = [f"{case['speed_up']['median']:.2f} ({spread(case['speed_up'])})"] if "speed_up" in case else []
        seconds = f"{case['seconds']['min']:.3f} – {case['seconds']['max']:.3f}"
        line = [f"{case['x']:,}", f"{case['seconds']['median']:.3f}", seconds, f"{case['mb']['median']:.0f}", *growth, *speed_up]
        lines.append([*line, "", ""][:6])
    return lines


# ---------------------------------------------------------------------------------------------------------------------- a case


def child(axis: str, text: str, args: argparse.Namespace) -> dict[str, float]:
    """One case in this process: {"seconds", "mb"}."""
    machine.select("cpu")  # numba's passes, as every command has them
    x = int(text)
    return _reading(x, args) if axis == "rows" else _step(axis, x, args)


def _step(axis: str, x: int, args: argparse.Namespace) -> dict[str, float]:
    teacher, student = models(args)
    if axis in FIELDS:
        teacher, student = (Bert.new(replace(model.config, **{FIELDS[axis]: x}), args.seed) for model in (teacher, student))
    sentences = (x if axis == "tokens" else TOKENS) // LENGTH
    batch = full(LENGTH, sentences, teacher.config, args.seed).examples.batch(np.arange(sentences))
    teacher = teacher.for_reading()  # as it is loaded for distillation
    made: list[OurStep] = []
    with Workers(args.threads) as workers:

        def step() -> None:
            if not made:  # in the first step, so that gradients and moments are counted
                made.append(OurStep(student, All(student.config, teacher.config), workers, Running(teacher), args.seed))
            made[0](batch)

        return _measured(step)


def _reading(rows: int, args: argparse.Namespace) -> dict[str, float]:
    """A training file of so many sentences, as `finetune` and `distill` read it."""
    texts = own_text()
    tokenizer = tokenizer_of(texts, args.seed)
    with tempfile.TemporaryDirectory() as directory:
        lines = (f"{texts[i % len(texts)]}\t{i % 2}\n" for i in range(rows))
        with open(Path(directory) / "train.tsv", "w", encoding="utf-8", newline="\n") as file:
            file.writelines(["sentence\tlabel\n", *lines])
        return _measured(lambda: encode(read_split(TASKS["sst-2"], Path(directory), "train"), tokenizer, 128, 2))


def _measured(job: Callable[[], object]) -> dict[str, float]:
    seconds = []

    def timed() -> None:
        started = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - started)

    mb = peak_of_steps(timed)
    return {"seconds": min(seconds[1:]), "mb": mb}


# ---------------------------------------------------------------------------------------------------------------------- picture


def _draw(figure: plt.Figure, axes: dict[str, dict[str, Any]], processor: str) -> None:
    """A column an axis: time above, memory below, each with the line that is straight through its last case and the origin."""
    figure.suptitle(f"Growth of time and memory, medians with their smallest and largest\n{processor}", fontsize=10)
    plots = figure.subplots(2, len(axes), squeeze=False)
    for column, (axis, grown) in enumerate(axes.items()):
        xs = np.array([case["x"] for case in grown["cases"]])
        for row, what, label in ((0, "seconds", "seconds"), (1, "mb", "MB")):
            values = [case[what] for case in grown["cases"]]
            medians = np.array([value["median"] for value in values])
            errors = [medians - [value["min"] for value in values], [value["max"] for value in values] - medians]
            plot = plots[row, column]
            plot.errorbar(xs, medians, errors, marker="o", markersize=3, capsize=2)
            line = medians[0] * xs[0] / xs if axis == "threads" and row == 0 else medians[-1] * xs / xs[-1]
            plot.plot(xs, line, ":", color="0.5", linewidth=1, label="ideal" if axis == "threads" else "linear")
            plot.set_ylim(bottom=0)
            plot.set_xticks(xs, [f"{x:,}" for x in xs], fontsize=6, rotation=30)
            plot.tick_params(axis="y", labelsize=7)
            if axis == "threads" and row == 1:
                plot.lines[-1].remove()
            if not column:
                plot.set_ylabel(label)
        plots[1, column].set_xlabel(axis)
        plots[0, column].legend(fontsize=7)


if __name__ == "__main__":
    main()
