"""What an ablation found: means and deviations over the seeds, beside the paper's figures, and which
of the paper's orders hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tabulate import tabulate

from ...progress import folded
from .variants import FULL, PAPER_TASKS, VARIANTS

_LEVEL = 0.05  # of the paired t-test over the seeds; a larger p: the seeds do not tell


def summarise(values: Mapping[str, Mapping[int, float]], task: str, constant: float) -> dict[str, Any]:
    """The report of {variant: {seed: 100 × metric}} on a task, where a constant answer reaches
    `constant`: means, differences to "full", collapsed students, and a verdict on every pair of
    variants that the paper puts in an order.

    Deviations are of a sample (n − 1), None with one seed. Differences are means over the seeds
    that both variants have. A verdict is "holds" or "does not hold" where a paired t-test over
    these seeds tells the two apart, else "not distinguishable", as with one seed always.
    """
    paper = {v.name: v.paper(task) for v in VARIANTS}
    rows = []
    for name, by_seed in values.items():
        if by_seed:
            mean, sd = _mean_sd(list(by_seed.values()))
            difference, difference_sd = _mean_sd(_differences(by_seed, values[FULL.name]))
            rows.append(
                {
                    "variant": name,
                    "values": {str(seed): value for seed, value in by_seed.items()},
                    "mean": mean,
                    "sd": sd,
                    "difference": difference,
                    "difference_sd": difference_sd,
                    "collapsed": [seed for seed, value in by_seed.items() if value <= constant],
                    "paper": round(paper[name] + 1e-9, 1),  # a half goes up, as in the paper
                    "paper_difference": round(paper[name] - paper[FULL.name], 1),
                }
            )
    checks: list[dict[str, Any]] = []
    for pair in combinations([name for name, by_seed in values.items() if by_seed], 2):
        more, less = sorted(pair, key=lambda name: -paper[name])
        if paper[more] > paper[less] and values[more].keys() & values[less].keys():
            differences = _differences(values[more], values[less])
            (difference, sd), p = _mean_sd(differences), _p(differences)
            verdict = "not distinguishable" if p is None or p >= _LEVEL else "holds" if difference > 0 else "does not hold"
            row = {"statement": f"{more} > {less}", "verdict": verdict, "difference": difference, "sd": sd, "p": p}
            checks.append({**row, "paper_difference": round(paper[more] - paper[less], 1)})
    return {"task": task, "constant": constant, "paper_of_this_task": task in PAPER_TASKS, "results": rows, "checks": checks}


def _differences(a: Mapping[int, float], b: Mapping[int, float]) -> list[float]:
    """a − b for each seed of both."""
    return [a[seed] - b[seed] for seed in a if seed in b]


def _mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _p(differences: Sequence[float]) -> float | None:
    """Of a two-sided t-test that the mean difference is 0; None with one."""
    from scipy import stats

    mean, sd = _mean_sd(differences)
    if sd is None:
        return None
    if sd == 0:
        return 1.0 if mean == 0 else 0.0
    n = len(differences)
    return float(2 * stats.t.sf(abs(mean) * math.sqrt(n) / sd, n - 1))


def format_table(report: dict[str, Any]) -> str:
    """The report for a terminal: a row a variant beside the paper's figures, what was left out and
    who collapsed, and the paper's order pair by pair."""
    rows = [
        [
            row["variant"],
            f"{_spread(row['mean'], row['sd'])} ({len(row['values'])})",
            "" if row["variant"] == FULL.name else _spread(row["difference"], row["difference_sd"], "+"),
            f"{row['paper']:.1f}",
            "" if row["variant"] == FULL.name else f"{row['paper_difference']:+.1f}",
        ]
        for row in report["results"]
    ]
    headers = ["variant", f"{report['metric']} x 100 (seeds)", "to full", "paper", "to full"]
    align = ("left", *["right"] * 4)
    table = tabulate(rows, headers, disable_numparse=True, colalign=align).splitlines()
    lines = [f"{report['task']}, dev, mean ± standard deviation; the teacher has {report['teacher']:.1f}."]
    of = f"of {report['task']}" if report["paper_of_this_task"] else "means of MNLI-m, MNLI-mm, MRPC and CoLA: it has none of this task"
    lines.append(f"The paper's figures are {of}.")
    lines += [f"{name} is left out: {reason}" for name, reason in report["left_out"].items()]
    for row in report["results"]:
        if row["collapsed"]:
            seeds = " ".join(map(str, row["collapsed"]))
            lines.append(f"{row['variant']} has collapsed with seed {seeds}: no better than a constant answer, {report['constant']:.1f}")
    for check in report["checks"]:
        p = "" if check["p"] is None else f", p = {check['p']:.2g}"
        found = _spread(check["difference"], check["sd"], "+")
        lines.append(f"{check['statement']}: {check['verdict']}, {found}{p} (paper {check['paper_difference']:+.1f})")
    return "\n".join([*table, "", *map(folded, lines)])


def _spread(mean: float, sd: float | None, sign: str = "") -> str:
    return f"{mean:{sign}.1f}" + ("" if sd is None else f" ± {sd:.1f}")
