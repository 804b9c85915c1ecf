"""python -m minitinybert_reference.store: what the twin gives, kept in stored/ so that float32 can
be judged where PyTorch is not.

stored/<case>.npz     drawn float32 inputs; outputs and gradients of the twin in float64, rounded once to float32
stored/steps.npz      ten distillation steps with each optimiser: inputs, losses, weights
stored/versions.json  what made them
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minitinybert.audit import CASES, MODEL_CASES, OPTIMISER_CASES, Case, Draw, upstream
from minitinybert.audit.steps import PLAIN, distillation
from minitinybert.engine.random import generator
from minitinybert.training.optim import PRESETS

from . import judge, step

SEED = 20191024
FOLDER = Path(__file__).parent / "stored"
STEPS = 10
LEARNING_RATE = 1e-2


def main() -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for case in (*CASES, *MODEL_CASES, *OPTIMISER_CASES):
        write(FOLDER / f"{case.name}.npz", examples(case))
    write(FOLDER / "steps.npz", steps())
    made_by = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__, "seed": SEED}
    (FOLDER / "versions.json").write_text(json.dumps(made_by, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(path.stat().st_size for path in FOLDER.iterdir()) / 1e6:.2f} MB in {FOLDER}")


def examples(case: Case) -> dict[str, np.ndarray]:
    """Of every draw of the audit's matrix what goes in, the upstream gradients, what comes out and
    its gradients, one after the other: all numbers of a dtype in one array, by its name, and where
    each array lies, with the settings, in `json`. (Thousands of small files in one would weigh more
    than the numbers.)"""
    flat: dict[str, list[np.ndarray]] = {}
    listed: list[dict[str, Any]] = []
    for draw in case.sources(SEED):
        inputs = case.draw(draw).cast(np.float32).cast(np.float64)  # float32's values, exact in float64
        outputs, cache = case.run(inputs)
        dy = {} if case.backward is None else upstream(draw, outputs)
        dy = {name: a.astype(np.float32).astype(np.float64) for name, a in dy.items()}
        wanted = list(case.gradients(inputs, dy, cache))
        answers = judge.differentiate(case.name, inputs.arrays, inputs.settings, case.given(cache), dy, wanted)
        listed.append({"settings": inputs.settings, "arrays": []})
        for part, arrays in zip(("in", "dout", "out", "grad"), (inputs.arrays, dy, *answers), strict=True):
            for name, array in arrays.items():
                listed[-1]["arrays"].append((part, name, small(array).dtype.name, array.shape))
                flat.setdefault(small(array).dtype.name, []).append(small(array).reshape(-1))
    return {dtype: np.concatenate(parts) for dtype, parts in flat.items()} | {"json": np.array(json.dumps(listed))}


def steps() -> dict[str, np.ndarray]:
    """Ten distillation steps, dropout on, in float64 from float32 weights:
    <optimizer>/losses/<term> (10,), <optimizer>/weights/<name>."""
    case = next(case for case in MODEL_CASES if case.name == "distill.intermediate")
    inputs = case.draw(Draw(generator(SEED, 1), row=PLAIN)).cast(np.float32).cast(np.float64)
    entries = {f"in/{name}": small(a) for name, a in inputs.arrays.items()}
    entries["settings/json"] = np.array(json.dumps(inputs.settings))
    for optimizer in PRESETS:
        student, teacher, batch = distillation(inputs)
        rates = [LEARNING_RATE] * STEPS
        history, weights, _ = step.imitate(student, teacher, inputs.settings["recipe"], batch, SEED, optimizer, rates)
        entries |= {f"{optimizer}/losses/{term}": small(np.array([losses[term] for losses in history])) for term in history[0]}
        entries |= {f"{optimizer}/weights/{name}": small(w) for name, w in weights.items()}
    entries["seed"], entries["rates"] = np.array(SEED), np.array(rates)
    return entries


def small(a: np.ndarray) -> np.ndarray:
    """Numbers as float32, ids as int32; dropout's keys and masks as they are."""
    kinds: dict[str, Any] = {"f": np.float32, "i": np.int32}
    return np.asarray(a).astype(kinds.get(np.asarray(a).dtype.kind, np.asarray(a).dtype))


def write(path: Path, entries: Mapping[str, np.ndarray]) -> None:
    beside = path.with_suffix(".partial")
    with open(beside, "wb") as file:
        np.savez_compressed(file, **entries)
    os.replace(beside, path)


if __name__ == "__main__":
    main()
