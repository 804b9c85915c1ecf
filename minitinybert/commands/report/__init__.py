"""`minitinybert report RUN… --out report.html`: what runs did, on one page that needs no network.

    runs.py ─▶ curves, settings ──────────────────────────────────┐
            └▶ models ─┬▶ answers.py: scores, tests, calibration ─┼▶ figures.py ─▶ page.py ─▶ report.html
                       └▶ inside.py: attention, layers, maps ─────┘               (report.css, report.js)

A page is bounded: at most runs.MOST_RUNS runs, and of each teacher inside.MOST_SENTENCES sentences
of inside.MOST_PIECES word pieces; curves, examples and pictures are thinned or cut, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import replacing
from ...machine import Machine
from .collector import Asked
from .figures import collect
from .page import render


def report(runs: Sequence[Path], out: Path, machine: Machine, asked: Asked | None = None) -> dict[str, Any]:
    """Write the page `out` of what the directories `runs` hold: the --out of finetune, distill general
    or distill task. asked: what else is told or wanted of it.

    Returns {"report": its path, "bytes", "runs": their names, "models": {name: {metric: [value, low,
    high]}}, "left_out": what could not be shown and why}. InputError where a directory holds no run,
    what was asked for cannot be had, or `out` is no name of a page.
    """
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"--out {out}: a page's name, that ends in .html, is needed")
    figures = collect(runs, machine, asked or Asked())
    text = render(figures)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as beside:
        beside.write_bytes(text.encode("utf-8", "replace"))  # a path may hold bytes that are no text
    judged = {model["name"]: model["scores"] for group in figures["groups"] for model in group["models"]}
    return {
        "report": str(out),
        "bytes": out.stat().st_size,
        "runs": [run["name"] for run in figures["runs"]],
        "models": judged,
        "left_out": figures["notes"],
    }
