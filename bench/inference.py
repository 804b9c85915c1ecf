"""Sentences a second of student and teacher at batch 1, 8 and 32, beside PyTorch and onnxruntime; how much quicker, smaller the student is.

    python bench/inference.py                              lengths drawn with SST-2's dev mean, and length 128
    python bench/inference.py --data DIR --tokenizer DIR   SST-2's dev sentences

One request after the other: ours shares a batch's sentences among the threads (of a single sentence, some rows each). PyTorch
pads to the longest of the batch, looks at no scores (so it has its fused attention), and is in inference mode, on all its sides
(sides.py). onnxruntime, where it and onnx are installed, runs the graph that `minitinybert export --onnx` writes, on the same
rectangles. The paper says 9.4 times faster, 7.5 times smaller.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import begin, measure, paired, parser, ratio_bars, save, spread, summary, table
from matplotlib.figure import Figure
from sides import ONNX, SIDES, Side, beside, onnx_session, onnxruntime, peaks
from torch_twin import Rectangle, TorchBert, rectangle
from workload import Sentences, data_options, full, model_options, models, shape, sst2

from minitinybert.commands.export import INPUTS, graph
from minitinybert.engine.batch import Batch
from minitinybert.engine.device import Array
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.progress import log
from minitinybert.training.cut import split

PAPER = {"faster": 9.4, "smaller": 7.5}
COMPILED = "PyTorch, compiled"
TINYBERT4 = "4L-312D-12H-1200F"


def main() -> None:
    args = _arguments()
    about = begin(args)
    about["gemm"] = peaks(args)
    teacher, student = models(args)
    check(teacher, args)
    cases = [(sst2(args, "dev", 25, max(args.sentences, 872), teacher), batch) for batch in args.batches]
    cases.append((full(args.length, args.sentences, teacher.config, args.seed), max(args.batches)))
    rows = [row for sentences, batch in cases for row in case(teacher, student, sentences, batch, args)]
    sizes = {"teacher": teacher.num_parameters, "student": student.num_parameters}
    print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}")
    smaller = sizes["teacher"] / sizes["student"]
    print(
        f"parameters: teacher {sizes['teacher']:,}, student {sizes['student']:,}: {smaller:.1f} times smaller (paper: {PAPER['smaller']})"
    )
    _print(rows)
    report = {"machine": about, "teacher": shape(args.teacher, teacher), "student": shape(args.student, student), "paper": PAPER}
    report |= {"parameters": sizes, "smaller": smaller, "rows": rows}
    save("inference", args, report, lambda figure: _draw(figure, rows, about["processor"]), size=(9, 8))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__)
    model_options(p)
    data_options(p)
    p.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    p.add_argument("--length", type=int, default=128, help="of the case without short sentences")
    p.add_argument("--sentences", type=int, default=64, help="in a measurement")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile too, where shapes are fixed (unless --quick)")
    args = p.parse_args()
    args.compile = not args.quick if args.compile is None else args.compile
    if args.quick:
        args.sentences = max(args.batches)
    return args


def case(teacher: Bert, student: Bert, sentences: Sentences, size: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The student's and the teacher's row for one batch size."""
    log(f"inference: {sentences.source}, batch {size}")
    count = -(-args.sentences // size) * size
    order = np.random.default_rng(args.seed).permutation(len(sentences.examples))
    indices = np.resize(order, count).reshape(-1, size)
    batches = [sentences.examples.batch(i) for i in indices]
    rectangles = [rectangle(sentences.examples, i) for i in indices]
    with Workers(args.threads) as workers:
        jobs: dict[str, Callable[[int], object]] = {}
        for name, model in (("teacher", teacher), ("student", student)):
            reading = model.for_reading()
            jobs[f"{name}, ours"] = lambda _, model=reading: [our_logits(model, batch, workers) for batch in batches]
            for who, (side, twin) in twins(model).items():
                jobs[f"{name}, {who}"] = lambda _, s=side, t=twin: [torch_logits(t, batch, s) for batch in rectangles]
            fixed = len({tuple(r.ids.shape) for r in rectangles}) == 1
            if args.compile and fixed and (job := compiled(model, rectangles)):
                jobs[f"{name}, {COMPILED}"] = job
            if onnxruntime is not None:
                session = onnx_session(graph(model), args)
                jobs[f"{name}, {ONNX}"] = lambda _, session=session: [onnx_logits(session, batch) for batch in rectangles]
        seconds = measure(jobs, args.pairs)
    of = lambda name: [job.removeprefix(f"{name}, ") for job in jobs if job.startswith(f"{name}, ")][1:]
    others = [who for who in of("teacher") if who in of("student")]
    rows = []
    for name in ("teacher", "student"):
        ours = seconds[f"{name}, ours"]
        row: dict[str, Any] = {"sentences": sentences.source, "batch": size, "model": name}
        row["ratio"] = {who: paired(ours, seconds[f"{name}, {who}"]) for who in others}
        row["per_second"] = {who: count / summary(seconds[f"{name}, {who}"])["median"] for who in ("ours", *others)}
        faster = {who: paired(seconds[f"teacher, {who}"], seconds[f"student, {who}"]) for who in ("ours", *others)}
        rows.append(row | ({"times_faster_than_teacher": faster} if name == "student" else {}))
    return rows


def our_logits(model: Bert, batch: Batch, workers: Workers) -> Array:
    ask = lambda share: model.forward_batch(share, hidden=(), scores=(), keep_cache=False)[0].logits
    return np.concatenate(workers.map(ask, split(batch, workers.threads)))


def twins(model: Bert) -> dict[str, tuple[Side, TorchBert]]:
    """The model in PyTorch, by the names of its sides."""
    return {beside("PyTorch", name): (side, TorchBert(model, dtype=side.dtype)) for name, side in SIDES.items()}


def compiled(model: Bert, rectangles: list[Rectangle]) -> Callable[[int], object] | None:
    """torch.compile of the model at its best in float32, compiled before it is measured; None where it does not work."""
    side, twin = SIDES['"medium"'], TorchBert(model)
    torch._dynamo.reset()
    twin.forward = torch.compile(twin.forward)
    job = lambda _: [torch_logits(twin, batch, side) for batch in rectangles]
    try:
        job(-1)
    except Exception as error:  # a missing compiler, an unsupported Python, …
        log(f"torch.compile does not work here: {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}")
        return None
    return job


def torch_logits(model: TorchBert, batch: Rectangle, side: Side) -> torch.Tensor:
    with torch.inference_mode():
        return side.on(model.forward)(batch, False, (), ()).logits


def onnx_logits(session: Any, batch: Rectangle) -> np.ndarray:
    ids, types = batch.ids.numpy(), batch.types.numpy()
    mask = np.ones_like(ids) if batch.rows is None else batch.rows[:, :, 0].numpy().astype(np.int64)
    return session.run(["logits"], dict(zip(INPUTS, (ids, mask, types), strict=True)))[0]


def check(model: Bert, args: argparse.Namespace) -> None:
    """SystemExit where ours and PyTorch answer differently."""
    examples = sst2(args, "dev", 25, 8, model).examples
    batch = examples.batch(np.arange(8))
    with Workers(args.threads) as workers:
        ours = our_logits(model.for_reading(), batch, workers)
    rectangles = rectangle(examples, batch.sentences)
    theirs = {who: torch_logits(twin, rectangles, side).float().numpy() for who, (side, twin) in twins(model).items()}
    if onnxruntime is not None:
        theirs[ONNX] = onnx_logits(onnx_session(graph(model), args), rectangles)
    for who, logits in theirs.items():
        digits = 0.1 if "bf16" in who else 1e-3
        if not np.allclose(ours, logits, rtol=digits, atol=digits * np.abs(logits).max()):
            raise SystemExit(f"ours and {who} answer differently: by {np.abs(ours - logits).max()}")


def _print(rows: list[dict[str, Any]]) -> None:
    others = list(dict.fromkeys(who for row in rows for who in row["ratio"]))
    ratio = lambda row, who: f"{row['ratio'][who]['median']:.2f} ({spread(row['ratio'][who])})" if who in row["ratio"] else ""
    lines = []
    for row in rows:
        faster = row.get("times_faster_than_teacher")
        lines.append(
            [row["sentences"], row["batch"], row["model"], f"{row['per_second']['ours']:.1f}"]
            + [ratio(row, who) for who in others]
            + [", ".join(f"{faster[who]['median']:.1f}" for who in ("ours", *others) if who in faster) if faster else ""]
        )
    ratios = [f"time: ours / {who} (pairs)" for who in others]
    table(lines, ["sentences", "batch", "", "ours/s", *ratios, f"student × faster: ours, {', '.join(others)}"])
    print(f"paper: {TINYBERT4} is {PAPER['faster']} times faster than BERT-base")


def _draw(figure: Figure, rows: list[dict[str, Any]], processor: str) -> None:
    bars = {
        f"{row['model']}, {row['sentences']}, batch {row['batch']} / {who}": ratio for row in rows for who, ratio in row["ratio"].items()
    }
    ratio_bars(figure, bars, f"Inference\n{processor}", "time of ours / time of the other (median, smallest and largest of pairs)")


if __name__ == "__main__":
    main()
