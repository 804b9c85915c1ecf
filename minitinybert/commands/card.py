"""A model's card: README.md beside its weights, with the front matter that the Hugging Face hub reads.

What it says is a function of the run alone, so that one that was resumed has the same; of places on
this machine it has the last names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from ..data.glue import Task
from ..distillation.recipes import DEFAULT, RECIPES, Recipe
from ..files import replacing
from ..machine import Machine
from ..model.config import Config
from ..progress import log
from ..training.left import drop
from ..training.loop import Options
from ..weights import hub
from .info import flops, parameters, short
from .remembered import remember, remembered_of

FILE = "README.md"
_PIPELINES = {
    "none": "feature-extraction", "classifier": "text-classification", "mlm": "fill-mask", "tokens": "token-classification",
    "spans": "question-answering",
}  # fmt: skip
_ON_THE_HUB = {"pearson": "pearsonr", "spearman": "spearmanr"}  # metrics' names there, where these are others
_GLUE = {
    "cola": "cola", "sst-2": "sst2", "mrpc": "mrpc", "sts-b": "stsb", "qqp": "qqp", "mnli": "mnli", "qnli": "qnli", "rte": "rte",
    "wnli": "wnli",
}  # fmt: skip


class Teacher(NamedTuple):
    name: str
    config: Config
    scores: Mapping[str, float]  # on dev


class Made(NamedTuple):
    """How a model was made: the command and its arguments, in the order in which they are shown; the
    length of its examples, in word pieces."""

    command: str
    arguments: Sequence[tuple[str, Any]]
    length: int
    base: str  # the model that it was made of: a place, or a hub's id
    task: Task | None = None
    teacher: Teacher | None = None


def write_card(out: Path, config: Config, made: Made, results: Mapping[str, Mapping[str, float]]) -> None:
    """Write out/README.md, but where there is one that somebody has changed. results: {split:
    {metric: value}}."""
    out = Path(out)
    if _is_changed(out / FILE):
        log(f"{out / FILE}: has been changed since it was made, and stays")
        return
    text = "\n".join([*_front(out.resolve().name, config, made, results), "", *_body(out.resolve().name, config, made, results), ""])
    with replacing(out / FILE) as beside:
        beside.write_text(text + _seal(text), encoding="utf-8")


def _seal(text: str) -> str:
    """A last line, which no page shows, by which a card is known that is as it was made."""
    return f"\n<!-- made by minitinybert {zlib.crc32(text.encode()):08x} -->\n"


def _is_changed(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # no text
        return True
    length = len(_seal(""))
    return text[-length:] != _seal(text[:-length])


def leave(out: Path, config: Config, made: Made, results: Mapping[str, Mapping[str, float]], machine: Machine, keep_state: bool) -> None:
    """What goes with a model, by the first rank: its card and, of a task, what it remembers; then what
    nobody needs any more goes away. All ranks wait."""
    if machine.workers.ranks.first:
        if made.task is not None:
            remember(out, remembered_of(made.task))
        write_card(out, config, made, results)
        if not keep_state:
            drop(out)
    machine.workers.ranks.wait()


def of_options(options: Options, prefix: str = "") -> list[tuple[str, Any]]:
    """The command line's options of a step."""
    return [(f"--{prefix}epochs", options.epochs), (f"--{prefix}lr", options.lr)]


def of_all_steps(options: Options) -> list[tuple[str, Any]]:
    return [("--batch-size", options.batch_size), ("--warmup", options.warmup), ("--seed", options.seed)]


def of_task(task: Task, data: str | Path) -> list[tuple[str, Any]]:
    known = remembered_of(task)
    given: list[tuple[str, Any]] = [("--data", named(data))]
    if known.task != "custom":
        given = [("--task", known.task), *given]
    else:
        given += [("--text-columns", ",".join(known.text_columns)), ("--label-column", known.label_column)]
        given += [("--regression", None)] if task.labels is None else []
    given += [("--drop-unlabelled", None)] if known.drop_unlabelled else []
    return given + ([("--split-seed", known.parts.seed)] if known.parts else [])


def of_recipe(recipe: Recipe) -> list[tuple[str, Any]]:
    """--recipe and, where none is this one, what is set on top of the default."""
    name = next((name for name, known in RECIPES.items() if known == recipe), None)
    if name is not None:
        return [("--recipe", name)]
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    changed = {name: value for name, value in values.items() if value != getattr(DEFAULT, name)}
    return [("--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}") for name, value in changed.items()]


def named(place: str | Path) -> str:
    """A hub's id as it is, of a place its last name."""
    text = str(place)
    path = Path(text)
    return text if not path.exists() else path.name


# -------------------------------------------------------------------------------------------------------------------- the text


def _front(name: str, config: Config, made: Made, results: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The YAML; strings are JSON's, which are YAML's too."""
    shown = lambda text: json.dumps(text, ensure_ascii=False)
    relu = config.head == "classifier" and config.classifier_relu
    lines = ["---", f"library_name: {'minitinybert' if relu else 'transformers'}", f"pipeline_tag: {_PIPELINES[config.head]}"]
    lines += ["tags:", "- minitinybert", "- bert", *(["- tinybert", "- distillation"] if made.teacher else [])]
    id = None if Path(made.base).exists() else hub.parse(made.base)
    lines += [f"base_model: {shown(id.repository)}"] if id else []
    if made.task is None or not results:
        return [*lines, "---"]
    metrics = list(dict.fromkeys(metric for values in results.values() for metric in values))
    lines += ["metrics:", *(f"- {_ON_THE_HUB.get(metric, metric)}" for metric in metrics)]
    lines += ["model-index:", f"- name: {shown(name)}", "  results:"]
    for split, values in results.items():
        lines += ["  - task:", f"      type: {_PIPELINES[config.head]}", "    dataset:"]
        glue = _GLUE.get(made.task.name)
        given = dict(made.arguments)
        kind = ["      name: GLUE", "      type: glue", f"      config: {glue}"] if glue else []
        data = shown(str(given.get("--data", made.task.name)))
        lines += [*(kind or [f"      name: {data}", f"      type: {data}"]), f"      split: {shown(split)}", "    metrics:"]
        for metric, value in values.items():
            lines += [f"    - type: {_ON_THE_HUB.get(metric, metric)}", f"      name: {metric}", f"      value: {value:.6f}"]
    return [*lines, "---"]


def _body(name: str, config: Config, made: Made, results: Mapping[str, Mapping[str, float]]) -> list[str]:
    command = " ".join([f"minitinybert {made.command}", *(_argument(*each) for each in made.arguments)])
    lines = [f"# {name}", "", f"{_what(config, made)} Made by minitinybert:", "", f"    {command}", ""]
    if config.head == "classifier" and made.task and made.task.labels:
        lines += [f"Labels: {', '.join(config.labels)}.", ""]
    if results:
        lines += ["| data | " + " | ".join(next(iter(results.values()))) + " |", "|---" * (1 + len(next(iter(results.values())))) + "|"]
        lines += [f"| {split} | " + " | ".join(f"{value:.4f}" for value in values.values()) + " |" for split, values in results.items()]
        if made.teacher and made.teacher.scores:
            lines += [f"| dev, the teacher | {' | '.join(f'{value:.4f}' for value in made.teacher.scores.values())} |"]
        lines += [""]
    lines += _sizes(config, made)
    if config.head == "classifier" and not config.classifier_relu:
        asked = f'pipeline("text-classification", {json.dumps(name, ensure_ascii=False)})'
        lines += ["", "```python", "from transformers import pipeline", "", asked, "```"]
    return lines


def _what(config: Config, made: Made) -> str:
    on = f" on {made.task.name if made.task.name != 'custom' else dict(made.arguments)['--data']}" if made.task else ""
    if made.teacher:
        return f"A BERT of {config.shape}, distilled from {made.teacher.name}{on} by TinyBERT's method (arXiv 1909.10351)."
    return f"A BERT of {config.shape}, {'fine-tuned' if made.task else 'trained as a masked language model'}{on}."


def _argument(option: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    quoted = json.dumps(text, ensure_ascii=False) if set(text) - set(_PLAIN) else text
    return option if value is None else f"{option} {quoted}"


_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,=+@"


def _sizes(config: Config, made: Made) -> list[str]:
    names = [("this model", config), *([("its teacher", made.teacher.config)] if made.teacher else [])]
    lines = [f"| | shape | parameters | of the encoder | FLOPs at {made.length} tokens |", "|---|---|---|---|---|"]
    for name, each in names:
        counts = parameters(each)
        lines.append(f"| {name} | {each.shape} | {short(counts['all'])} | {short(counts['encoder'])} | {short(flops(each, made.length))} |")
    return lines
