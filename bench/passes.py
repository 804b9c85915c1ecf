"""What numba's passes take on a CPU, each alone, beside the plain NumPy formula that it replaces: processor time of one thread.

    python bench/passes.py        needs numba: pip install 'minitinybert[fast]'

Forward and backward of each, in float32, at the shapes of a student (312 wide) or a teacher (768) at SST-2's lengths and at full length.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import begin, measure, paired, parser, ratio_bars, save, spread, summary, table

from minitinybert.engine.parallel import keep_freed_memory
from minitinybert.kernels.cpu import operations
from minitinybert.training.optim import PRESETS, Stretch, scalars_of

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "kernels"))
import formulas  # what the kernels are judged by

Pass = Callable[[Any], Callable[[], object]]  # of the operations, formulas or kernels: what is timed


def main() -> None:
    args = parser(__doc__, pairs=31).parse_args()
    args.threads = 1
    about = begin(args, passes=False)
    keep_freed_memory()
    rows = []
    for name, (elements, make) in passes(args).items():
        jobs = {"formula": make(formulas), "kernel": make(operations)}
        seconds = measure({way: lambda _, job=job: job() for way, job in jobs.items()}, args.pairs, 2, time.thread_time)
        rows.append(
            {
                "pass": name,
                "elements": elements,
                "ns_an_element": {way: 1e9 * summary(s)["median"] / elements for way, s in seconds.items()},
                "ratio": paired(seconds["kernel"], seconds["formula"]),
            }
        )
        print(name, end=" ", flush=True)
    print()
    lines = [
        [r["pass"], *(f"{r['ns_an_element'][way]:.2f}" for way in ("formula", "kernel")), f"{r['ratio']['median']:.2f}", spread(r["ratio"])]
        for r in rows
    ]
    table(lines, ["", "formula, ns an element", "kernel", "kernel / formula", "pairs"])
    title = f"Passes by numba, one thread\n{about['processor']}"
    bars = {r["pass"]: r["ratio"] for r in rows}
    save(
        "passes", args, {"machine": about, "rows": rows}, lambda figure: ratio_bars(figure, bars, title, "time of kernel / formula"), (8, 6)
    )


def passes(args: argparse.Namespace) -> dict[str, tuple[int, Pass]]:
    """By name: elements, and what is done to them."""
    rng = np.random.default_rng(args.seed)
    T, size = (40, 5_000) if args.quick else (800, 14_500_000)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)
    keys = lambda *shape: rng.integers(0, 2**64, shape, np.uint64)
    found: dict[str, tuple[int, Pass]] = {}

    for f in (1200, 3072):
        x, dy = normal(T, f), normal(T, f)
        found[f"GELU {f}"] = x.size, lambda ops, x=x: lambda: ops.gelu_forward(x)
        found[f"GELU {f}, backward"] = x.size, _backward(lambda ops, x=x: ops.gelu_forward(x)[1], "gelu_backward", dy)
    for d, rate in ((312, 0.1), (768, 0.0)):
        a, x, dy, gain, bias, of_row = normal(T, d), normal(T, d), normal(T, d), normal(d), normal(d), keys(T)
        given = a, x, gain, bias, 1e-12, rate, of_row
        name = f"add & norm {d}{', dropout' if rate else ''}"
        found[name] = x.size, lambda ops, given=given: lambda: ops.add_norm_forward(*given)
        found[f"{name}, backward"] = x.size, _backward(lambda ops, given=given: ops.add_norm_forward(*given)[1], "add_norm_backward", dy)
    found["layer norm 312"] = T * 312, lambda ops: lambda: ops.layer_norm_forward(*layer)
    layer = normal(T, 312), normal(312), normal(312), 1e-12
    for L, rate in ((13, 0.1), (25, 0.1), (128, 0.1), (25, 0.0), (128, 0.0)):
        n = max(1, T // L)
        A, dD, of_row = normal(n, 12, L, L), normal(n, 12, L, L), keys(n, 12, L)
        given = A, None, rate, of_row
        name = f"softmax {L}{', dropout' if rate else ''}"
        found[name] = A.size, lambda ops, given=given: lambda: ops.weigh(*given)
        if rate:
            found[f"{name}, backward"] = A.size, _backward(lambda ops, given=given: ops.weigh(*given)[1], "weigh_backward", dD)
    x, of_row = normal(T, 312), keys(T)
    found["dropout 312"] = x.size, lambda ops: lambda: ops.dropout_forward(x, 0.1, of_row)
    ids, into = rng.integers(0, 2_000, T), normal(30_522, 312)
    found["add rows 312"] = x.size, lambda ops: lambda: ops.add_rows(into, ids, x)
    theta, g, m, v = normal(size), normal(size), normal(size), np.abs(normal(size))
    stretch, scalars = Stretch(theta, g, m, v), scalars_of(PRESETS["adamw"], 1e-5, 3)
    found["Adam"] = size, lambda ops: lambda: ops.update(stretch, scalars, size // 2, np.float32(0.5))
    return found


def _backward(cache_of: Callable[[Any], Any], name: str, dy: np.ndarray) -> Pass:
    def make(ops: Any) -> Callable[[], object]:
        cache, backward = cache_of(ops), getattr(ops, name)
        return lambda: backward(dy, cache)

    return make


if __name__ == "__main__":
    main()
