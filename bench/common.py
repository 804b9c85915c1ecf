"""What every bench shares: interleaved timing, ratios with their spread, the machine, the files that are left behind."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from tabulate import tabulate
from threadpoolctl import threadpool_info

from minitinybert.engine.parallel import available_cores
from minitinybert.machine import select

RESULTS = Path(__file__).parent / "results"

# ---------------------------------------------------------------------------------------------------------------------- timing


def measure(
    jobs: Mapping[str, Callable[[int], object]], rounds: int, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each job in each round, interleaved: every round runs all jobs, every other round in reverse order, so that what else
    the machine does hits all alike. A job is told the round's number; warm-up rounds have negative numbers and are not kept."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(-warm_up, rounds):
        for name in list(jobs)[:: 1 if number % 2 else -1]:
            started = clock()
            jobs[name](number)
            elapsed = clock() - started
            if number >= 0:
                seconds[name].append(elapsed)
    return seconds


def summary(values: Iterable[float]) -> dict[str, Any]:
    """Median and spread of paired ratios (or of seconds)."""
    values = list(values)
    low, high = np.percentile(values, [25, 75]).tolist()
    return {"median": statistics.median(values), "quartiles": [low, high], "min": min(values), "max": max(values), "all": values}


def paired(ours: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """ours/other of each round: below 1, ours takes less."""
    return summary(a / b for a, b in zip(ours, other, strict=True))


def spread(ratio: Mapping[str, Any]) -> str:
    return f"{ratio['min']:.2f} – {ratio['max']:.2f}"


# ---------------------------------------------------------------------------------------------------------------------- the machine


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, versions: what figures mean little without."""
    blas = [f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info() if lib["user_api"] == "blas"]
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # above 0 at the start: figures are noisy
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": ", ".join(blas),
        "torch": torch.__version__,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    names = [fields.get("model name", platform.processor())]
    names += [f"{name} {fields[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in fields]
    return ", ".join(names)


def describe(about: Mapping[str, Any]) -> str:
    return (
        f"{about['processor']}; {about['threads']} of {about['cores']} cores, load {about['load']}; Python {about['python']}, "
        f"NumPy {about['numpy']} ({about['blas']}), PyTorch {about['torch']} ({about['torch_capability']})"
    )


# ---------------------------------------------------------------------------------------------------------------------- options, files


def parser(doc: str | None, pairs: int = 7) -> argparse.ArgumentParser:
    """The options that every bench has."""
    p = argparse.ArgumentParser(description=(doc or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--threads", type=int, default=available_cores(), help="ours, and PyTorch's")
    p.add_argument("--pairs", type=int, default=pairs, help="rounds of measurements")
    p.add_argument("--quick", action="store_true", help="two rounds of little work: whether it runs, not figures")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where NAME.json and NAME.png go (NAME-quick with --quick)")
    return p


def begin(args: argparse.Namespace, passes: bool = True) -> dict[str, Any]:
    """As many threads for PyTorch as for us; numba's passes where they are installed, as a command has them, unless told not to; the
    machine's description, printed and returned."""
    if args.quick:
        args.pairs = min(args.pairs, 2)
    if passes:
        select("cpu")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    about = machine(args.threads)
    print(describe(about), flush=True)
    return about


def write(name: str, args: argparse.Namespace, report: Mapping[str, Any]) -> Path:
    """DIR/NAME.json, written beside and renamed."""
    path = args.out / f"{name}{'-quick' if args.quick else ''}.json"
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {key: _without_folders(value) for key, value in vars(args).items() if key != "out"}
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps({"bench": name, "settings": settings, **report}, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
    return path


def save(name: str, args: argparse.Namespace, report: Mapping[str, Any], draw: Callable[[plt.Figure], None], size=(8.0, 4.5)) -> Path:
    """DIR/NAME.json and DIR/NAME.png, each written beside and renamed; returns the first."""
    path = write(name, args, report)
    beside = path.with_suffix(".partial")
    figure = plt.figure(figsize=size, layout="constrained")
    draw(figure)
    figure.savefig(beside, format="png", dpi=150)
    plt.close(figure)
    os.replace(beside, path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png').name}", flush=True)
    return path


def _without_folders(value: Any) -> Any:
    """A directory by its last name: nobody's folders go into a report."""
    return Path(value).name if isinstance(value, Path) or (isinstance(value, str) and "/" in value) else value


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
    print(tabulate(rows, headers=headers, disable_numparse=True, colalign=["left"] * len(headers)), flush=True)


def ratio_bars(figure: plt.Figure, bars: Mapping[str, Mapping[str, Any]], title: str, label: str) -> None:
    """A bar a ratio with its smallest and largest pair; a line at 1."""
    axes = figure.add_subplot()
    medians = [r["median"] for r in bars.values()]
    errors = [[r["median"] - r["min"] for r in bars.values()], [r["max"] - r["median"] for r in bars.values()]]
    places = np.arange(len(bars))[::-1]
    axes.barh(places, medians, xerr=errors, color=["C0" if m < 1 else "C3" for m in medians], ecolor="0.3", capsize=2)
    for place, ratio in zip(places, bars.values(), strict=True):
        axes.annotate(f" {ratio['median']:.2f}", (ratio["max"], place), va="center", fontsize=8)
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_ylim(-0.7, len(bars) - 0.3)
    axes.set_yticks(places, list(bars), fontsize=8)
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=10)
