"""Fine-tunes a small BERT on the device by the command line: twice undisturbed, once stopped by a signal and resumed. All three have
to end in the same bytes, and the loss has to go down. With .data (README.md) a real model and SST-2; else a model of random weights,
and sentences made here whose label is that of the feeling they name.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from minitinybert.data.vocabulary import train_vocabulary
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ROOT / ".data"
FEELINGS = (["dull", "boring", "flat", "stale", "awful"], ["good", "warm", "funny", "rich", "lovely"])
THINGS = ["film", "story", "plot", "cast", "score", "script"]


def given(work: Path, lines: int) -> tuple[Path, Path]:
    """The model and so many lines of the data that were brought."""
    models = [folder for folder in sorted(GIVEN.iterdir()) if (folder / "config.json").exists()]
    if len(models) != 1:
        raise SystemExit(f"{GIVEN} has {len(models)} folders with a config.json; bring one model")
    for split in ("train", "dev"):
        rows = (GIVEN / "SST-2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        (work / f"{split}.tsv").write_text("".join(rows[: lines + 1]), encoding="utf-8")
    return models[0], work


def made(work: Path, lines: int) -> tuple[Path, Path]:
    """A model of two layers with a vocabulary of these sentences, and the sentences."""
    rng = np.random.default_rng(0)

    def row() -> str:
        label = int(rng.integers(2))
        words = [
            f"the {rng.choice(THINGS)} is {rng.choice(['', 'very ', 'quite '])}{rng.choice(FEELINGS[label])}"
            for _ in range(rng.integers(1, 4))
        ]
        return f"{' and '.join(words)}\t{label}\n"

    for split, count in (("train", lines), ("dev", max(40, lines // 20))):
        (work / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(row() for _ in range(count)), encoding="utf-8")
    model = work / "model"
    vocabulary = train_vocabulary([work / "train.tsv"], 120, work / "vocabulary") / "tokenizer.json"
    size = len(json.loads(vocabulary.read_text(encoding="utf-8"))["model"]["vocab"])
    config = Config(size, 32, 2, 2, 64, max_position_embeddings=64, head="mlm")
    Bert(config, Bert.new(config, 1).parameters, {"tokenizer.json": vocabulary}).save(model)
    return model, work


def check(command: list[str], work: Path) -> list[str]:
    """The problems that were found."""
    problems = []
    where = lambda name: work / name / "metrics.jsonl"
    parted = subprocess.Popen([*command, "--out", str(work / "parted")], cwd=ROOT)
    while parted.poll() is None and not (where("parted").exists() and where("parted").read_text().count("\n") >= 2):
        time.sleep(0.02)
    parted.send_signal(signal.SIGTERM)
    if (status := parted.wait()) != 128 + signal.SIGTERM:
        problems.append(f"a signal in the middle of a run: exit status {status}, expected {128 + signal.SIGTERM}")
    for name, *more in (("parted", "--resume"), ("whole",), ("again",)):
        if status := subprocess.run([*command, "--out", str(work / name), *more], cwd=ROOT).returncode:
            problems.append(f"{name}: exit status {status}")
    if problems:
        return problems
    weights = {name: (work / name / "model.safetensors").read_bytes() for name in ("whole", "again", "parted")}
    if weights["whole"] != weights["again"]:
        problems.append("two undisturbed runs end in different bytes")
    if weights["whole"] != weights["parted"]:
        problems.append("a resumed run ends in other bytes than an undisturbed one")
    rows = [json.loads(line) for line in where("whole").read_text(encoding="utf-8").splitlines()]
    losses = [next(iter(row["losses"].values())) for row in rows if "losses" in row]
    first, last = (float(np.mean(part)) for part in (losses[:3], losses[-3:]))
    print("losses", [round(loss, 3) for loss in losses[:: max(1, len(losses) // 10)]], "dev", [row["dev"] for row in rows if "dev" in row])
    if not last < 0.8 * first:
        problems.append(f"the loss went from {first:.3f} to {last:.3f}, not below 0.8 of it")
    return problems


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--quick", action="store_true")
    args = p.parse_args()
    real = (GIVEN / "SST-2").is_dir() and not args.quick
    with tempfile.TemporaryDirectory() as folder:
        model, data = (given if real else made)(Path(folder), 12_000 if real else 320 if args.quick else 3_000)
        command = [
            sys.executable,
            "-m",
            "minitinybert",
            "finetune",
            "--device",
            "cuda",
            "--model",
            str(model),
            "--task",
            "sst-2",
            "--data",
            str(data),
        ]
        command += ["--epochs", "1", "--lr", "3e-4" if real else "1e-2", "--batch-size", "32" if real else "16", "--max-length", "64"]
        command += ["--log-every", "10" if real else "2", "--save-every", "10000", "--json"]
        problems = check(command, Path(folder))
    of = "SST-2" if real else "sentences made here"
    print(f"training on {of}:", "; ".join(problems) or "the loss goes down; two runs and a resumed one end in the same bytes")
    return len(problems)


if __name__ == "__main__":
    sys.exit(main())
