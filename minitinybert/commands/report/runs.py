"""What a run's directory holds: its steps, each with its curves, its settings, and what it says of
teacher, task and data.

    finetune          out/metrics.jsonl
    distill general   out/metrics.jsonl                           W_e, W_h in out/model.safetensors
    distill task      out/intermediate/metrics.jsonl              W_e, W_h in out/intermediate/model.safetensors
                      out/metrics.jsonl                           the student
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...distillation.recipes import DEFAULT, Recipe
from ...errors import InputError
from ...training.loop import Options, read_metrics

MOST_RUNS = 8  # of a page: more lines in a picture cannot be told apart
_POINTS = 400  # of a curve
_MOST = 1e300  # of a number, so that sums and quotients of such are finite: JSON's whole numbers have no end
_NAMES = {
    "distill general": "general distillation",
    "distill intermediate": "intermediate step",
    "distill prediction": "prediction step",
    "pretrain": "masked words",
}
Curve = tuple[list[int], list[float]]  # steps, values


@dataclass(frozen=True)
class Step:
    """One training of a run, in a directory of its own."""

    name: str
    path: Path
    rows: list[dict[str, Any]]
    about: Mapping[str, Any]  # what `commands/record.py` and training/loop.py wrote; empty where nothing is known

    @property
    def settings(self) -> Mapping[str, Any]:
        return _mapping(self.about.get("settings"))

    @property
    def recipe(self) -> Recipe:
        """The switches that the step was taken with; the default's where nothing is known of one."""
        try:
            return Recipe(**{field.name: self.settings[field.name] for field in fields(Recipe) if field.name in self.settings})
        except (InputError, TypeError, ValueError, AttributeError):  # of a file that somebody wrote into
            return DEFAULT

    @property
    def steps_of_epoch(self) -> float:
        """How many steps an epoch has, 0 where no line says."""
        last = next((row for row in reversed(self.rows) if _number(row.get("epoch")) and row["epoch"]), None)
        return last["step"] / last["epoch"] if last else 0.0

    def told(self) -> dict[str, Any]:
        """How long and how fast the step was, and the switches of its recipe that are not the
        default's."""
        shown = [field.name for field in fields(Options) if field.name not in ("log_every", "save_every")]
        plain = {name: self.settings[name] for name in ("examples", "max_length", *shown) if name in self.settings}
        usual = asdict(DEFAULT)
        return plain | {name: value for name, value in asdict(self.recipe).items() if value != usual[name] and name not in plain}

    def curves(self) -> dict[str, dict[str, Curve]]:
        """{"losses", "layers" ("hidden.2"), "dev", "lr"}: {name: (steps, values)}."""
        found: dict[str, dict[str, Curve]] = {"losses": {}, "layers": {}, "dev": {}, "lr": {}}
        for row in self.rows:
            rate = {"learning rate": row["lr"]} if _number(row.get("lr")) else {}
            for kind, values in (*((kind, row.get(kind, {})) for kind in ("losses", "layers", "dev")), ("lr", rate)):
                for name, value in ((name, value) for name, value in values.items() if _number(value)):
                    steps, seen = found[kind].setdefault(name, ([], []))
                    steps.append(row["step"])
                    seen.append(value)
        return {kind: {name: _thinned(curve) for name, curve in curves.items()} for kind, curves in found.items()}


@dataclass(frozen=True)
class Run:
    name: str
    path: Path
    steps: list[Step]

    @property
    def last(self) -> Step:
        return self.steps[-1]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """InputError where a directory holds no run's metrics, or there are more than MOST_RUNS."""
    found = list({Path(path).resolve(): Path(path) for path in paths}.values())
    if len(found) > MOST_RUNS:
        raise InputError(f"report: {len(found)} runs; at most {MOST_RUNS} can be told apart on a page")
    return [Run(name, path, _steps(path)) for name, path in zip(_names(found), found, strict=True)]


def _steps(path: Path) -> list[Step]:
    metrics = [place / "metrics.jsonl" for place in (path / "intermediate", path) if (place / "metrics.jsonl").is_file()]
    if not metrics:
        raise InputError(f"{path}: no metrics.jsonl in it; give the --out of finetune, distill general or distill task")
    return [_step(file) for file in metrics]


def _step(file: Path) -> Step:
    rows = [row for row in read_metrics(file) if 0 <= row["step"] < _MOST]
    if not rows:
        raise InputError(f"{file}: no line of it is a run's; give a run that has come to its first line of metrics")
    about = _mapping(rows[0].get("run"))
    what = str(about.get("what", ""))
    name = _NAMES.get(what) or ("fine-tuning" if what.startswith("finetune") else _guessed(file, rows))
    return Step(name, file.parent, rows, about)


def _guessed(file: Path, rows: list[dict[str, Any]]) -> str:
    """Which training it was, where no line says: by its losses."""
    losses = {name for row in rows for name in row.get("losses", {})}
    if losses & {"hidden", "attention", "embedding"}:
        return _NAMES["distill intermediate"] if file.parent.name == "intermediate" else _NAMES["distill general"]
    return _NAMES["distill prediction"] if "prediction" in losses else "fine-tuning"


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path; of those that share it, as many parts as it takes."""
    parts = [path.resolve().parts for path in paths]
    depth = [1] * len(parts)
    while True:
        names = ["/".join(own[-n:]) for own, n in zip(parts, depth, strict=True)]
        twice = [i for i, name in enumerate(names) if names.count(name) > 1 and depth[i] < len(parts[i])]
        if not twice:
            return names
        for i in twice:
            depth[i] += 1


def _thinned(curve: Curve) -> Curve:
    """At most _POINTS points: each the mean of its share of the curve."""
    steps, values = curve
    size = math.ceil(len(steps) / _POINTS)
    if size <= 1:
        return curve
    parts = [slice(i, i + size) for i in range(0, len(steps), size)]
    return [steps[part][-1] for part in parts], [sum(values[part]) / len(values[part]) for part in parts]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _MOST
