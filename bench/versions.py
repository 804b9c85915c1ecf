"""A step's parts on a CPU: with numba's passes, without them, and in another checkout, interleaved.

    python bench/versions.py                            numba's passes beside the plain formulas
    python bench/versions.py --against DIR              and beside what stands in DIR, at any commit
    python bench/versions.py --data DIR --tokenizer DIR    SST-2's own lengths

Each version is a process that stays; all measure the same batches, one after the other, in both
orders. The parts and the cases are step.py's: the teacher's forward pass, the student's step with
the teacher's answers given, the whole step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1]


class Version:
    """A process in which one version measures what it is told to."""

    def __init__(self, checkout: Path, numba: bool, arguments: list[str]):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "MINITINYBERT_NUMBA": "1" if numba else "0", "MINITINYBERT_QUIET": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(checkout), *arguments]
        self.process = subprocess.Popen(command, env=environment, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cases = json.loads(self._answer())

    def seconds(self, case: str, part: str) -> float:
        assert self.process.stdin is not None
        print(json.dumps([case, part]), file=self.process.stdin, flush=True)
        return json.loads(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[2:4]} ended with status {self.process.wait()}")  # type: ignore[index]
        return line


def serve(checkout: Path, arguments: list[str]) -> None:
    """Answers [case, part] with the seconds of one measurement, by the checkout's own bench/step.py."""
    answers, sys.stdout = sys.stdout, sys.stderr
    sys.path.insert(0, str(checkout / "bench"))
    sys.argv = [sys.argv[0], *arguments]
    import time

    import step
    from workload import models

    try:
        from minitinybert.machine import select
    except ImportError:  # a checkout that has none
        pass
    else:
        select("cpu")
    args = step.parsed(step.step_parser("serves"))
    teacher, student = models(args)
    with step.Workers(args.threads) as workers:
        bench = step.Bench(teacher, student, workers, args, {})
        known = {name: (sentences, batches) for name, sentences, batches in step.cases(args, teacher)}
        print(json.dumps(list(known)), file=answers, flush=True)
        jobs: dict[str, Any] = {}
        for line in sys.stdin:
            case, part = json.loads(line)
            if case not in jobs:
                sentences, batches = known[case]
                jobs = {case: bench._ours([bench.place(sentences.examples.batch(indices)) for indices in batches])}
                for each in step.PARTS:
                    jobs[case][each](-1)
            started = time.perf_counter()
            jobs[case][part](0)
            print(json.dumps((time.perf_counter() - started) / len(known[case][1])), file=answers, flush=True)


def main() -> None:
    from common import begin, paired, save, spread, summary, table
    from step import PARTS, parsed, step_parser

    p = step_parser(__doc__)
    p.add_argument("--against", type=Path, metavar="DIR", help="another checkout of minitinybert")
    args = parsed(p)
    about = begin(args)
    names = ["batch_size", "length", "batches", "threads", "seed", "teacher", "student", "data", "tokenizer"]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    paths = {name: str(Path(value).resolve()) for name, value in given.items() if Path(str(value)).is_dir()}
    arguments = [text for name, value in {**given, **paths}.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    arguments += ["--quick"] if args.quick else []
    versions = {"numba": Version(HERE, True, arguments), "plain": Version(HERE, False, arguments)}
    if args.against:
        versions["against"] = Version(args.against.resolve(), False, arguments)
    rows = []
    for case in versions["numba"].cases:  # all of step.py's: another checkout may not know how to choose
        for part in PARTS:
            seconds: dict[str, list[float]] = {name: [] for name in versions}
            for pair in range(args.pairs):
                for name in list(versions)[:: 1 if pair % 2 else -1]:
                    seconds[name].append(versions[name].seconds(case, part))
            first = list(versions)[-1]  # what all others are held against
            ratios = {name: paired(seconds[name], seconds[first]) for name in versions if name != first}
            ms = {name: 1000 * summary(values)["median"] for name, values in seconds.items()}
            rows.append({"case": case, "part": part, "ms": ms, "beside": first, "ratios": ratios})
            print(case, part, {name: f"{ratio['median']:.2f} ({spread(ratio)})" for name, ratio in ratios.items()}, flush=True)
    heads = ["", "", *(f"{name}, ms" for name in versions), *(f"{name} / {first}" for name in rows[0]["ratios"])]
    cells = lambda row: [f"{r['median']:.2f} ({spread(r)})" for r in row["ratios"].values()]
    table([[row["case"], row["part"], *(f"{value:.1f}" for value in row["ms"].values()), *cells(row)] for row in rows], heads)
    save("versions", args, {"machine": about, "rows": rows}, lambda figure: _draw(figure, rows, about), (9, 5))


def _draw(figure: Any, rows: list[dict], about: dict) -> None:
    axes = figure.subplots()
    names, places = list(rows[0]["ratios"]), np.arange(len(rows))
    for i, name in enumerate(names):
        medians = [row["ratios"][name]["median"] for row in rows]
        axes.bar(places + (i - (len(names) - 1) / 2) * 0.35, medians, 0.33, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(places, [f"{row['case']}\n{row['part']}" for row in rows], rotation=60, ha="right", fontsize=7)
    axes.set_ylabel(f"time / {rows[0]['beside']}")
    axes.set_title(f"Versions\n{about['processor']}", fontsize=9)
    axes.legend()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
