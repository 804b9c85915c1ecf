"""Sentences a second of student and teacher at batch 1, 8 and 32, ours beside PyTorch; how much quicker and smaller the student is.

    python bench/inference.py                              lengths drawn with SST-2's dev mean, and length 128
    python bench/inference.py --data DIR --tokenizer DIR   SST-2's dev sentences

One request after the other: ours shares a batch's sentences among the threads (a single sentence: the BLAS has the threads). PyTorch
pads to the longest of the batch, looks at no scores (so it has its fused attention), and is in inference mode. The paper says 9.4 times
faster, 7.5 times smaller.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import begin, measure, paired, parser, save, spread, summary, table
from torch_twin import TorchBert, rectangle
from workload import Sentences, data_options, full, model_options, models, shape, sst2

from minitinybert.engine.batch import Batch
from minitinybert.engine.device import Array
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.progress import log
from minitinybert.training.cut import split

PAPER = {"faster": 9.4, "smaller": 7.5}
TINYBERT4 = "4L-312D-12H-1200F"


def main() -> None:
    args = _arguments()
    about = begin(args)
    teacher, student = models(args)
    check(teacher, args)
    cases = [sst2(args, "dev", 25, max(args.sentences, 872), teacher), full(args.length, args.sentences, teacher.config, args.seed)]
    rows = [row for sentences in cases for batch in args.batches for row in case(teacher, student, sentences, batch, args)]
    sizes = {"teacher": teacher.num_parameters, "student": student.num_parameters}
    print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}")
    smaller = sizes["teacher"] / sizes["student"]
    print(
        f"parameters: teacher {sizes['teacher']:,}, student {sizes['student']:,}: {smaller:.1f} times smaller (paper: {PAPER['smaller']})"
    )
    _print(rows)
    report = {"machine": about, "teacher": shape(args.teacher, teacher), "student": shape(args.student, student), "paper": PAPER}
    report |= {"parameters": sizes, "smaller": smaller, "rows": rows}
    save("inference", args, report, lambda figure: _draw(figure, rows, about["processor"]), size=(9, 4))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__)
    model_options(p)
    data_options(p)
    p.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    p.add_argument("--length", type=int, default=128, help="of the case without short sentences")
    p.add_argument("--sentences", type=int, default=64, help="in a measurement")
    args = p.parse_args()
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
            twin, model = TorchBert(model), model.for_reading()
            jobs[f"{name}, ours"] = lambda _, model=model: [our_logits(model, batch, workers) for batch in batches]
            jobs[f"{name}, torch"] = lambda _, twin=twin: [torch_logits(twin, batch) for batch in rectangles]
        seconds = measure(jobs, args.pairs)
    rows = []
    for name in ("teacher", "student"):
        ours, other = seconds[f"{name}, ours"], seconds[f"{name}, torch"]
        row = {"sentences": sentences.source, "batch": size, "model": name, "ratio": paired(ours, other)}
        row |= {"ours_per_second": count / summary(ours)["median"], "torch_per_second": count / summary(other)["median"]}
        faster = {who: paired(seconds[f"teacher, {who}"], seconds[f"student, {who}"]) for who in ("ours", "torch")}
        rows.append(row | ({"times_faster_than_teacher": faster} if name == "student" else {}))
    return rows


def our_logits(model: Bert, batch: Batch, workers: Workers) -> Array:
    ask = lambda share: model.forward_batch(share, hidden=(), scores=(), keep_cache=False)[0].logits
    return np.concatenate(workers.map(ask, split(batch, workers.threads)))


def torch_logits(model: TorchBert, batch) -> torch.Tensor:
    with torch.inference_mode():
        return model.forward(batch, hidden=(), scores=()).logits


def check(model: Bert, args: argparse.Namespace) -> None:
    """SystemExit where ours and PyTorch answer differently."""
    examples = sst2(args, "dev", 25, 8, model).examples
    batch = examples.batch(np.arange(8))
    with Workers(args.threads) as workers:
        ours = our_logits(model.for_reading(), batch, workers)
    theirs = torch_logits(TorchBert(model), rectangle(examples, batch.sentences)).numpy()
    if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max()):
        raise SystemExit(f"ours and PyTorch answer differently: by {np.abs(ours - theirs).max()}")


def _print(rows: list[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        faster = row.get("times_faster_than_teacher")
        lines.append(
            [row["sentences"], row["batch"], row["model"], f"{row['ours_per_second']:.1f}", f"{row['torch_per_second']:.1f}"]
            + [f"{row['ratio']['median']:.2f}", spread(row["ratio"])]
            + ([f"{faster[who]['median']:.1f}" for who in ("ours", "torch")] if faster else ["", ""])
        )
    headers = ["sentences", "batch", "", "ours/s", "PyTorch/s", "time: ours / PyTorch", "pairs", "student × faster", "in PyTorch"]
    table(lines, headers)
    print(f"paper: {TINYBERT4} is {PAPER['faster']} times faster than BERT-base")


def _draw(figure: plt.Figure, rows: list[dict[str, Any]], processor: str) -> None:
    sources = list(dict.fromkeys(row["sentences"] for row in rows))
    figure.suptitle(f"Inference, sentences a second, {processor}", fontsize=10)
    for axes, source in zip(np.atleast_1d(figure.subplots(1, len(sources))), sources, strict=True):
        for model, marker in (("teacher", "s"), ("student", "o")):
            chosen = [row for row in rows if row["sentences"] == source and row["model"] == model]
            for who, color in (("ours", "C0"), ("torch", "C1")):
                label = f"{model}, {'ours' if who == 'ours' else 'PyTorch'}"
                axes.plot([r["batch"] for r in chosen], [r[f"{who}_per_second"] for r in chosen], marker + "-", color=color, label=label)
        axes.set(xscale="log", yscale="log", xlabel="batch", title=source)
        axes.set_xticks([row["batch"] for row in rows], [str(row["batch"]) for row in rows])
        axes.minorticks_off()
        axes.legend(fontsize=7)


if __name__ == "__main__":
    main()
