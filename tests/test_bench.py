"""The benches run: each command at tiny shapes leaves its table, JSON and picture. What they measure is nobody's business here."""

import importlib
import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
BENCH = Path(__file__).parent.parent / "bench"
TINY = ["--teacher", "2L-16D-2H-32F", "--student", "1L-8D-2H-16F", "--threads", "1", "--quick"]


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """run(name, options…): the report that `python bench/NAME.py` writes at tiny shapes, and what it prints."""
    monkeypatch.syspath_prepend(str(BENCH))

    def command(name: str, *options: str) -> tuple[dict, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *TINY, "--out", str(tmp_path), *options])
        importlib.import_module(name).main()
        assert (tmp_path / f"{name}-quick.png").read_bytes().startswith(b"\x89PNG")
        assert not list(tmp_path.glob("*.partial"))
        report = json.loads((tmp_path / f"{name}-quick.json").read_text())
        assert report["bench"] == name and report["settings"]["quick"]
        assert {"processor", "cores", "threads", "numpy", "torch"} <= set(report["machine"])
        return report, capsys.readouterr().out

    return command


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def positive(ratio: dict) -> bool:
    return len(ratio["all"]) >= 1 and 0 < ratio["min"] <= ratio["median"] <= ratio["max"] < math.inf


def check_tables(report, tmp_path, capsys):
    """speed.md's tables and README's figure are what the results say; what was not measured stays as it stands."""
    tables = importlib.import_module("tables")
    for row in report["rows"]:
        if row["torch"].startswith("eager"):
            row["ratio"]["median"], row["torch_ms"]["median"] = (0.31, 5.0) if "medium" in row["torch"] else (0.42, 6.0)
    (tmp_path / "step.json").write_text(json.dumps(report))
    (tmp_path / "epoch.json").write_text(json.dumps({"machine": {}}))  # of the bench before it had all sides
    page, readme = tmp_path / "speed.md", tmp_path / "README.md"
    for path, source in ((page, BENCH / "speed.md"), (readme, BENCH.parent / "README.md")):
        path.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    tables.main(tmp_path, page, readme)
    words, before = page.read_text(encoding="utf-8"), (BENCH / "speed.md").read_text(encoding="utf-8")
    assert "| student step, 4×8 | 0.65 | **0.31** |" in words and words.count("| 4×8: ") == 3
    assert ": 0.31 of PyTorch's best float32)" in readme.read_text(encoding="utf-8")
    of = lambda text, name: text.partition(f"<!-- {name} -->")[2].partition("<!-- end -->")[0]
    assert of(words, "epoch") == of(before, "epoch") and "GFLOP/s" in of(words, "machine")
    assert "epoch: no result with all sides" in capsys.readouterr().err
    tables.main(tmp_path, page, readme)
    assert page.read_text(encoding="utf-8") == words


def test_step(run, tmp_path, capsys):
    report, printed = run("step", "--batch-size", "4", "--length", "8", "--pad", "64")
    assert max(report["agreement"].values()) < 1e-3
    ways = {(row["part"], row["torch"]) for row in report["rows"]}
    same = {f"{way}{side}" for way in ("eager", "dynamic, sorted") for side in ("", ', "medium"', ", bf16")}
    others = {f"{way}{side}" for way in ("pad 64", "dynamic") for side in ("", ', "medium"')}
    assert ways == {(part, way) for part in ("teacher", "student", "step") for way in same} | {("step", way) for way in others}
    assert set(report["adam_ms"]) == {"ours", "default", "fused"}
    assert report["machine"]["gemm"].keys() >= {"ours", "PyTorch", 'PyTorch, "medium"', "PyTorch, bf16"}
    assert all(positive(row["ratio"]) and row["floor_ms"] > 0 for row in report["rows"])
    assert "same work" in printed and "ours / PyTorch" in printed
    check_tables(report, tmp_path, capsys)


def test_step_refuses_to_compare_different_work(run, monkeypatch):
    twin = importlib.import_module("torch_twin").TorchStep
    scores = twin._scores
    monkeypatch.setattr(twin, "_scores", lambda *args: 1.01 * scores(*args))
    with pytest.raises(SystemExit, match="do not compute the same.*attention"):
        run("step", "--batch-size", "4", "--length", "8")


def test_epoch(run):
    report, printed = run("epoch", "--size", "800", "--batch-size", "4", "--steps", "3", "--pad", "64")
    assert report["steps"] == 200 and "3 of 200 steps" in report["sample"]
    assert len(report["ratios"]) == 5 and all(positive(row["ratio"]) for row in report["ratios"])
    assert "scaled to 200" in printed


def test_epoch_of_real_files(run, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "data").mkdir()
    lines = [f"{'a good film ' * (1 + i % 3)}\t{i % 2}" for i in range(40)]
    (tmp_path / "data" / "train.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    real = ["--data", str(tmp_path / "data"), "--tokenizer", str(tmp_path)]
    report, _ = run("epoch", *real, "--batch-size", "4", "--steps", "0", "--pad", "64")
    assert report["sentences"].startswith("SST-2 train, mean 7.9") and report["steps"] == 10
    assert str(tmp_path) not in json.dumps(report["settings"])


def test_inference(run):
    report, printed = run("inference", "--batches", "1", "3", "--length", "8")
    assert [(row["batch"], row["model"]) for row in report["rows"]] == [(b, m) for b in (1, 3, 3) for m in ("teacher", "student")]
    assert report["smaller"] > 1 and report["paper"] == {"faster": 9.4, "smaller": 7.5}
    sides = {"PyTorch", 'PyTorch, "medium"', "PyTorch, bf16", *(["onnxruntime"] if installed("onnx") and installed("onnxruntime") else [])}
    assert all(set(row["ratio"]) == sides and all(map(positive, row["ratio"].values())) for row in report["rows"])
    assert set(report["machine"]["gemm"]) == {"ours", *sides}
    assert all(peak["gflops"] > 0 and peak["code"] for peak in report["machine"]["gemm"].values())
    assert "9.4" in printed and "GFLOP/s" in printed


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
def test_memory(run):
    report, _ = run("memory", "--cases", "16x64")
    assert report["rows"][0]["ours_mb"]["min"] > 0 and report["rows"][0]["torch_mb"]["min"] > 0
    assert report["rows"][0]["new_in_a_step_mb"] > 0


def test_augment(run, monkeypatch):
    """Whether the loop's rows are ours, the bench asks itself."""
    monkeypatch.setattr(sys.modules[__name__], "TINY", ["--quick", "--shape", "1L-8D-2H-16F"])
    report, printed = run("augment")
    assert {"ours", "literal loop", "lean loop"} == set(report["words_per_second"])
    assert all(positive(ratio) for ratio in report["ratio"].values())
    assert "× faster" in printed


def test_passes(run, monkeypatch):
    pytest.importorskip("numba", reason="needs numba: pip install 'minitinybert[fast]'")
    monkeypatch.setattr(sys.modules[__name__], "TINY", ["--quick"])
    report, printed = run("passes")
    assert len(report["rows"]) > 15 and all(positive(row["ratio"]) for row in report["rows"])
    assert "kernel / formula" in printed


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
def test_growth(run):
    report, printed = run("growth", "--axes", "layers", "rows")
    assert [case["x"] for case in report["axes"]["layers"]["cases"]] == [1, 2] and set(report["axes"]) == {"layers", "rows"}
    for axis in report["axes"].values():
        assert all(positive(case["seconds"]) and case["mb"]["min"] >= 0 for case in axis["cases"])
        assert {"growth"} == set(axis["cases"][1]) - set(axis["cases"][0])
    assert "of memory" in printed


def test_growth_is_the_exponent_and_threads_the_speed_up(run):
    """Of a time that is 3 x² the exponent is 2; one thread's time over two threads' is the speed-up."""
    growth = importlib.import_module("growth")
    of = lambda seconds: [{"seconds": seconds, "mb": 8.0}] * 2
    tokens = growth._grown("tokens", [2, 4], [of(12), of(48)])["cases"][1]
    assert math.isclose(tokens["growth"]["seconds"]["median"], 2) and tokens["growth"]["mb"]["median"] == 0
    assert growth._grown("threads", [1, 2], [of(9.0), of(5.0)])["cases"][1]["speed_up"]["median"] == 1.8


def test_worth_s_page(monkeypatch, tmp_path):
    """The study's tables come from its log alone: means, what is kept of the teacher, pairs tested on the same examples."""
    monkeypatch.syspath_prepend(str(BENCH))
    worth = importlib.import_module("worth")
    labels = [0, 1] * 50
    line = lambda way, seed, wrong, score: {
        "run": f"sst-2/{way}-{seed}", "task": "sst-2", "way": way, "seed": seed, "steps": 10, "metrics": {"accuracy": score},
        "labels": labels,
        "answers": [1 - label if i < wrong else label for i, label in enumerate(labels)], "parameters": 2e6, "encoder_parameters": 1e6,
    }  # fmt: skip
    rows = [line("teacher", 0, 4, 0.96), line("teacher", 1, 6, 0.94), line("distilled", 0, 10, 0.9), line("distilled", 1, 12, 0.88)]
    rows += [line("undistilled", 0, 30, 0.7), line("without-general", 0, 11, 0.89), line("distilled-20M", 0, 8, 0.92)]
    page, log = tmp_path / "glue.md", tmp_path / "worth.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.write_text((BENCH / "glue.md").read_text(encoding="utf-8"), encoding="utf-8")
    for name, value in {"LOG": log, "PAGE": page, "RESULTS": tmp_path}.items():
        monkeypatch.setattr(worth, name, value)
    monkeypatch.setattr(sys, "argv", ["worth.py", "page"])
    worth.main()
    text = page.read_text(encoding="utf-8")
    assert "| distilled                          | 0.890 ± 0.014 | 2       | 93.7%" in text
    assert "| fine-tuned                         | 0.700" in text
    assert "| sst-2  | fine-tuned                         | 0      | +0.200 (+0.120 … +0.280) | 1.9e-06 | McNemar, 20 against 0 |" in text
    assert "| sst-2  | 0.890 | 0.900 | 0.920  |" in text and (tmp_path / "worth.png").read_bytes().startswith(b"\x89PNG")
    worth.main()
    assert page.read_text(encoding="utf-8") == text
