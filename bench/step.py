"""A distillation step and its parts, beside PyTorch: the teacher's forward pass, the student's step, both together.

    python bench/step.py                                       lengths drawn with SST-2's means
    python bench/step.py --data DIR --tokenizer DIR            SST-2's own lengths
    python bench/step.py --quick                               whether it runs

The step: every loss of the paper (embedding, hidden, attention, prediction), the student's dropout on, its gradient clipped, Adam. Ours is
packed, as training does it. PyTorch has the same losses; first both are shown to agree, without dropout, in every loss and in the gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from common import begin, measure, paired, parser, ratio_bars, save, spread, summary, table, write
from sides import SIDES, Side, beside, peaks
from torch_twin import Rectangle, TorchStep, adam, rectangle
from workload import (
    LEARNING_RATE,
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

from minitinybert.engine.batch import Batch
from minitinybert.engine.device import to_host
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.progress import log
from minitinybert.training.optim import Adam
from minitinybert.training.teacher import Running

PARTS = ("teacher", "student", "step")
CASES = ("full", "dev", "train")
Job = Callable[[int], object]
Jobs = dict[str, dict[str, Job]]


def main() -> None:
    p = step_parser(__doc__)
    p.add_argument("--pad", type=int, default=64, help="the length that the released code pads SST-2 to")
    args = parsed(p)
    about = begin(args)
    about["gemm"] = peaks(args)
    teacher, student = models(args)
    with Workers(args.threads) as workers:
        fused, optimisers = best_adam(student, teacher, args.pairs, workers)
        bench = Bench(teacher, student, workers, args, {"fused": fused})
        agreement = bench.check()
        print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}; milliseconds a batch of {args.batch_size}")
        rows: list[dict] = []
        report = {"machine": about, "teacher": shape(args.teacher, teacher), "student": shape(args.student, student)}
        report |= {"agreement": agreement, "adam_ms": optimisers, "torch_compile": bench.compile_says, "rows": rows}
        for case in cases(args, teacher):
            new = [{**row, "floor_ms": row["flops"] / about["gemm"]["ours"]["gflops"] / 1e6} for row in bench.case(*case)]
            _print(new)
            rows += new
            write("step", args, report)  # a stop loses the case that is measured
    bars = {f"{row['case']}\n{row['part']} / {row['torch']}": row["ratio"] for row in rows}
    title = f"One distillation step, {args.threads} threads\n{about['processor']}"
    draw = lambda figure: ratio_bars(figure, bars, title, "time of ours / time of PyTorch (median, smallest and largest of pairs)")
    save("step", args, report, draw, size=(9, 1.5 + 0.42 * len(bars)))


def step_parser(doc: str | None) -> argparse.ArgumentParser:
    """With the options of every bench of a step."""
    p = parser(doc)
    model_options(p)
    data_options(p)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--length", type=int, default=128, help="of the case without short sentences")
    p.add_argument("--batches", type=int, default=3, help="batches in a measurement, where lengths differ")
    p.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="full: all of --length; dev, train: SST-2's lengths")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile too, where shapes are fixed (unless --quick)")
    return p


def parsed(p: argparse.ArgumentParser) -> argparse.Namespace:
    args = p.parse_args()
    if args.compile is None:
        args.compile = not args.quick
    if args.quick:
        args.batches = 1
    return args


def cases(args: argparse.Namespace, teacher: Bert) -> list[tuple[str, Sentences, list[np.ndarray]]]:
    """(name, sentences, the batches of one measurement)."""
    size, listed = args.batch_size, []
    if "full" in args.cases:
        listed.append((f"{size}×{args.length}", full(args.length, size, teacher.config, args.seed), [np.arange(size)]))
    for split, mean in (("dev", 25), ("train", 13)):
        if split not in args.cases:
            continue
        sentences = sst2(args, split, mean, 50 * size, teacher)
        batches = sorted_batches(sentences, size, args.batches, args.seed)
        tokens = sum(int(sentences.lengths[batch].sum()) for batch in batches) / len(batches)
        listed.append((f"{sentences.source}: {tokens:.0f} tokens", sentences, batches))
    return listed


class Bench:
    """Ours beside PyTorch. torch_options: further arguments of TorchStep."""

    compiled = {"compiled": "default"}  # what a way is called with torch.compile, and its mode
    sides: Mapping[str, Side] = SIDES
    compiled_side = '"medium"'
    in_parts: Sequence[str] | None = ("eager", "dynamic, sorted")  # the ways of which the parts are measured too: ours' own batches

    def __init__(self, teacher: Bert, student: Bert, workers: Workers, args: argparse.Namespace, torch_options: Mapping[str, Any]):
        self.teacher, self.student, self.workers, self.args, self.torch_options = teacher, student, workers, args, torch_options
        self.on_host = teacher, student
        self.objective = All(student.config, teacher.config)
        self.compile_says: dict[str, str] = {}  # by way, where it was asked for

    def check(self, tolerance: float = 1e-4) -> dict[str, float]:
        """Relative difference of each loss and of the whole gradient, without dropout; SystemExit above the tolerance (the gradient: ten
        times that)."""
        teacher, student = self.on_host
        sentences = sst2(self.args, "dev", 25, 64, teacher)
        indices = np.arange(min(8, self.args.batch_size))
        ours = OurStep(without_dropout(self.student), self.objective, self.workers, Running(self.teacher), self.args.seed).learner
        losses, gradients = ours.gradients(sentences.examples.batch(indices), 0)
        twin = TorchStep(self._extended(without_dropout(student)), teacher, **self.torch_options)
        batch = rectangle(sentences.examples, indices).to(twin.device)
        theirs = twin.gradients(batch, twin.ask_teacher(batch))
        differences = {name: abs(float(losses[name]) / float(theirs[name].detach()) - 1) for name in losses}
        g = [(to_host(gradients[name]), p.grad.cpu().numpy()) for name, p in twin.student.p.items() if p.grad is not None]
        square = lambda a: float(np.vdot(a, a).real)
        differences["gradient"] = (sum(square(a - b) for a, b in g) / sum(square(b) for _, b in g)) ** 0.5
        bad = {name: value for name, value in differences.items() if not value <= tolerance * (10 if name == "gradient" else 1)}
        if bad:
            raise SystemExit(f"ours and PyTorch do not compute the same: relative differences {bad}")
        said = ", ".join(f"{name} {value:.0e}" for name, value in differences.items())
        print("same work: relative differences to PyTorch", said, flush=True)
        return differences

    def case(self, name: str, sentences: Sentences, batches: list[np.ndarray]) -> list[dict]:
        """Rows of the table: each part against each way that PyTorch can be given these sentences."""
        log(f"step: {name}")
        packed = [self.place(sentences.examples.batch(indices)) for indices in batches]
        ways = self.rectangles(sentences, batches)
        jobs: Jobs = {"ours": self._ours(packed)}
        for way, rectangles in ways.items():
            whole = self.in_parts is None or way in self.in_parts  # else the step alone, and in float32 alone
            for label, side in self.sides.items():
                if whole or side.dtype == torch.float32:
                    made = self._torch(rectangles, side=side)
                    jobs[beside(way, label)] = made if whole else {"step": made["step"]}
            if self.args.compile and whole and way == next(iter(ways)):  # of fixed shape
                jobs |= self._compiled(way, rectangles)
        rows = []
        for part in PARTS:
            seconds = measure({who: parts[part] for who, parts in jobs.items() if part in parts}, self.args.pairs)
            ms = {who: summary(1000 * s / len(batches) for s in values) for who, values in seconds.items()}
            about = {"case": name, "part": part, "ours_ms": ms["ours"], **self.work(part, packed)}
            for way in list(seconds)[1:]:
                rows.append({**about, "torch": way, "torch_ms": ms[way], "ratio": paired(seconds["ours"], seconds[way])})
            if not ways:
                rows.append({**about, "torch": None})
        return rows

    def place(self, batch: Batch) -> Batch:
        """A batch of ours where our model is."""
        return batch

    def wait(self) -> None:
        """For whatever the measured calls have asked a device for."""

    def work(self, part: str, batches: list[Batch]) -> dict[str, Any]:
        """What a part, which has been measured, has to do at least for one of these batches, in the mean."""
        tokens, pairs = (sum(batch.totals[i] for batch in batches) / len(batches) for i in (1, 2))
        learned = step_flops(self.student.config, self.teacher.config, tokens, pairs)
        asked = forward_flops(self.teacher.config, tokens, pairs)
        flops = {"teacher": asked, "student": learned, "step": asked + learned}
        return {"tokens": tokens, "flops": flops[part]}

    def rectangles(self, sentences: Sentences, batches: list[np.ndarray]) -> dict[str, list[Rectangle]]:
        """PyTorch's batches: those of fixed shape first."""
        make = lambda parts, length=None: [rectangle(sentences.examples, indices, length) for indices in parts]
        if len(set(sentences.lengths)) == 1:
            return {"eager": make(batches)}
        at_random = random_batches(sentences, len(batches[0]), len(batches), self.args.seed)
        return {f"pad {self.args.pad}": make(at_random, self.args.pad), "dynamic": make(at_random), "dynamic, sorted": make(batches)}

    def _ours(self, batches: list[Batch]) -> dict[str, Job]:
        known = KnownTraces(self.teacher, self.objective.teacher_view, batches, self.workers.threads)
        alone = OurStep(self.student, self.objective, self.workers, known, self.args.seed)
        whole = OurStep(self.student, self.objective, self.workers, Running(self.teacher), self.args.seed)
        return {
            "teacher": self._each(whole.ask_teacher, batches),
            "student": self._each(alone, batches),
            "step": self._each(whole, batches),
        }

    def _torch(self, batches: Sequence[Rectangle], compiled: str | None = None, side: Side = SIDES["default"]) -> dict[str, Job]:
        teacher, student = self.on_host
        few_bits = {} if side.dtype == torch.float32 else {"teacher_dtype": side.dtype, "products": side.dtype}
        step = TorchStep(self._extended(student), teacher, compiled=compiled, **{**self.torch_options, **few_bits})
        known = [step.ask_teacher(batch).clone() for batch in batches]
        ask = lambda batch: (step.begin(), step.ask_teacher(batch))
        learn = lambda pair: (step.begin(), step.learn(*pair))
        parts = {
            "teacher": self._each(ask, batches),
            "student": self._each(learn, list(zip(batches, known, strict=True))),
            "step": self._each(step, batches),
        }
        return {part: side.on(job) for part, job in parts.items()}

    def _compiled(self, way: str, batches: Sequence[Rectangle]) -> Jobs:
        """torch.compile of the teacher's pass and of the student's losses, in each mode that works on this machine."""
        torch._dynamo.reset()
        jobs: Jobs = {}
        for name, mode in self.compiled.items():
            try:
                parts = self._torch(batches, mode, self.sides[self.compiled_side])
                for part in [*parts.values()] * 3:  # CUDA graphs: one to warm up, one to record
                    part(-1)
            except Exception as error:  # a missing compiler, an unsupported Python, … : whatever it is, it is said and left out
                said = next(iter(str(error).strip().splitlines()), "")[:200]
                self.compile_says[name] = f"does not work here: {type(error).__name__}: {said}"
                log(f"torch.compile, mode {mode}, {self.compile_says[name]}")
            else:
                self.compile_says.setdefault(name, "works")
                jobs[f"{way}, {name}"] = parts
        return jobs

    def _extended(self, student: Bert) -> Bert:
        """With the maps of its losses, as a learner has it."""
        return OurStep(student, self.objective, self.workers, seed=self.args.seed).learner.student

    def _each(self, function: Callable, items: Sequence) -> Job:
        def run(_: int) -> None:
            for item in items:
                function(item)
            self.wait()

        return run


# ---------------------------------------------------------------------------------------------------------------------- fairness


def best_adam(student: Bert, teacher: Bert, rounds: int, workers: Workers) -> tuple[bool, dict[str, float]]:
    """Whether PyTorch's fused Adam is quicker here than its default, and the milliseconds of each, and of ours."""
    ours, gradients = Adam(student.parameters.astype(np.float32), workers=workers), student.parameters.zeros_like()
    gradients.flat[:] = 1e-3
    seconds: dict[str, Job] = {"ours": lambda _: ours.step(gradients, LEARNING_RATE)}
    for name, fused in (("default", False), ("fused", True)):
        twin = TorchStep(student, teacher, terms=("prediction",)).student
        optimiser = adam(twin, fused)
        for p in twin.p.values():
            p.grad = torch.full_like(p, 1e-3)
        seconds[name] = lambda _, optimiser=optimiser: optimiser.step()
    ms = {name: 1000 * summary(s)["median"] for name, s in measure(seconds, rounds).items()}
    print("Adam, clipping and all of ours: " + ", ".join(f"{name} {value:.1f} ms" for name, value in ms.items()), flush=True)
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
