"""What a model costs: the columns of the paper's Table 1 (parameters, FLOPs, speed-up), its head and
its files.

FLOPs of one sentence of L tokens, two a multiply-add, of the products of matrices alone (what else
there is, look-ups, biases, norms, softmax and GELU, is under one in a hundred of a BERT's). In each
of M layers, for each token:

    4 d²     query, key, value and output
    2 d f    feed-forward, up and down
    2 L d    scores Q Kᵀ, and probabilities times V

then the head, for the tokens that it looks at: [CLS] alone under a pooler and a classifier of texts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ..engine.batch import Batch, packed
from ..engine.device import to_host
from ..errors import InputError
from ..machine import Machine
from ..model.bert import Bert, has_pooler, layout
from ..model.config import TOKEN_MAPS, Config
from ..progress import folded
from ..weights import read
from .shape import is_shape, parse_shape

PAPER = {  # Table 1: million parameters, billion FLOPs, speed-up
    "12L-768D-12H-3072F": ("BERT-base", 109.0, 22.5, 1.0),
    "4L-312D-12H-1200F": ("TinyBERT4", 14.5, 1.2, 9.4),
    "6L-768D-12H-3072F": ("TinyBERT6", 67.0, 11.3, 2.0),
}
_ROUNDS = 7  # of measurements


def info(
    model: str, machine: Machine, teacher: str | None = None, length: int = 128, measure: bool = False, batch_size: int = 32
) -> dict[str, Any]:
    """What `model` holds and costs at sentences of `length` tokens: a directory, an id, or a shape
    (with BERT's vocabulary and positions, and a pooler).

    teacher: what it is compared with: how many times smaller and cheaper the model is, with
    `measure` also how many times quicker a batch of `batch_size` such sentences is on this machine
    (median, smallest and largest of interleaved pairs). InputError where a model has fewer
    positions than `length`, and for `measure` without a teacher.
    """
    if measure and teacher is None:
        raise InputError("info --measure tells how much quicker than a teacher: add --teacher")
    report = describe(model, length)
    if teacher is None:
        return report
    other = describe(teacher, length)
    smaller = {part: count / report["parameters"][part] for part, count in other["parameters"].items() if report["parameters"][part]}
    report |= {"teacher": other, "times_smaller": smaller, "times_fewer_flops": other["flops"] / report["flops"]}
    if measure:
        report["times_quicker"] = _speed_up(_made(model), _made(teacher), machine, length, batch_size)
    return report


def describe(model: str, length: int) -> dict[str, Any]:
    """Sizes, cost, head, labels and files of a model, of which nothing but its config is read."""
    config, files = _config(model)
    if length > config.max_position_embeddings:
        raise InputError(f"--length {length}: {model} has {config.max_position_embeddings} positions")
    return {
        "model": model,
        "shape": config.shape,
        "vocabulary": config.vocab_size,
        "positions": config.max_position_embeddings,
        "head": config.head,
        "labels": config.labels if config.head in ("classifier", "tokens") else [],
        "parameters": parameters(config),
        "length": length,
        "flops": flops(config, length),
        "files": files,
    }


def parameters(config: Config) -> dict[str, int]:
    """How many numbers are learned: "all", and of these "embeddings", "encoder" (the layers) and
    "head" (pooler, classifier, decoder). A decoder that is tied to the words counts once."""
    counts = dict.fromkeys(("all", "embeddings", "encoder", "head"), 0)
    for slot in layout(config).slots:
        size = int(np.prod(slot.shape, dtype=np.int64))
        part = "encoder" if "encoder.layer." in slot.name else "embeddings" if "embeddings." in slot.name else "head"
        counts["all"] += size
        counts[part] += size
    return counts


def flops(config: Config, length: int) -> int:
    """Of the forward pass of one sentence of `length` tokens, as the module's docstring counts
    them."""
    d, f, L = config.hidden_size, config.intermediate_size, length
    multiply_adds = config.num_hidden_layers * L * (4 * d * d + 2 * d * f + 2 * L * d)
    multiply_adds += d * d if config.pooler else 0
    multiply_adds += d * config.num_labels if config.head == "classifier" else 0
    multiply_adds += L * d * config.num_labels if config.head in TOKEN_MAPS else 0
    multiply_adds += L * d * (d + config.vocab_size) if config.head == "mlm" else 0
    return 2 * multiply_adds


def _config(model: str) -> tuple[Config, dict[str, int]]:
    """A model's configuration, and the bytes of its files; a shape has none."""
    if is_shape(model):
        return replace(Config(), **parse_shape(model)), {}
    checkpoint = read(model)
    config = Config.from_hf(checkpoint.config, f"{model}/config.json")
    directory = Path(model)
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir()) if path.is_file()} if directory.is_dir() else {}
    return replace(config, pooler=has_pooler(config.head, checkpoint.tensors)), sizes


def _made(model: str) -> Bert:
    return Bert.new(_config(model)[0]) if is_shape(model) else Bert.load(model)


def _speed_up(model: Bert, teacher: Bert, machine: Machine, length: int, batch_size: int) -> dict[str, float]:
    """Seconds of the teacher over those of the model, in `_ROUNDS` rounds of one after the other."""
    jobs = [_forward(each, machine, length, batch_size) for each in (model, teacher)]
    ratios = []
    for round_ in range(-1, _ROUNDS):
        seconds = [0.0, 0.0]
        for i in (0, 1) if round_ % 2 else (1, 0):
            started = time.perf_counter()
            jobs[i]()
            seconds[i] = time.perf_counter() - started
        if round_ >= 0:  # the one before warms up
            ratios.append(seconds[1] / seconds[0])
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def _forward(model: Bert, machine: Machine, length: int, batch_size: int) -> Callable[[], object]:
    """A job: the last hidden states of `batch_size` sentences of random words, shared among the
    machine's threads."""
    model = model.to(machine.xp).for_reading()
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (batch_size, length), np.int32)
    shares = np.array_split(ids, min(machine.workers.threads, batch_size))
    batches = [model.place(packed(list(share), list(np.zeros_like(share)))) for share in shares]
    M = model.config.num_hidden_layers

    def answer(batch: Batch) -> np.ndarray:
        trace, _ = model.forward_batch(batch, hidden=(M,), scores=(), logits=False, keep_cache=False)
        return to_host(trace.hidden[M])  # type: ignore[index]

    return lambda: machine.workers.map(answer, batches)


def format_report(report: dict[str, Any]) -> str:
    """The report as a table: a column the model, one its teacher, one how many times the teacher's
    is the model's, one the paper's figures for such a shape."""
    teacher, paper = report.get("teacher"), PAPER.get(report["shape"])
    columns = [report, *([teacher] if teacher else [])]
    names = {part: f"parameters, {part}" for part in report["parameters"]}
    rows = [["shape", *(each["shape"] for each in columns)]]
    rows += [["head", *(_head(each) for each in columns)]]
    for part, name in names.items():
        rows.append([name, *(short(each["parameters"][part]) for each in columns)])
        if teacher:
            rows[-1].append(f"{report['times_smaller'][part]:.1f}" if part in report["times_smaller"] else "")
    rows.append([f"FLOPs at {report['length']} tokens", *(short(each["flops"]) for each in columns)])
    if teacher:
        rows[-1].append(f"{report['times_fewer_flops']:.1f}")
    if "times_quicker" in report:
        quicker = report["times_quicker"]
        rows.append(["speed, measured", "", "", f"{quicker['median']:.1f} ({quicker['min']:.1f}–{quicker['max']:.1f})"])
    headers = ["", report["model"], *([teacher["model"], "times"] if teacher else [])]
    wide = [None, *[18] * len(columns), None][: len(headers)]  # a shape's columns: all together at most 80
    lines = [tabulate(rows, headers=headers, disable_numparse=True, maxcolwidths=wide, maxheadercolwidths=wide)]
    if paper:
        name, millions, billions, speed_up = paper
        cost = f"{millions:g} M parameters, {billions:g} B FLOPs, {speed_up:g} times as quick as BERT-base"
        lines.append(folded(f"The paper's Table 1: {name}, {cost}."))
    lines += [f"{name}\t{size:,} bytes" for name, size in report["files"].items()]
    return "\n".join(lines)


def _head(report: dict[str, Any]) -> str:
    return report["head"] + (f" ({', '.join(report['labels'])})" if report["labels"] else "")


def cost_line(config: Config, length: int, teacher: Config | None = None) -> str:
    """What a trained model comes to, and beside its teacher, for the end of a training command."""
    ours, cost = parameters(config), flops(config, length)
    line = f"{config.shape}: {short(ours['all'])} parameters, {short(ours['encoder'])} of the encoder"
    line += f", {short(cost)} FLOPs at {length} tokens"
    if teacher is None:
        return line
    theirs = parameters(teacher)
    times = (theirs["all"] / ours["all"], theirs["encoder"] / ours["encoder"], flops(teacher, length) / cost)
    return f"{line}; its teacher has {times[0]:.1f}, {times[1]:.1f} and {times[2]:.1f} times as many"


def short(count: float) -> str:
    """A count by its first digits, in thousands (K), millions (M) or billions (B).

    >>> short(14_350_248), short(22_347_251_712), short(940)
    ('14.4 M', '22.3 B', '940')
    """
    for letter, unit in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= unit:
            return f"{count / unit:.3g} {letter}" if count < 99.95 * unit else f"{count / unit:.0f} {letter}"
    return f"{count:.0f}"
