"""Pictures of a run: the losses over its steps, and what a teacher and its student attend to in one
sentence.

Each is a Figure of matplotlib, which a notebook shows and `save` writes. pyplot, whose figures and
backend are the whole process's, has no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..files import replacing
from ..training import loop

_COLUMNS = 3


def read_metrics(path: Path) -> tuple[dict[str, tuple[list[int], list[float]]], tuple[list[int], list[float]]]:
    """A run's metrics.jsonl as {loss: (steps, values)}, a layer's part of one as "hidden.2", and
    (steps, dev metric)."""
    losses: dict[str, tuple[list[int], list[float]]] = {}
    dev: tuple[list[int], list[float]] = ([], [])
    for row in loop.read_metrics(path):
        for name, value in {**row.get("losses", {}), **row.get("layers", {})}.items():
            steps, values = losses.setdefault(name, ([], []))
            steps.append(row["step"])
            values.append(value)
        if row.get("dev"):
            dev[0].append(row["step"])
            dev[1].append(next(iter(row["dev"].values())))
    return losses, dev


def loss_curves(runs: Mapping[str, Path]) -> Figure:
    """A panel a run ({title: metrics.jsonl}): its losses (on a log scale where they span much), thin
    and numbered each layer's part of them, the dev metric where there is one."""
    columns = min(len(runs), _COLUMNS)
    rows = -(-len(runs) // columns)
    figure = Figure((4.8 * columns, 3.6 * rows))
    figure.set_layout_engine("constrained", wspace=0.08)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis, (title, metrics) in zip(axes.flat, runs.items(), strict=False):
        losses, dev = read_metrics(metrics)
        colours: dict[str, Any] = {}
        for name, (steps, values) in losses.items():
            term, _, layer = name.partition(".")
            if layer:  # thin, in the colour of the loss that it is a part of, with its number at the end
                axis.plot(steps, values, linewidth=0.7, color=colours[term], alpha=0.8)
                axis.annotate(layer, (steps[-1], values[-1]), fontsize=6, color=colours[term])
            else:
                (line,) = axis.plot(steps, values, label=name.replace("_", " "), linewidth=1.6)
                colours[term] = line.get_color()
        seen = [value for _, values in losses.values() for value in values]
        axis.set(title=title, xlabel="step", ylabel="loss", yscale="log" if max(seen) > 30 * min(seen) > 0 else "linear")
        if axis.get_yscale() == "linear":
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        lines, labels = axis.get_legend_handles_labels()
        if dev[0]:
            right = axis.twinx()
            right.plot(dev[0], dev[1], "k.--", label="dev accuracy")
            right.set(ylim=(0, 1), ylabel="dev accuracy")
            more_lines, more_labels = right.get_legend_handles_labels()
            lines, labels = lines + more_lines, labels + more_labels
        axis.legend(lines, labels, fontsize=8, frameon=False)
    return figure


def attention_maps(
    tokens: Sequence[str],
    teacher: Sequence[np.ndarray],
    student: Sequence[np.ndarray],
    titles: Sequence[tuple[str, str]],
) -> Figure:
    """Teacher above student, a column for each mapped pair of layers; each map (L, L) is a mean
    over heads of softmax(A). titles: (teacher's, student's) for every column."""
    columns = len(student)
    size = max(2.6, 0.24 * len(tokens))
    figure = Figure((size * columns + 1.2, size * 2 + 0.8), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    top = max(float(a.max()) for a in (*teacher, *student))
    for column in range(columns):
        for row, maps in enumerate((teacher, student)):
            axis = axes[row, column]
            image = axis.imshow(maps[column], cmap="viridis", vmin=0, vmax=top)
            axis.set_title(titles[column][row], fontsize=9)
            axis.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=7)
            axis.set_yticks(range(len(tokens)), tokens if column == 0 else [], fontsize=7)
    figure.colorbar(image, ax=axes, shrink=0.6, label="attention, mean over heads")
    figure.supylabel("from")
    figure.supxlabel("to")
    return figure


def save(figure: Figure, path: Path) -> None:
    """As a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=130, format="png")


def ablation_chart(report: Mapping[str, Any]) -> Figure:
    """What each variant of `ablate` loses against the full method, a bar each; the deviation over
    seeds, the paper's figure a diamond. report: as `ablation.study.run` returns it."""
    full, rows = report["results"][0], report["results"][1:]
    figure = Figure((7.2, 1.6 + 0.36 * len(rows)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(rows))
    differences = [row["difference"] for row in rows]
    spread = [np.nan if row["difference_sd"] is None else row["difference_sd"] for row in rows]
    axis.barh(places, differences, xerr=spread, height=0.62, color="#4878a8", capsize=3, label="here, ± standard deviation")
    axis.plot([row["paper_difference"] for row in rows], places, "D", color="#d1662a", markersize=6, linestyle="", label="in the paper")
    for place, row in zip(places, rows, strict=True):
        axis.annotate(f"{row['mean']:.1f}", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.margins(x=0.06)
    axis.set_yticks(places, [row["variant"] for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.annotate("mean", (1.01, -0.6), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    axis.grid(axis="x", alpha=0.25)
    seeds = len(full["values"])
    axis.set(
        title=f"{report['task']}: the full method has {full['mean']:.1f} ({seeds} seed{'s' * (seeds > 1)})",
        xlabel=f"difference to the full method, points of {report['metric'].replace('_', ' ')}",
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
