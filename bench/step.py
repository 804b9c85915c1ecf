"""A distillation step and its parts, beside PyTorch: the teacher's forward pass, the student's step, both together.

    python bench/step.py                                       lengths drawn with SST-2's means
    python bench/step.py --data DIR --tokenizer DIR            SST-2's own lengths
    python bench/step.py --quick                               whether it runs

The step: every loss of the paper (embedding, hidden, attention, prediction), the student's dropout on, its gradient clipped, Adam. Ours is
packed, as training does it. PyTorch has the same losses; first both are shown to agree, without dropout, in every loss and in the gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from common import begin, gemm_peaks, measure, paired, parser, ratio_bars, save, spread, summary, table
from torch_twin import Rectangle, TorchStep, adam, rectangle
from workload import (
    All,
    KnownTraces,
    OurStep,
    Sentences,
    data_options,
    forward_flops,
    full,
    model_options,
    models,
    random_batches,
    shape,
    sorted_batches,
    sst2,
    step_flops,
    without_dropout,
)

from minitinybert.bert import Bert
from minitinybert.parallel import Workers
from minitinybert.progress import log

PARTS = ("teacher", "student", "step")
Jobs = dict[str, dict[str, Callable[[int], object]]]


def main() -> None:
    args = _arguments()
    about = begin(args)
    peaks = gemm_peaks(args)
    print(f"GEMM peak (float32): NumPy {peaks['numpy']:.0f} GFLOP/s, PyTorch {peaks['torch']:.0f}")
    teacher, student = models(args)
    with Workers(args.threads) as workers:
        agreement = check(teacher, student, workers, args)
        fused, optimisers = best_adam(student, teacher, args.pairs)
        bench = Bench(teacher, student, workers, args, fused)
        print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}; milliseconds a batch of {args.batch_size}")
        rows: list[dict] = []
        for case in cases(args, teacher):
            new = [{**row, "floor_ms": row["flops"] / peaks["numpy"] / 1e6} for row in bench.case(*case)]
            _print(new)
            rows += new
    report = {"machine": about, "gemm_gflops": peaks, "teacher": shape(args.teacher, teacher), "student": shape(args.student, student)}
    report |= {"agreement": agreement, "torch_adam_ms": optimisers, "torch_compile": bench.compile_says, "rows": rows}
    bars = {f"{row['case']}\n{row['part']} / {row['torch']}": row["ratio"] for row in rows}
    title = f"One distillation step, {args.threads} threads\n{about['processor']}"
    draw = lambda figure: ratio_bars(figure, bars, title, "time of ours / time of PyTorch (median, smallest and largest of pairs)")
    save("step", args, report, draw, size=(9, 1.5 + 0.42 * len(bars)))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__)
    model_options(p)
    data_options(p)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--length", type=int, default=128, help="of the case without short sentences")
    p.add_argument("--batches", type=int, default=3, help="batches in a measurement, where lengths differ")
    p.add_argument("--pad", type=int, default=64, help="the length that the released code pads SST-2 to")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile too, where shapes are fixed (unless --quick)")
    args = p.parse_args()
    if args.compile is None:
        args.compile = not args.quick
    if args.quick:
        args.batches = 1
    return args


def cases(args: argparse.Namespace, teacher: Bert) -> list[tuple[str, Sentences, list[np.ndarray]]]:
    """(name, sentences, the batches of one measurement)."""
    size = args.batch_size
    long = full(args.length, size, teacher.config, args.seed)
    listed = [(f"{size}×{args.length}", long, [np.arange(size)])]
    for split, mean in (("dev", 25), ("train", 13)):
        sentences = sst2(args, split, mean, 50 * size, teacher)
        batches = sorted_batches(sentences, size, args.batches, args.seed)
        tokens = sum(int(sentences.lengths[batch].sum()) for batch in batches) / len(batches)
        listed.append((f"{sentences.source}: {tokens:.0f} tokens", sentences, batches))
    return listed


class Bench:
    def __init__(self, teacher: Bert, student: Bert, workers: Workers, args: argparse.Namespace, fused: bool):
        self.teacher, self.student, self.workers, self.args, self.fused = teacher, student, workers, args, fused
        self.objective = All(student.config, teacher.config)
        self.compile_says = "not asked for"

    def case(self, name: str, sentences: Sentences, batches: list[np.ndarray]) -> list[dict]:
        """Rows of the table: each part against each way that PyTorch can be given these sentences."""
        log(f"step: {name}")
        packed = [sentences.examples.batch(indices) for indices in batches]
        ways = self._rectangles(sentences, batches)
        jobs: Jobs = {"ours": self._ours(packed)}
        jobs |= {way: self._torch(rectangles) for way, rectangles in ways.items()}
        if self.args.compile:
            jobs |= self._compiled(next(iter(ways)), next(iter(ways.values())))
        tokens, pairs = (sum(batch.totals[i] for batch in packed) for i in (1, 2))
        learned = step_flops(self.student.config, self.teacher.config, tokens, pairs)
        asked = forward_flops(self.teacher.config, tokens, pairs)
        flops = {"teacher": asked, "student": learned, "step": asked + learned}
        rows = []
        for part in PARTS:
            seconds = measure({who: parts[part] for who, parts in jobs.items()}, self.args.pairs)
            ms = {who: summary(1000 * s / len(batches) for s in values) for who, values in seconds.items()}
            for way in list(jobs)[1:]:
                row = {"case": name, "part": part, "torch": way, "tokens": tokens / len(batches), "flops": flops[part] / len(batches)}
                rows.append({**row, "ours_ms": ms["ours"], "torch_ms": ms[way], "ratio": paired(seconds["ours"], seconds[way])})
        return rows

    def _rectangles(self, sentences: Sentences, batches: list[np.ndarray]) -> dict[str, list[Rectangle]]:
        """PyTorch's batches: those of fixed shape first."""
        make = lambda parts, length=None: [rectangle(sentences.examples, indices, length) for indices in parts]
        if len(set(sentences.lengths)) == 1:
            return {"eager": make(batches)}
        at_random = random_batches(sentences, len(batches[0]), len(batches), self.args.seed)
        return {f"pad {self.args.pad}": make(at_random, self.args.pad), "dynamic": make(at_random), "dynamic, sorted": make(batches)}

    def _ours(self, batches: list) -> dict[str, Callable[[int], object]]:
        known = KnownTraces(self.teacher, self.objective.teacher_view, batches, self.workers.threads)
        alone = OurStep(self.student, None, self.objective, self.workers, known, self.args.seed)
        whole = OurStep(self.student, self.teacher, self.objective, self.workers, seed=self.args.seed)
        return {"teacher": _each(whole.ask_teacher, batches), "student": _each(alone, batches), "step": _each(whole, batches)}

    def _torch(self, batches: Sequence[Rectangle], compiled: bool = False) -> dict[str, Callable[[int], object]]:
        extended = OurStep(self.student, None, self.objective, self.workers).learner.student
        step = TorchStep(extended, self.teacher, fused=self.fused, compiled=compiled)
        known = [step.ask_teacher(batch) for batch in batches]
        learn = lambda pair: step.learn(*pair)
        return {
            "teacher": _each(step.ask_teacher, batches),
            "student": _each(learn, list(zip(batches, known, strict=True))),
            "step": _each(step, batches),
        }

    def _compiled(self, way: str, batches: Sequence[Rectangle]) -> Jobs:
        """torch.compile of the teacher's pass and of the student's losses, where it works on this machine."""
        try:
            torch._dynamo.reset()
            jobs = self._torch(batches, compiled=True)
            for part in jobs.values():
                part(-1)
        except Exception as error:  # a missing compiler, an unsupported Python, … : whatever it is, it is said and left out
            self.compile_says = f"does not work here: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            log(f"torch.compile {self.compile_says}")
            return {}
        self.compile_says = "works"
        return {f"{way}, compiled": jobs}


def _each(function: Callable, items: Sequence) -> Callable[[int], object]:
    def run(_: int) -> None:
        for item in items:
            function(item)

    return run


# ---------------------------------------------------------------------------------------------------------------------- fairness


def check(teacher: Bert, student: Bert, workers: Workers, args: argparse.Namespace) -> dict[str, float]:
    """Relative difference of each loss and of the whole gradient, without dropout; SystemExit above 1e-4 (the gradient: 1e-3)."""
    sentences = sst2(args, "dev", 25, 64, teacher)
    indices = np.arange(min(8, args.batch_size))
    ours = OurStep(without_dropout(student), teacher, All(student.config, teacher.config), workers, seed=args.seed).learner
    losses, gradients = ours.gradients(sentences.examples.batch(indices), 0)
    twin = TorchStep(ours.student, teacher)
    batch = rectangle(sentences.examples, indices)
    theirs = twin.gradients(batch, twin.ask_teacher(batch))
    differences = {name: abs(float(losses[name]) / float(theirs[name].detach()) - 1) for name in losses}
    g = [(gradients[name], p.grad.numpy()) for name, p in twin.student.p.items() if p.grad is not None]
    square = lambda a: float(np.vdot(a, a).real)
    differences["gradient"] = (sum(square(a - b) for a, b in g) / sum(square(b) for _, b in g)) ** 0.5
    bad = {name: value for name, value in differences.items() if not value <= (1e-3 if name == "gradient" else 1e-4)}
    if bad:
        raise SystemExit(f"ours and PyTorch do not compute the same: relative differences {bad}")
    print("same work: relative differences to PyTorch", ", ".join(f"{name} {value:.0e}" for name, value in differences.items()), flush=True)
    return differences


def best_adam(student: Bert, teacher: Bert, rounds: int) -> tuple[bool, dict[str, float]]:
    """Whether PyTorch's fused Adam is quicker here than its default, and the milliseconds of each."""
    seconds = {}
    for name, fused in (("default", False), ("fused", True)):
        twin = TorchStep(student, teacher, terms=("prediction",)).student
        optimiser = adam(twin, fused)
        for p in twin.p.values():
            p.grad = torch.full_like(p, 1e-3)
        seconds[name] = lambda _, optimiser=optimiser: optimiser.step()
    ms = {name: 1000 * summary(s)["median"] for name, s in measure(seconds, rounds).items()}
    print("PyTorch's Adam: " + ", ".join(f"{name} {value:.1f} ms" for name, value in ms.items()), flush=True)
    return ms["fused"] < ms["default"], ms


def _print(rows: list[dict]) -> None:
    """One case's table."""
    lines, before = [], ""
    for row in rows:
        own = [row["part"], f"{row['ours_ms']['median']:.1f}", f"{row['floor_ms']:.1f}"] if row["part"] != before else [""] * 3
        before = row["part"]
        lines.append([*own, row["torch"], f"{row['torch_ms']['median']:.1f}", f"{row['ratio']['median']:.2f}", spread(row["ratio"])])
    print(f"\n{rows[0]['case']}")
    table(lines, ["", "ours", "floor", "PyTorch", "", "ours / PyTorch", "pairs"])


if __name__ == "__main__":
    main()
