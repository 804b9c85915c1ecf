"""What an ablation found: means and deviations over the seeds, beside the paper's figures, and
whether the paper's order holds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from .variants import FULL, ORDER, VARIANTS


def summarise(values: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """The report of {variant: {seed: 100 × metric}}: means, differences to "full", and whether the
    paper's order holds.

    Deviations are of a sample (n − 1), None with one seed. Differences are means over the seeds
    that both variants have.
    """
    paper = {v.name: v.paper for v in VARIANTS}
    rows = []
    for name, by_seed in values.items():
        if by_seed:
            mean, sd = _mean_sd(list(by_seed.values()))
            difference, difference_sd = _difference(by_seed, values[FULL.name])
            rows.append(
                {
                    "variant": name,
                    "values": {str(seed): value for seed, value in by_seed.items()},
                    "mean": mean,
                    "sd": sd,
                    "difference": difference,
                    "difference_sd": difference_sd,
                    "paper": paper[name],
                    "paper_difference": round(paper[name] - FULL.paper, 1),
                }
            )
    checks = []
    for more, less in ORDER:
        if values.get(more, {}).keys() & values.get(less, {}).keys():
            difference, sd = _difference(values[more], values[less])
            row = {"statement": f"{more} ≥ {less}", "holds": difference >= 0, "difference": difference, "sd": sd}
            checks.append({**row, "paper_difference": round(paper[more] - paper[less], 1)})
    return {"results": rows, "checks": checks}


def _difference(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float | None]:
    """Mean and deviation of a − b over the seeds of both."""
    return _mean_sd([a[seed] - b[seed] for seed in a if seed in b])


def _mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def format_table(report: dict[str, Any]) -> str:
    """The report for a terminal: a row a variant beside the paper's figures, what was left out, and
    the order."""
    table = [
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
    lines = [tabulate(table, headers, disable_numparse=True, colalign=align), ""]
    lines.append(f"{report['task']}, dev, mean ± standard deviation; the teacher has {report['teacher']:.1f}.")
    lines.append("The paper's figures are means of MNLI-m, MNLI-mm, MRPC and CoLA.")
    lines += [f"{name} is left out: {reason}" for name, reason in report["left_out"].items()]
    for check in report["checks"]:
        verdict = "holds" if check["holds"] else "does not hold"
        lines.append(
            f"{check['statement']}: {verdict}, {_spread(check['difference'], check['sd'], '+')} (paper {check['paper_difference']:+.1f})"
        )
    return "\n".join(lines)


def _spread(mean: float, sd: float | None, sign: str = "") -> str:
    return f"{mean:{sign}.1f}" + ("" if sd is None else f" ± {sd:.1f}")
