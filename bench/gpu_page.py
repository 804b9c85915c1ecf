"""The page of gpu.py's results: `python bench/gpu.py --markdown FILE.json ...`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

UNITS = {"products_ms": "cuBLAS's products", "cores_ms": "arithmetic on CUDA cores", "memory_ms": "memory"}


class NotAReport(Exception):
    """A file that gpu.py did not write; the message is one line for the user."""


def held_by(row: Mapping[str, Any]) -> str:
    """The largest floor of a part, and how much of its time that is: near all of it, only less of that makes it quicker; of a small
    share, the kernels can be quicker."""
    largest = UNITS[max(UNITS, key=lambda name: row[name])]
    floors = {"the host": row["host_ms"]["median"], "launches": row["launches_ms"], f"{largest} (roofline)": row["roofline_ms"]}
    name = max(floors, key=lambda name: floors[name])
    return f"{name}, {floors[name] / row['ours_ms']['median']:.0%}"


def peaks_said(peaks: Mapping[str, Any]) -> str:
    """What `gpu.device_peaks` has measured, in a line."""
    said = [f"products in {name} {_figure(peak, 1e-12)} TFLOP/s" for name, peak in peaks["flops"].items()]
    said += [f"float32 on CUDA cores {_figure(peaks['cores'], 1e-12)} TFLOP/s", f"a copy {_figure(peaks['bytes'], 1e-9, 0)} GB/s"]
    return "; ".join([*said, f"an empty launch {_figure(peaks['launch'], 1e6)} µs"])


def page(files: Sequence[Path]) -> str:
    """Markdown: a part a file, with every figure's median, smallest and largest."""
    return "\n".join(_part(_read(file)) for file in files)


def _read(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotAReport(f"{file}: {error.strerror}; give JSON files that gpu.py has written") from None
    except ValueError:
        raise NotAReport(f"{file} is no JSON; give files that gpu.py has written") from None
    if not isinstance(report, dict) or report.get("bench") != "gpu" or "cores" not in report.get("peaks", {}):
        raise NotAReport(f"{file} is no report of this gpu.py; give JSON files that it has written")
    return report


def _part(report: Mapping[str, Any]) -> str:
    about, settings = report["machine"], report["settings"]
    torch = f"PyTorch {about['torch']} (CUDA {about['torch_cuda']}) on {about['torch_device']}" if about["torch_device"] else "no PyTorch"
    lines = [
        f"## {about['device']}: {'TF32' if settings['tf32'] else 'float32'}, teacher in {settings['teacher_dtype']}",
        "",
        f"Compute capability {about['compute_capability']}, driver {about['driver']}, CuPy {about['cupy']}, {torch}; {about['processor']}. "
        f"Teacher {report['teacher']}; student {report['student']}; batches of {settings['batch_size']}; {settings['pairs']} interleaved "
        "rounds, medians (smallest – largest), milliseconds a batch.",
        "",
        f"Peaks, measured in the same run: {peaks_said(report['peaks'])}.",
        "",
        "| | | ours | PyTorch | | ours / PyTorch | roofline | by launches | host | ours is held by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        theirs = ["–", "–", "–"]
        if row["torch"]:
            theirs = [row["torch"], _figure(row["torch_ms"]), _figure(row["ratio"])]
        cells = [row["case"], row["part"], _figure(row["ours_ms"]), *theirs, f"{row['roofline_ms']:.2f}", f"{row['launches_ms']:.2f}"]
        lines.append(f"| {' | '.join([*cells, _figure(row['host_ms']), held_by(row)])} |")
    lines += ["", *(f"torch.compile, {way}: {said}." for way, said in report["torch_compile"].items() if said != "works")]
    lines += [f"The case {name} failed: {why.splitlines()[0]}" for name, why in report["failed"].items()]
    lines += [f"Not measured: {name}." for name in report["to come"]]
    return "\n".join(lines).rstrip() + "\n"


def _figure(values: Mapping[str, Any], scale: float = 1.0, digits: int = 2) -> str:
    median, low, high = (f"{values[name] * scale:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} ({low} – {high})"
