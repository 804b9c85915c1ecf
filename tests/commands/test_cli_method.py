"""The whole method by its commands, one after the other, as README gives them."""

import json

import numpy as np
import pytest
import small_mlm

from minitinybert import Bert
from minitinybert.commands.cli import main

WORDS = ["film", "story", "plot", "love", "war"]


def sentence(rng, word):
    who = rng.choice(["it was", "he was", "she is"])
    return f"the {rng.choice(WORDS)} is {rng.choice(['very ', ''])}{word} and {who} a {rng.choice(WORDS)}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def make_world(root):
    """A corpus of two documents, a task in SST-2's layout, GloVe vectors for the words that have them."""
    rng = np.random.default_rng(0)
    lines = [sentence(rng, rng.choice(["good", "bad", "dull", "boring"])) for _ in range(200)]
    (root / "corpus.txt").write_text("\n".join(lines[:100]) + "\n\n" + "\n".join(lines[100:]) + "\n", encoding="utf-8")
    for split, n in (("train", 120), ("dev", 40)):
        labels = rng.integers(2, size=n)
        rows = [f"{sentence(rng, 'good' if label else 'bad')}\t{label}" for label in labels]
        (root / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
    small_mlm.write_glove(root / "glove.txt")
    return root


def command(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out)


def test_the_whole_method(capsys, world, tmp_path):
    corpus, task, common = world / "corpus.txt", ("--task", "sst-2", "--max-length", 32), ("--json", "--threads", 2)
    mlm = command(
        capsys, "pretrain", "--model", "2L-16D-2H-32F", "--train-vocabulary", 80, "--corpus", corpus, "--out", tmp_path / "mlm",
        "--epochs", 3, "--lr", 5e-3, "--max-length", 32, *common,
    )  # fmt: skip
    assert mlm["results"]["dev"]["top10"] > 0.3
    assert Bert.load(tmp_path / "mlm").config.vocab_size <= 80
    teacher = command(
        capsys, "finetune", "--model", tmp_path / "mlm", *task, "--data", world, "--out", tmp_path / "teacher",
        "--epochs", 20, "--lr", 3e-3, "--batch-size", 16, *common,
    )  # fmt: skip
    assert teacher["results"]["dev"]["accuracy"] > 0.9
    general = command(
        capsys, "distill", "general", "--teacher", tmp_path / "mlm", "--student", "2L-8D-2H-16F", "--corpus", corpus,
        "--out", tmp_path / "general", "--epochs", 2, "--lr", 5e-3, "--max-length", 32, *common,
    )  # fmt: skip
    assert set(general["results"]["train"]) == {"embedding", "hidden", "attention"}
    other = ["distill", "general", "--teacher", tmp_path / "mlm", "--student", "2L-8D-2H-16F", "--corpus", corpus, "--resume"]
    recipe = tmp_path / "other.toml"
    recipe.write_text("teacher_dropout = true\n")
    more = ["--out", tmp_path / "general", "--epochs", 2, "--lr", 5e-3, "--max-length", 32, *common, "--recipe", recipe]
    assert main([str(argument) for argument in (*other, *more)]) == 2
    assert "--resume needs the same teacher_dropout: False when the run began, True now" in capsys.readouterr().err
    summary = command(
        capsys, "augment", "--mlm", tmp_path / "mlm", "--vectors", world / "glove.txt", "--task", "sst-2", "--data", world,
        "--out", tmp_path / "augmented", "--copies", 2, "--candidates", 4, "--provenance", "--processes", 1, "--json",
    )  # fmt: skip
    assert summary["rows"] == 3 * 120 and 0 < summary["bert"] < summary["words"]
    assert (tmp_path / "augmented" / "dev.tsv").read_bytes() == (world / "dev.tsv").read_bytes()
    student = command(
        capsys, "distill", "task", "--teacher", tmp_path / "teacher", "--student", tmp_path / "general", *task,
        "--data", tmp_path / "augmented", "--prediction-data", world, "--out", tmp_path / "student",
        "--intermediate-epochs", 8, "--intermediate-lr", 5e-3, "--epochs", 25, "--lr", 1e-2, "--log-every", 1, *common,
    )  # fmt: skip
    assert student["results"]["dev"]["accuracy"] > 0.8
    steps = [json.loads(line)["step"] for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 25 * -(-120 // 32)  # the prediction step saw the original rows alone
    study = command(
        capsys, "ablate", "--teacher", tmp_path / "teacher", "--student", "2L-8D-2H-16F", *task, "--data", world,
        "--augmented", tmp_path / "augmented", "--general-teacher", tmp_path / "mlm", "--corpus", corpus, "--out", tmp_path / "study",
        "--seeds", 0, 1, "--variants", "w/o GD", "without-da", "--general-epochs", 1, "--intermediate-epochs", 1, "--epochs", 1, *common,
    )  # fmt: skip
    assert [row["variant"] for row in study["results"]] == ["full", "w/o GD", "w/o DA"]
    assert all(len(row["values"]) == 2 for row in study["results"])
    assert (tmp_path / "study" / "ablation.png").stat().st_size > 0


def test_a_vocabulary_is_given_or_trained(capsys, world, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "--model", "2L-8D-2H-16F", "--tokenizer", "x", "--train-vocabulary", "9", "--corpus", "c", "--out", "o"])
    assert stop.value.code == 2
    capsys.readouterr()
    status = main(["pretrain", "--model", "2L-8D-2H-16F", "--corpus", str(world / "corpus.txt"), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and "--train-vocabulary" in error
