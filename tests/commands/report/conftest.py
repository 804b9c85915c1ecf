"""Runs small enough to be made once for all tests of reports: a teacher, a student that was distilled from it in general and then on the
task, the same student without; and, without training, runs on other kinds of tasks."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from minitinybert.commands.cli import main
from minitinybert.commands.record import about_task
from minitinybert.commands.report import answers
from minitinybert.data.glue import custom_task
from minitinybert.data.squad import squad_task
from minitinybert.data.tagging import tagging_task
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

WORDS = ["good", "bad", "fine", "awful", "film", "plot", "actor", "scene", "great", "poor", "the", "a", "is", "was", "very"]
MARKS = ["<", "/", "b", ">"]
HOSTILE = "the good </script><b> film <!-- & \" '"


@pytest.fixture(scope="session", autouse=True)
def few_draws():
    """Of a bootstrap: what it gives with many is tested in tests/data/test_significance.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "_DRAWS", 100)
        yield


def bert(directory, layers, width, seed, **more):
    sizes = {"vocab_size": 5 + len(WORDS + MARKS), "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.4}
    config = Config(hidden_size=width, num_hidden_layers=layers, intermediate_size=2 * width, **sizes, **more)
    directory.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = directory.parent / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *MARKS]) + "\n", encoding="utf-8")
    made = Bert.new(config, seed)
    made.tokenizer_files = {"vocab.txt": vocabulary}
    made.save(directory)
    return directory


def sentences(rng, n):
    for i in range(n):
        label = int(rng.integers(2))
        words = list(rng.choice(WORDS[4:8] + WORDS[10:], rng.integers(1, 7)))
        words.insert(int(rng.integers(len(words) + 1)), "good" if label else "bad")
        yield (HOSTILE if i == 3 else " ".join(words)), label


def write_task(directory, rng, sizes=(("train", 60), ("dev", 30))):
    directory.mkdir(parents=True)
    for name, n in sizes:
        rows = "".join(f"{text}\t{label}\n" for text, label in sentences(rng, n))
        (directory / f"{name}.tsv").write_text("sentence\tlabel\n" + rows, encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """.here with the runs teacher, general, student and baseline, made by the commands."""
    here = tmp_path_factory.mktemp("runs")
    bert(here / "base", 4, 16, 3)
    data = write_task(here / "data", np.random.default_rng(0))
    corpus = here / "corpus.txt"
    corpus.write_text("".join(text + "\n" for text, _ in sentences(np.random.default_rng(1), 40)), encoding="utf-8")

    def run(*arguments):
        assert main([str(a) for a in arguments]) == 0

    task = ("--task", "sst-2", "--data", data, "--max-length", 32)
    student = "2L-8D-2H-16F"
    run("finetune", "--model", here / "base", *task, "--out", here / "teacher", "--epochs", 10, "--lr", 5e-3, "--log-every", 4)
    common = ("--log-every", 1, "--batch-size", 16)
    general = ("distill", "general", "--teacher", here / "base", "--student", student, "--corpus", corpus, "--max-length", 32)
    run(*general, "--out", here / "general", "--epochs", 2, "--lr", 1e-2, *common)
    distill = ("distill", "task", "--teacher", here / "teacher", "--student", here / "general", *task, "--out", here / "student", *common)
    run(*distill, "--intermediate-epochs", 2, "--intermediate-lr", 5e-3, "--epochs", 2, "--lr", 5e-3, "--keep-state")
    run("finetune", "--model", student, "--tokenizer", here / "teacher", *task, "--out", here / "baseline", "--epochs", 1, *common)
    return SimpleNamespace(here=here, data=data)


def untrained_run(directory, task, data, layers=2, width=8, seed=0, teacher=None, **more):
    """A run's directory as finetune leaves it, or as the prediction step does where there is a teacher, of random weights."""
    bert(directory, layers, width, seed, **more)
    about = {"what": "distill prediction" if teacher else "finetune", **about_task(task, data, 40), "settings": {"epochs": 1.0}}
    about |= {"teacher": str(teacher)} if teacher else {}
    row = {"step": 1, "epoch": 1.0, "lr": 0.1, "losses": {"prediction": 0.5}, "run": about}
    (directory / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    """{kind: (teacher's run, student's run)} of a regression, of words and of questions."""
    here, rng, found = tmp_path_factory.mktemp("kinds"), np.random.default_rng(0), {}
    data = here / "numbers"
    data.mkdir()
    rows = [f"{' '.join(rng.choice(WORDS, 4))}\t{rng.normal():.3f}\n" for _ in range(20)]
    (data / "dev.tsv").write_text("text\tstars\n" + "".join(rows), encoding="utf-8")
    number = {"head": "classifier", "id2label": {0: "score"}, "problem_type": "regression"}
    found["numbers"] = (custom_task(data, ["text"], "stars", regression=True), data, number)
    data = here / "tokens"
    data.mkdir()
    tags = ["O", "B-X", "I-X"]
    lines = ["\n".join(f"{w}\t{t}" for w, t in zip(rng.choice(WORDS, 5), rng.choice(tags, 5), strict=True)) for _ in range(12)]
    (data / "dev.conll").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    labels = {"head": "tokens", "pooler": False, "id2label": dict(enumerate(tags))}
    found["tokens"] = (tagging_task(data, labels=tags), data, labels)
    data = here / "questions"
    data.mkdir()
    context = "the film was good and the plot is very bad"
    asked = [
        {"id": str(i), "question": f"{word} film ?", "context": context, "answers": {"text": [context[8:]], "answer_start": [8]}}
        for i, word in enumerate(WORDS[:8])
    ]
    (data / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    found["questions"] = (squad_task(), data, {"head": "spans", "pooler": False})
    return {
        name: (
            teacher := untrained_run(here / f"{name}-teacher" / "teacher", task, data, 3, 12, 1, **head),
            untrained_run(here / f"{name}-student" / "student", task, data, 2, 8, 2, teacher, **head),
        )
        for name, (task, data, head) in found.items()
    }
