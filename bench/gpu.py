"""A distillation step on a GPU and its parts, beside PyTorch on the same GPU, and beside what arithmetic, memory and launches allow.

    python bench/gpu.py                                        lengths drawn with SST-2's means
    python bench/gpu.py --data DIR --tokenizer DIR             SST-2's own lengths
    python bench/gpu.py --tf32 --teacher-dtype float16         as `minitinybert distill` has them
    python bench/gpu.py --cases full --no-compile              one case; what compiles takes minutes
    python bench/gpu.py --quick                                whether it runs
    python bench/gpu.py --markdown FILE.json ... > gpu.md      a page of what such runs have left; needs no GPU

The step is step.py's, its batches lie on the GPU beforehand. Sentences of several lengths come in batches of about equal ones, which ours
packs and PyTorch pads to the longest. Results are written after each case.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import begin, measure, save, spread, summary, table, write
from gpu_page import NotAReport, held_by, page, peaks_said
from roofline import Peaks, floors
from roofline import student as student_work
from roofline import teacher as teacher_work
from sides import Side
from step import PARTS, Bench, Job, cases, parsed, step_parser
from torch_twin import Rectangle, rectangle
from workload import Sentences, models, shape

from minitinybert import machine
from minitinybert.engine.batch import Batch
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}  # of the losses, beside PyTorch's


def main() -> int:
    args = _arguments()
    if args.markdown:
        try:
            print(page(args.markdown), end="")
        except NotAReport as error:
            print(f"gpu.py: {error}", file=sys.stderr)
            return 2
        return 0
    about = begin(args)
    if args.tf32:
        machine.allow_tf32(args.device)
        torch.backends.cuda.matmul.allow_tf32 = True
    xp = machine.select(args.device)
    about |= _device(xp, args)
    print(f"{about['device']}, CuPy {xp.__version__}; PyTorch: {about['torch_device'] or 'not asked, it has no CUDA device here'}")
    teacher, student = models(args)
    peaks = device_peaks(xp, args)
    print(f"peaks: {peaks_said(peaks)}", flush=True)
    with Workers(1) as workers:
        bench = GpuBench(teacher, student, workers, args, xp, peaks)
        agreement = bench.check(TOLERANCE["tf32" if args.tf32 and args.teacher_dtype == "float32" else args.teacher_dtype])
        print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}; milliseconds a batch of {args.batch_size}")
        rows: list[dict] = []
        failed: dict[str, str] = {}
        report = {"machine": about, "peaks": peaks, "teacher": shape(args.teacher, teacher), "student": shape(args.student, student)}
        report |= {"agreement": agreement, "torch_compile": bench.compile_says, "failed": failed, "rows": rows}
        listed = cases(args, teacher)
        for number, case in enumerate(listed):
            write("gpu", args, {**report, "to come": [name for name, *_ in listed[number:]]})
            try:
                new = bench.case(*case)
            except Exception as error:  # memory, a kernel, PyTorch: the other cases may do
                traceback.print_exc()
                failed[case[0]] = f"{type(error).__name__}: {error}"
            else:
                _print(new)
                rows += new
    save("gpu", args, {**report, "to come": []}, lambda figure: _draw(figure, rows, about), size=(9, 1.5 + 0.42 * len(rows)))
    for name, why in failed.items():
        print(f"gpu.py: case {name} failed: {why}", file=sys.stderr)
    return len(failed)


def _arguments() -> argparse.Namespace:
    p = step_parser(__doc__)
    p.add_argument("--device", default="cuda", help="cuda or cuda:N")
    p.add_argument("--torch-device", help="PyTorch's; none: ours alone (default: --device where PyTorch has CUDA, else none)")
    p.add_argument("--tf32", action="store_true", help="ours and PyTorch multiply float32 on tensor cores")
    p.add_argument("--teacher-dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of both teachers")
    p.add_argument("--markdown", nargs="+", type=Path, metavar="FILE", help="no measurement: a page of these results on standard output")
    args = parsed(p)
    if args.torch_device is None:
        args.torch_device = args.device if torch.cuda.is_available() else "none"
    return args


def _device(xp: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What a report has to name."""
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
    torch_device = None if args.torch_device == "none" else args.torch_device
    return {
        "device": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "driver": xp.cuda.runtime.driverGetVersion(),
        "cupy": xp.__version__,
        "torch_device": torch_device,
        "torch_cuda": torch.version.cuda,
    }


def device_peaks(xp: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Of this device, measured now, summaries of some rounds: `flops`, FLOP/s of a large product in the dtypes of student and teacher,
    as cuBLAS has it; `cores`, FLOP/s of multiply-adds in float32 on CUDA cores; `bytes`, bytes/s of a copy (read and written); `launch`,
    seconds a launch of an empty kernel takes the host and the device, one after the other. Of random numbers: a device at its limit of
    power has lower clocks with them than with zeros and ones."""
    n, launches, rounds = (128, 10, 4) if args.quick else (8192, 1000, 65536)
    wait = lambda: xp.cuda.get_current_stream().synchronize()
    random = lambda *shape: xp.random.standard_normal(shape, np.float32)
    empty = xp.RawKernel('extern "C" __global__ void nothing() {}', "nothing")
    multiply_add = xp.RawKernel(MULTIPLY_ADD, "multiply_add")

    def seconds(function) -> list[float]:
        def run(_: int) -> None:
            function()
            wait()

        return measure({"it": run}, args.pairs, warm_up=2)["it"]

    rates = lambda work, function: summary(work / s for s in seconds(function))
    flops = {}
    for name in sorted({"float32", args.teacher_dtype}):
        a, b = (random(n, n).astype(machine.float_type(name)) for _ in range(2))
        flops[name] = rates(2 * n**3, lambda a=a, b=b: a @ b)
    blocks, threads, chains = (4, 32, 8) if args.quick else (8 * xp.cuda.Device().attributes["MultiProcessorCount"], 256, 8)
    x, y = xp.random.random(blocks * threads + chains).astype(np.float32), xp.empty(blocks * threads, np.float32)
    fused = lambda: multiply_add((blocks,), (threads,), (x, y, np.int32(rounds)))
    cores = rates(2 * chains * rounds * blocks * threads, fused)
    source = random(n * n)
    target = xp.empty_like(source)
    copied = rates(2 * source.nbytes, lambda: xp.copyto(target, source))
    launch = summary(s / launches for s in seconds(lambda: [empty((1,), (32,), ()) for _ in range(launches)]))
    return {"flops": flops, "cores": cores, "bytes": copied, "launch": launch}


# Eight chains a thread, so that none waits for its last result; each comes to rest at b/(1 − a), 0 ≤ a < 1.
MULTIPLY_ADD = r"""
extern "C" __global__ void multiply_add(const float* x, float* y, int rounds) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const float a = x[i], b = x[i + 1];
    float v[8], sum = 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) v[c] = x[i + c];
    for (int round = 0; round < rounds; ++round)
#pragma unroll
        for (int c = 0; c < 8; ++c) v[c] = fmaf(v[c], a, b);
#pragma unroll
    for (int c = 0; c < 8; ++c) sum += v[c];
    y[i] = sum;
}
"""


class GpuBench(Bench):
    """step.py's parts where both models lie on a GPU."""

    compiled = {**Bench.compiled, "CUDA graphs": "reduce-overhead"}
    compiled_side, in_parts = "default", None

    def __init__(self, teacher: Bert, student: Bert, workers: Workers, args: argparse.Namespace, xp: Any, peaks: dict[str, Any]):
        options = {"fused": True, "device": args.torch_device, "teacher_dtype": getattr(torch, args.teacher_dtype)}
        super().__init__(teacher, student, workers, args, options)
        self.sides = {"default": Side("high" if args.tf32 else "highest")}  # "high" is TF32 on a GPU
        self.teacher, self.student = teacher.to(xp).astype(machine.float_type(args.teacher_dtype)), student.to(xp)
        self.stream, self.peaks, self.host = xp.cuda.get_current_stream(), peaks, dict[str, list[float]]()

    def check(self, tolerance: float = 1e-4) -> dict[str, float]:
        return {} if self.args.torch_device == "none" else super().check(tolerance)

    def place(self, batch: Batch) -> Batch:
        return self.student.place(batch)

    def wait(self) -> None:
        self.asked_at = time.perf_counter()
        self.stream.synchronize()
        if self.args.torch_device.startswith("cuda"):
            torch.cuda.synchronize(self.args.torch_device)

    def _ours(self, batches: list[Batch]) -> dict[str, Job]:
        self.host = {part: [] for part in PARTS}
        return {part: self._noting(job, self.host[part]) for part, job in super()._ours(batches).items()}

    def _noting(self, job: Job, seconds: list[float]) -> Job:
        """The job, which notes the seconds until the host has asked for all of it, at which the device may still be at work."""

        def run(number: int) -> None:
            started = time.perf_counter()
            job(number)
            if number >= 0:
                seconds.append(self.asked_at - started)

        return run

    def rectangles(self, sentences: Sentences, batches: list[np.ndarray]) -> dict[str, list[Rectangle]]:
        if self.args.torch_device == "none":
            return {}
        return {"eager": [rectangle(sentences.examples, indices).to(self.args.torch_device) for indices in batches]}

    def work(self, part: str, batches: list[Batch]) -> dict[str, Any]:
        """Tokens, what `roofline.floors` says, and when the host has asked for all."""
        if part == "step":
            each = [self.work(one, batches) for one in ("teacher", "student")]
            work = {name: sum(one[name] for one in each) for name in each[0] if name not in ("tokens", "host_ms")}
            return {"tokens": each[0]["tokens"], **work, "host_ms": self._host_ms(part, batches)}
        total: dict[str, float] = {}
        for batch in batches:
            for name, value in {"tokens": batch.totals.tokens, **self._floors(part, batch)}.items():
                total[name] = total.get(name, 0) + value / len(batches)
        return {**total, "host_ms": self._host_ms(part, batches)}

    def _host_ms(self, part: str, batches: list[Batch]) -> dict[str, Any]:
        return summary(1e3 * s / len(batches) for s in self.host[part])

    def _floors(self, part: str, batch: Batch) -> dict[str, float]:
        sizes = batch.totals.sentences, batch.totals.tokens, batch.totals.pairs
        itemsize = self.teacher.parameters.flat.itemsize
        if part == "teacher":
            kernels, dtype = teacher_work(self.teacher.config, self.student.config, *sizes, itemsize), self.args.teacher_dtype
        else:
            kernels, dtype = student_work(self.student.config, self.teacher.config, *sizes, itemsize), "float32"
        best = [self.peaks["flops"][dtype]["max"], self.peaks["cores"]["max"], self.peaks["bytes"]["max"], self.peaks["launch"]["min"]]
        return floors(kernels, Peaks(*best))


def _print(rows: list[dict]) -> None:
    """One case's table."""
    lines, before = [], ""
    for row in rows:
        own = [row["part"], f"{row['ours_ms']['median']:.2f}", f"{row['flops'] / 1e9:.1f}", f"{row['bytes'] / 1e6:.0f}"]
        own += [f"{row['roofline_ms']:.2f}", f"{row['launches']:.0f}", f"{row['launches_ms']:.2f}"]
        own += [f"{row['host_ms']['median']:.2f}", held_by(row)]
        theirs = []
        if row["torch"]:
            theirs = [row["torch"], f"{row['torch_ms']['median']:.2f}", f"{row['ratio']['median']:.2f}", spread(row["ratio"])]
        lines.append([*(own if row["part"] != before else [""] * len(own)), *theirs])
        before = row["part"]
    print(f"\n{rows[0]['case']}")
    headers = ["", "ours", "GFLOP", "MB", "roofline", "launches", "by launches", "host", "held by"]
    table(lines, headers + (["PyTorch", "", "ours / PyTorch", "pairs"] if rows[0]["torch"] else []))


def _draw(figure, rows: list[dict], about: dict[str, Any]) -> None:
    """A bar a measured time, ours and PyTorch's, and marks where the floors are and where the host was done."""
    axes = figure.add_subplot()
    axes.set_title(f"A distillation step on {about['device']}", fontsize=10)
    if not rows:
        return
    labels, place = [], 0
    for number, row in enumerate(rows):
        if number == 0 or (row["case"], row["part"]) != (rows[number - 1]["case"], rows[number - 1]["part"]):
            _bar(axes, place, row["ours_ms"], "C0", "ours")
            for ms, marker, said in (
                (row["roofline_ms"], "|", "roofline of our kernels"),
                (row["launches_ms"], "x", "their launches"),
                (row["host_ms"]["median"], "+", "host has asked for all"),
            ):
                axes.plot(ms, place, marker, color="k", markersize=10, label=said, zorder=3)
            labels.append(f"{row['case']}\n{row['part']}: ours")
            place += 1
        if row["torch"]:
            _bar(axes, place, row["torch_ms"], "C1", "PyTorch")
            labels.append(f"PyTorch {row['torch']}")
            place += 1
    axes.set_yticks(range(place), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds a batch (median, smallest and largest)", xscale="log")
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    figure.legend(once.values(), once.keys(), fontsize=8, loc="outside lower center", ncols=len(once))


def _bar(axes, place: int, ms: dict[str, Any], color: str, label: str) -> None:
    errors = [[ms["median"] - ms["min"]], [ms["max"] - ms["median"]]]
    axes.barh(place, ms["median"], xerr=errors, color=color, ecolor="0.3", capsize=2, label=label)


if __name__ == "__main__":
    sys.exit(main())
