"""The tables of speed.md, and README's one figure, from results/*.json.

    python bench/tables.py

Each table stands between <!-- NAME --> and <!-- end --> in speed.md. A result that is not there, or is of a bench before it had all sides,
leaves its table as it stands and is named.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PAGE, README = HERE / "results", HERE / "speed.md", HERE.parent / "README.md"
FIGURE = re.compile(r"\(a step on [^:()]+: \d\.\d\d of PyTorch's best float32\)")
Report = Mapping[str, Any]
BEST = ("", ', "medium"')  # endings of PyTorch's two ways in float32


def main(directory: Path = RESULTS, page: Path = PAGE, readme: Path = README) -> None:
    found = reports(directory)
    text = page.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{page.name} has no place for the table {name}")
        table = make(found)
        if table is not None:
            text = pattern.sub(lambda match, table=table: f"{match[1]}\n{table}\n{match[2]}", text)
        else:
            print(f"{name}: no result with all sides; its table is left as it stands", file=sys.stderr)
    page.write_text(text, encoding="utf-8")
    if "step" in found:
        report = found["step"]
        figure, processor = best(report, cases(report)[0], "step")["ratio"]["median"], report["machine"]["processor"].partition(",")[0]
        words = readme.read_text(encoding="utf-8")
        if not FIGURE.search(words):
            raise SystemExit(f"{readme.name} has no figure of a step")
        said = f"(a step on {processor}: {figure:.2f} of PyTorch's best float32)"
        readme.write_text(FIGURE.sub(lambda _: said, words), encoding="utf-8")


def reports(directory: Path) -> dict[str, Report]:
    """The results by their benches' names; those of time only where each side's products are told."""
    found = {}
    for path in sorted(directory.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(report, dict) and (path.stem == "memory" or "gemm" in report.get("machine", {})):
            found[path.stem] = report
    return found


# ---------------------------------------------------------------------------------------------------------------------- tables


def machine(found: Mapping[str, Report]) -> str | None:
    """Whose products are compared; and each other bench's load, or machine where it is another."""
    if "step" not in found:
        return None
    about = found["step"]["machine"]
    rows = [[who, f"{peak['gflops']:.0f}", peak["code"]] for who, peak in about["gemm"].items()]
    loads = {name: report["machine"] for name, report in found.items() if name in TABLES}
    others = sorted({m["processor"] for m in loads.values()} - {about["processor"]})
    said = f"{about['processor']}, {about['threads']} threads; NumPy {about['numpy']}, PyTorch {about['torch']}. "
    said += "Load before each: " + ", ".join(f"{name} {m['load']:.1f}" for name, m in loads.items()) + "."
    said += "".join(f" Some were measured on {other}." for other in others)
    return said + "\n\n" + markdown(["one product of 2048² matrices", "GFLOP/s", "by"], rows)


def aims(found: Mapping[str, Report]) -> str | None:
    """What was aimed at, and what came out."""
    rows = []

    def aim(what: str, goal: float, ratio: Mapping[str, float], floor: str = "", digits: int = 2) -> None:
        median = f"{ratio['median']:.{digits}f}"
        missed = f"{median}, missed" if ratio["median"] > goal else f"**{median}**"
        rows.append([what, f"{goal:g}", missed, f"{ratio['min']:.{digits}f} – {ratio['max']:.{digits}f}", floor])

    if step := found.get("step"):
        listed = []
        for case in cases(step):
            if "×" in case:
                listed += [("student step", case, "student", 0.65), ("teacher forward", case, "teacher", 0.85)]
                listed.append(("whole step", case, "step", 0.8))
            else:
                listed.append(("whole step, its own sorted batches", case, "step", 0.75))
        for what, case, part, goal in listed:
            row = best(step, case, part)
            aim(f"{what}, {case}", goal, row["ratio"], f"{row['floor_ms'] / row['torch_ms']['median']:.2f}")
        adam = step["adam_ms"]["ours"]
        aim("Adam and clipping of the student, ms", 8, {"median": adam, "min": adam, "max": adam}, digits=1)
    if inference := found.get("inference"):
        for row in inference["rows"]:
            if row["batch"] == 1 and "onnxruntime" in row["ratio"]:
                aim(f"one sentence at a time, {row['model']}, of onnxruntime", 1.0, row["ratio"]["onnxruntime"])
    if epoch := found.get("epoch"):
        row = next(r for r in epoch["ratios"] if r["ours"].startswith("prediction, from") and r["released"].endswith("pad 64"))
        aim("a later epoch of the prediction step, of the released scheme padded to 64 (sampled, scaled)", 0.1, row["ratio"], digits=3)
    if memory := found.get("memory"):
        row = next(r for r in memory["rows"] if r["case"] == "32x128")
        aim("memory of a whole step, 32×128", 0.7, row["ratio"])
    if augment := found.get("augment"):
        aim("augmentation, of Algorithm 1 word by word", 0.125, augment["ratio"]["literal loop"], digits=3)
    heads = ["", "aimed at", "measured", "smallest – largest pair", "the products alone"]
    return markdown(heads, rows) if rows else None


def step(found: Mapping[str, Report]) -> str | None:
    if "step" not in found:
        return None
    report, lines = found["step"], []
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in report["rows"]:
        way = next(w for w in ("eager", "pad 64", "dynamic, sorted", "dynamic") if row["torch"].startswith(w))
        groups.setdefault((row["case"], row["part"], way), {})[row["torch"].removeprefix(way)] = row
    for (case, part, way), sides in groups.items():
        first = next(iter(sides.values()))
        fast = min((sides[end] for end in BEST if end in sides), key=lambda r: r["torch_ms"]["median"])
        floor = f"{first['floor_ms'] / fast['torch_ms']['median']:.2f}"
        cells = [ratio(sides[end]["ratio"]) if end in sides else "" for end in ("", ', "medium"', ", bf16", ", compiled")]
        lines.append([f"{case}: {part}", "" if way == "eager" else way, f"{first['ours_ms']['median']:.0f}", floor, *cells])
    adam = ", ".join(f"{name} {ms:.1f}" for name, ms in report["adam_ms"].items())
    heads = ["", "PyTorch's batches", "ours, ms", "floor", "default", '"medium"', "bf16", '"medium", compiled']
    count = report["settings"]["batches"]
    said = f"Of unequal lengths {count} batches are measured, a fair sample of an epoch's by tokens. "
    said += f"Adam of the student's {report['student'].split(',')[0]} parameters, clipping among ours, ms: {adam}."
    return markdown(heads, lines) + "\n\n" + said


def inference(found: Mapping[str, Report]) -> str | None:
    if "inference" not in found:
        return None
    rows = found["inference"]["rows"]
    sides = list(dict.fromkeys(side for row in rows for side in row["ratio"]))
    lines = [
        [f"{row['model']}, {row['sentences']}, batch {row['batch']}", f"{row['per_second']['ours']:.0f}"]
        + [ratio(row["ratio"][side]) if side in row["ratio"] else "" for side in sides]
        for row in rows
    ]
    return markdown(["", "ours, sentences/s", *sides], lines)


def epoch(found: Mapping[str, Report]) -> str | None:
    if "epoch" not in found:
        return None
    report = found["epoch"]
    lines = [
        [r["ours"], f"{r['ours_seconds'] / 60:.1f}", r["released"], f"{r['released_seconds'] / 60:.1f}", ratio(r["ratio"], 3)]
        for r in report["ratios"]
    ]
    heads = [f"an epoch of {report['steps']:,} steps", "minutes", 'in PyTorch, "medium"', "minutes", "ours / released"]
    return markdown(heads, lines) + f"\n\nNot whole epochs: {report['sample']}."


def memory(found: Mapping[str, Report]) -> str | None:
    if "memory" not in found:
        return None
    rows = found["memory"]["rows"]
    mb = lambda value: f"{value['median']:.0f}"
    lines = [[r["case"].replace("x", "×"), mb(r["ours_mb"]), mb(r["torch_mb"]), ratio(r["ratio"])] for r in rows]
    return markdown(["batch × length", "ours, MB", "PyTorch, MB", "ours / PyTorch"], lines)


def augment(found: Mapping[str, Report]) -> str | None:
    if "augment" not in found:
        return None
    report = found["augment"]
    words = report["words_per_second"]
    lines = [["ours", f"{words['ours']:,.0f}", ""]]
    lines += [[name, f"{words[name]:,.0f}", ratio(r, 3)] for name, r in report["ratio"].items()]
    return markdown([f"{report['model']}; {report['data']}", "words/s", "time of ours / of it"], lines)


def growth(found: Mapping[str, Report]) -> str | None:
    if "growth" not in found:
        return None
    lines = []
    for axis, grown in found["growth"]["axes"].items():
        first, last = grown["cases"][0], grown["cases"][-1]
        if axis == "threads":
            of_time, of_memory = (f"{last['speed_up']['median']:.2f} times as fast" if "speed_up" in last else ""), ""
        else:
            of_time, of_memory = (f"{last['growth'][what]['median']:.2f}" for what in ("seconds", "mb"))
        both = lambda what, form, first=first, last=last: f"{first[what]['median']:{form}} – {last[what]['median']:{form}}"
        span = f"{first['x']:,} – {last['x']:,}"
        lines.append([axis, span, both("seconds", ".2f"), of_time, both("mb", ".0f"), of_memory])
    return markdown(["", "from – to", "seconds", "growth of time", "MB", "growth of memory"], lines)


TABLES: dict[str, Callable[[Mapping[str, Report]], str | None]] = {
    "machine": machine,
    "aims": aims,
    "step": step,
    "inference": inference,
    "epoch": epoch,
    "memory": memory,
    "augment": augment,
    "growth": growth,
}

# ---------------------------------------------------------------------------------------------------------------------- parts of them


def cases(report: Report) -> list[str]:
    return list(dict.fromkeys(row["case"] for row in report["rows"]))


def best(report: Report, case: str, part: str) -> Mapping[str, Any]:
    """The row of PyTorch at its best in float32 on the very batches of ours, not compiled."""
    ways = {way + end for way in ("eager", "dynamic, sorted") for end in BEST}
    rows = [row for row in report["rows"] if row["case"] == case and row["part"] == part and row["torch"] in ways]
    return min(rows, key=lambda row: row["torch_ms"]["median"])


def ratio(value: Mapping[str, float], digits: int = 2) -> str:
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f} – {value['max']:.{digits}f})"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = lambda cells: f"| {' | '.join(cells)} |"
    return "\n".join([line(heads), "|" + "---|" * len(heads), *map(line, rows)])


if __name__ == "__main__":
    main()
