"""A distillation step on a GPU and its parts, beside PyTorch on the same GPU, and beside what arithmetic, memory and launches allow.

    python bench/gpu.py                                        lengths drawn with SST-2's means
    python bench/gpu.py --data DIR --tokenizer DIR             SST-2's own lengths
    python bench/gpu.py --tf32 --teacher-dtype float16         as `minitinybert distill` has them
    python bench/gpu.py --quick                                whether it runs

The step is step.py's, its batches lie on the GPU beforehand. Sentences of several lengths come in batches of about equal ones, which ours
packs and PyTorch pads to the longest.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from common import begin, measure, save, spread, table
from roofline import floors
from roofline import student as student_work
from roofline import teacher as teacher_work
from step import PARTS, Bench, Job, cases, parsed, step_parser
from torch_twin import Rectangle, rectangle
from workload import Sentences, models, shape

from minitinybert import machine
from minitinybert.engine.batch import Batch
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}  # of the losses, beside PyTorch's


def main() -> None:
    args = _arguments()
    about = begin(args)
    if args.tf32:
        machine.allow_tf32(args.device)
        torch.backends.cuda.matmul.allow_tf32 = True
    xp = machine.select(args.device)
    about |= _device(xp, args)
    print(f"{about['device']}, CuPy {xp.__version__}; PyTorch: {about['torch_device'] or 'not asked, it has no CUDA device here'}")
    teacher, student = models(args)
    peaks = device_peaks(xp, args)
    print(
        f"peaks: products {', '.join(f'{name} {peak / 1e9:.0f} GFLOP/s' for name, peak in peaks['flops'].items())}; "
        f"memory {peaks['bytes'] / 1e9:.0f} GB/s; a launch {1e6 * peaks['launch']:.1f} µs"
    )
    with Workers(1) as workers:
        bench = GpuBench(teacher, student, workers, args, xp, peaks)
        agreement = bench.check(TOLERANCE["tf32" if args.tf32 and args.teacher_dtype == "float32" else args.teacher_dtype])
        print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}; milliseconds a batch of {args.batch_size}")
        rows: list[dict] = []
        for case in cases(args, teacher):
            new = bench.case(*case)
            _print(new)
            rows += new
    report = {"machine": about, "peaks": peaks, "teacher": shape(args.teacher, teacher), "student": shape(args.student, student)}
    report |= {"agreement": agreement, "torch_compile": bench.compile_says, "rows": rows}
    save("gpu", args, report, lambda figure: _draw(figure, rows, about), size=(9, 1.5 + 0.42 * len(rows)))


def _arguments() -> argparse.Namespace:
    p = step_parser(__doc__)
    p.add_argument("--device", default="cuda", help="cuda or cuda:N")
    p.add_argument("--torch-device", help="PyTorch's; none: ours alone (default: --device where PyTorch has CUDA, else none)")
    p.add_argument("--tf32", action="store_true", help="ours and PyTorch multiply float32 on tensor cores")
    p.add_argument("--teacher-dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of both teachers")
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
    """Of this device, measured now: FLOP/s of a large product in the dtypes of student and teacher, bytes/s of a copy (read and
    written), seconds a launch of an empty kernel takes the host and the device, one after the other."""
    n, launches = (128, 10) if args.quick else (8192, 1000)
    wait = lambda: xp.cuda.get_current_stream().synchronize()
    empty = xp.RawKernel('extern "C" __global__ void nothing() {}', "nothing")

    def seconds(function) -> float:
        def run(_: int) -> None:
            function()
            wait()

        return min(measure({"it": run}, args.pairs, warm_up=2)["it"])

    flops = {}
    for name in sorted({"float32", args.teacher_dtype}):
        a = xp.ones((n, n), machine.float_type(name))
        flops[name] = 2 * n**3 / seconds(lambda a=a: a @ a)
    source = xp.zeros(n * n, np.float32)
    target = xp.empty_like(source)
    copied = 2 * source.nbytes / seconds(lambda: xp.copyto(target, source))
    launch = seconds(lambda: [empty((1,), (32,), ()) for _ in range(launches)]) / launches
    return {"flops": flops, "bytes": copied, "launch": launch}


class GpuBench(Bench):
    """step.py's parts where both models lie on a GPU."""

    def __init__(self, teacher: Bert, student: Bert, workers: Workers, args: argparse.Namespace, xp: Any, peaks: dict[str, Any]):
        options = {"fused": True, "device": args.torch_device, "teacher_dtype": getattr(torch, args.teacher_dtype)}
        super().__init__(teacher, student, workers, args, options)
        self.teacher, self.student = teacher.to(xp).astype(machine.float_type(args.teacher_dtype)), student.to(xp)
        self.stream, self.peaks = xp.cuda.get_current_stream(), peaks

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
        jobs = super()._ours(batches)
        self.host = {part: self._asking(job) for part, job in jobs.items()}
        return jobs

    def _asking(self, job: Job) -> float:
        """Seconds until the host has asked for all of a job, at which the device may still be at work."""
        seconds = []
        for number in range(-2, self.args.pairs):
            started = time.perf_counter()
            job(number)
            seconds.append(self.asked_at - started)
        return min(seconds[2:])

    def rectangles(self, sentences: Sentences, batches: list[np.ndarray]) -> dict[str, list[Rectangle]]:
        if self.args.torch_device == "none":
            return {}
        return {"eager": [rectangle(sentences.examples, indices).to(self.args.torch_device) for indices in batches]}

    def work(self, batches: list[Batch]) -> dict[str, dict[str, float]]:
        total: dict[str, dict[str, float]] = {}
        for batch in batches:
            for part, work in self._work(batch).items():
                total[part] = {name: total.get(part, {}).get(name, 0) + value for name, value in work.items()}
        return {part: {**work, "host_ms": 1e3 * self.host[part]} for part, work in total.items()}

    def _work(self, batch: Batch) -> dict[str, dict[str, float]]:
        """Of one batch, each part: FLOPs, bytes, launches, and the milliseconds of `roofline.floors`."""
        sizes = batch.totals.sentences, batch.totals.tokens, batch.totals.pairs
        itemsize = self.teacher.parameters.flat.itemsize
        asked = list(teacher_work(self.teacher.config, self.student.config, *sizes, itemsize))
        learned = list(student_work(self.student.config, self.teacher.config, *sizes, itemsize))
        flops = self.peaks["flops"]
        at = lambda kernels, dtype: floors(kernels, flops[dtype], self.peaks["bytes"], self.peaks["launch"])
        parts = {"teacher": at(asked, self.args.teacher_dtype), "student": at(learned, "float32")}
        parts["step"] = {name: value + parts["student"][name] for name, value in parts["teacher"].items()}
        return {part: {"tokens": sizes[1], **parts[part]} for part in PARTS}


def _print(rows: list[dict]) -> None:
    """One case's table."""
    lines, before = [], ""
    for row in rows:
        own = [row["part"], f"{row['ours_ms']['median']:.2f}", f"{row['flops'] / 1e9:.1f}", f"{row['bytes'] / 1e6:.0f}"]
        own += [f"{row['roofline_ms']:.2f}", f"{row['launches']:.0f}", f"{row['launches_ms']:.2f}"]
        own.append(f"{row['host_ms']:.2f}")
        theirs = []
        if row["torch"]:
            theirs = [row["torch"], f"{row['torch_ms']['median']:.2f}", f"{row['ratio']['median']:.2f}", spread(row["ratio"])]
        lines.append([*(own if row["part"] != before else [""] * len(own)), *theirs])
        before = row["part"]
    print(f"\n{rows[0]['case']}")
    headers = ["", "ours", "GFLOP", "MB", "roofline", "launches", "by launches", "host"]
    table(lines, headers + (["PyTorch", "", "ours / PyTorch", "pairs"] if rows[0]["torch"] else []))


def _draw(figure, rows: list[dict], about: dict[str, Any]) -> None:
    """A bar a measured time, ours and PyTorch's, and marks where the floors are and where the host was done."""
    axes = figure.add_subplot()
    labels, place = [], 0
    for number, row in enumerate(rows):
        if number == 0 or (row["case"], row["part"]) != (rows[number - 1]["case"], rows[number - 1]["part"]):
            _bar(axes, place, row["ours_ms"], "C0", "ours")
            for name, marker, said in (
                ("roofline_ms", "|", "roofline of our kernels"),
                ("launches_ms", "x", "their launches"),
                ("host_ms", "+", "host has asked for all"),
            ):
                axes.plot(row[name], place, marker, color="k", markersize=10, label=said, zorder=3)
            labels.append(f"{row['case']}\n{row['part']}: ours")
            place += 1
        if row["torch"]:
            _bar(axes, place, row["torch_ms"], "C1", "PyTorch")
            labels.append(f"PyTorch {row['torch']}")
            place += 1
    axes.set_yticks(range(place), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds a batch (median, smallest and largest)", xscale="log")
    axes.set_title(f"A distillation step on {about['device']}", fontsize=10)
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    figure.legend(once.values(), once.keys(), fontsize=8, loc="outside lower center", ncols=len(once))


def _bar(axes, place: int, ms: dict[str, Any], color: str, label: str) -> None:
    errors = [[ms["median"] - ms["min"]], [ms["max"] - ms["median"]]]
    axes.barh(place, ms["median"], xerr=errors, color=color, ecolor="0.3", capsize=2, label=label)


if __name__ == "__main__":
    main()
