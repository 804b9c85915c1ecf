"""An epoch of SST-2 in both distillation steps, beside the released scheme: every sentence padded, the teacher run at every step.

    python bench/epoch.py                                  67,349 sentences of drawn lengths with SST-2's mean
    python bench/epoch.py --data DIR --tokenizer DIR       SST-2's own
    python bench/epoch.py --steps 0                        whole epochs of ours instead of a sample

Ours: training's batches (packed, sorted in pools), batch making, gradients, Adam; what the teacher says once, apart from the epochs. The
released scheme, in PyTorch: batches at random, padded to 64 and to 128, padding in the means, all layers' outputs of teacher and student.
It is given what its authors did not have: PyTorch's "medium" products in float32, fused Adam, one clipped norm, a teacher without dropout.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import begin, measure, paired, parser, ratio_bars, save, summary, table
from sides import SIDES, peaks
from torch_twin import TorchStep, padded
from workload import OurStep, Sentences, data_options, model_options, models, shape, sorted_batches, sst2

from minitinybert.data.batching import EncodedExamples, epoch_batches
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.recipes import DEFAULT, RECIPES
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.progress import log
from minitinybert.training import evaluation
from minitinybert.training.kept_traces import KeptTraces, gigabytes
from minitinybert.training.teacher import KeptLogits, Running

SIZE = 67349  # SST-2's training sentences


def main() -> None:
    args = _arguments()
    about = begin(args)
    about["gemm"] = peaks(args)
    teacher, student = models(args)
    sentences = sst2(args, "train", 13, args.size, teacher)
    steps = -(-len(sentences.examples) // args.batch_size)
    with Workers(args.threads) as workers, tempfile.TemporaryDirectory() as directory:
        ours = Ours(teacher, student, sentences, workers, args, Path(directory))
        jobs = ours.jobs() | released_jobs(teacher, student, sentences, workers, args)
        seconds: dict[str, list[float]] = {}
        for step in ("intermediate", "prediction"):
            log(f"epoch: {step}")
            seconds |= measure({name: job for name, (job, _) in jobs.items() if name.startswith(step)}, args.pairs)
    for name, (_, done) in jobs.items():  # a sample's time, as long as the whole epoch's
        seconds[name] = [s * steps / done for s in seconds[name]]
    seconds["intermediate, first epoch, teacher's answers kept"] = _sum(
        seconds, "intermediate, asking once", "intermediate, answers at hand"
    )
    seconds["prediction, first epoch"] = _sum(seconds, "prediction, asking once", "prediction, from the second epoch on")
    rows = _rows(seconds, args.pad)
    sample = f"measured: {ours.sampled} of {steps} steps of ours, {args.released_steps} of the released scheme, scaled to {steps}"
    size = gigabytes(sentences.lengths, teacher.config, ours.intermediate.teacher_view)
    kept = f"the teacher's answers of the intermediate step take {size:.1f} GB: kept where the disk has room"
    print(f"teacher {shape(args.teacher, teacher)}; student {shape(args.student, student)}; {sentences.source}")
    print(f"{len(sentences.examples)} sentences, {steps} steps of {args.batch_size}. {sample}. {kept}.")
    _print(rows, seconds)
    report: dict[str, Any] = {"machine": about, "sentences": sentences.source, "steps": steps, "sample": sample}
    report |= {"teacher": shape(args.teacher, teacher), "student": shape(args.student, student), "teacher_cache_gb": size}
    report |= {"epoch_seconds": {name: summary(values) for name, values in seconds.items()}, "ratios": rows}
    bars = {f"{row['ours']}\n/ {row['released']}": row["ratio"] for row in rows}
    title = f"An epoch of SST-2, {args.threads} threads\n{about['processor']}"
    label = "time of ours / time of the released scheme in PyTorch"
    save("epoch", args, report, lambda figure: ratio_bars(figure, bars, title, label), size=(9, 1.5 + 0.42 * len(bars)))


def _arguments() -> argparse.Namespace:
    p = parser(__doc__)
    model_options(p)
    data_options(p)
    p.add_argument("--size", type=int, default=SIZE, help="sentences, where lengths are drawn")
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--pad", type=int, nargs="+", default=[64, 128], help="lengths the released scheme pads to")
    p.add_argument("--steps", type=int, default=24, help="of ours in a measurement, a fair sample of an epoch's by tokens; 0: all")
    p.add_argument("--released-steps", type=int, default=2, help="of the released scheme in a measurement: all of them cost the same")
    args = p.parse_args()
    if args.quick:
        args.steps, args.released_steps = min(args.steps or 4, 4), 1
    return args


class Ours:
    """Our epochs on a sample: sub-epochs of whole batches, whose sentences are numbered anew."""

    def __init__(self, teacher: Bert, student: Bert, sentences: Sentences, workers: Workers, args: argparse.Namespace, directory: Path):
        self.teacher, self.workers, self.directory = teacher, workers, directory
        lengths = sentences.lengths
        if args.steps and args.steps < len(lengths) // args.batch_size:
            chosen = sorted_batches(sentences, args.batch_size, args.steps, args.seed)
        else:
            chosen = epoch_batches(lengths, args.batch_size, args.seed, 0)
        self.sampled = len(chosen)
        self.examples = _subset(sentences.examples, np.concatenate(chosen))
        ends = np.cumsum([0, *map(len, chosen)])
        self.batches = [np.arange(first, last) for first, last in zip(ends, ends[1:], strict=False)]
        self.intermediate, self.prediction = Intermediate(student.config, teacher.config), Prediction(DEFAULT)
        logits = KeptLogits(evaluation.logits(teacher, self.examples, workers))
        make = lambda objective, answering: OurStep(student, objective, workers, answering, args.seed)
        self.steps = {
            "intermediate, teacher at every epoch": make(self.intermediate, Running(teacher)),
            "intermediate, answers at hand": make(self.intermediate, self._ask_traces()),
            "prediction, from the second epoch on": make(self.prediction, logits),
        }

    def jobs(self) -> dict[str, tuple[Callable[[int], object], int]]:
        """{name: (work, how many of an epoch's steps that is)}"""
        jobs: dict[str, Callable[[int], object]] = {name: self._epoch(name) for name in self.steps}
        jobs["intermediate, asking once"] = lambda _: self._ask_traces()
        jobs["prediction, asking once"] = lambda _: evaluation.logits(self.teacher, self.examples, self.workers)
        return {name: (job, self.sampled) for name, job in jobs.items()}

    def _epoch(self, name: str) -> Callable[[int], object]:
        step = self.steps[name]

        def run(number: int) -> None:
            for i in np.random.default_rng(number + 9).permutation(len(self.batches)):
                step(self.examples.batch(self.batches[i]))

        return run

    def _ask_traces(self) -> KeptTraces:
        assert self.intermediate.teacher_view is not None
        return KeptTraces(self.teacher, self.examples, self.intermediate.teacher_view, self.directory, self.workers)


def _subset(examples: EncodedExamples, indices: np.ndarray) -> EncodedExamples:
    ids, types = ([sequence[i] for i in indices] for sequence in (examples.input_ids, examples.token_type_ids))
    return EncodedExamples(ids, types, None if examples.labels is None else examples.labels[indices])


def released_jobs(
    teacher: Bert, student: Bert, sentences: Sentences, workers: Workers, args: argparse.Namespace
) -> dict[str, tuple[Callable[[int], object], int]]:
    """One tensor of all sentences a padding length, as its TensorDataset is; each step looks up its batch in it."""
    jobs: dict[str, tuple[Callable[[int], object], int]] = {}
    random = np.random.default_rng(args.seed)
    indices = random.permutation(len(sentences.examples))[: 64 * args.batch_size]
    examples = _subset(sentences.examples, indices)
    lengths = np.minimum(examples.lengths(), max(args.pad))
    objective = Intermediate(student.config, teacher.config, RECIPES["huawei-2019"])  # for its one map with a bias
    extended = OurStep(student, objective, workers).learner.student
    for term in ("intermediate", "prediction"):
        step = TorchStep(extended if term == "intermediate" else student, teacher, terms=(term,), released=True)
        for pad in args.pad:
            ids = torch.zeros(len(examples), pad, dtype=torch.int64)
            for row, sentence in enumerate(examples.input_ids):
                ids[row, : min(pad, len(sentence))] = torch.from_numpy(sentence[:pad].astype(np.int64))
            tensors = ids, torch.zeros_like(ids), torch.from_numpy(np.minimum(lengths, pad))
            jobs[f"{term}, released, pad {pad}"] = SIDES['"medium"'].on(_released(step, tensors, args)), args.released_steps
    return jobs


def _released(step: TorchStep, tensors: tuple[torch.Tensor, ...], args: argparse.Namespace) -> Callable[[int], object]:
    def run(number: int) -> None:
        order = torch.from_numpy(np.random.default_rng(number + 9).permutation(len(tensors[0])))
        for i in range(args.released_steps):
            chosen = order[i * args.batch_size :][: args.batch_size]
            step(padded(*(t[chosen] for t in tensors)))

    return run


# ---------------------------------------------------------------------------------------------------------------------- report


def _sum(seconds: dict[str, list[float]], *names: str) -> list[float]:
    return [sum(values) for values in zip(*(seconds[name] for name in names), strict=True)]


def _rows(seconds: dict[str, list[float]], pads: list[int]) -> list[dict[str, Any]]:
    """Each epoch of ours against the released scheme's of the same step, for each padding."""
    compared = [
        "intermediate, teacher at every epoch",
        "intermediate, first epoch, teacher's answers kept",
        "intermediate, answers at hand",
        "prediction, first epoch",
        "prediction, from the second epoch on",
    ]
    rows = []
    for name in compared:
        for pad in pads:
            other = f"{name.split(',')[0]}, released, pad {pad}"
            rows.append({"ours": name, "released": f"released, pad {pad}", "ratio": paired(seconds[name], seconds[other])})
            rows[-1] |= {"ours_seconds": summary(seconds[name])["median"], "released_seconds": summary(seconds[other])["median"]}
    return rows


def _print(rows: list[dict[str, Any]], seconds: dict[str, list[float]]) -> None:
    minutes = lambda s: f"{s / 60:.1f}"
    lines = [
        [row["ours"], minutes(row["ours_seconds"]), row["released"], minutes(row["released_seconds"])]
        + [f"{row['ratio']['median']:.3f}", f"{row['ratio']['min']:.3f} – {row['ratio']['max']:.3f}"]
        for row in rows
    ]
    table(lines, ["an epoch of ours", "minutes", "in PyTorch", "minutes", "ours / released", "pairs"])
    once = {name: minutes(summary(values)["median"]) for name, values in seconds.items() if name.endswith("asking once")}
    print("once: " + ", ".join(f"{name} {value} minutes" for name, value in once.items()))


if __name__ == "__main__":
    main()
