"""Token classification by the commands: a teacher, its student under several recipes, what they answer, what transformers opens."""

import json
from dataclasses import replace

import numpy as np
import pytest

from commands.test_task import new_model
from minitinybert.commands.answer import evaluate, predict
from minitinybert.commands.classifiers import load_classifier
from minitinybert.commands.cli import main
from minitinybert.commands.task import check_teacher, distill_task, load_teacher
from minitinybert.commands.task_data import TaskData
from minitinybert.data.tagging import read_tagged, tagging_task
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.distillation.recipes import RECIPES, Recipe
from minitinybert.errors import InputError
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert
from minitinybert.training.loop import Options

PEOPLE, PLACES = ["ada", "bob", "cleo"], ["oslo", "rome", "lima"]
OTHERS = ["saw", "met", "in", "near", "."]
WORDS = [*PEOPLE, *PLACES, *OTHERS, "##son", "##berg"]
FAST = {"epochs": 12, "batch_size": 8, "lr": 5e-3}


def sentences(rng, n):
    """Names of one or two words; whether the second is inside the entity shows in the first alone. Some words are two pieces."""
    rows = []
    for _ in range(n):
        words, tags = [], []
        for _ in range(rng.integers(1, 4)):
            names, kind = [(PEOPLE, "PER"), (PLACES, "LOC")][rng.integers(2)]
            own = [str(rng.choice(names)) + str(rng.choice(["", "son", "berg"])) for _ in range(rng.integers(1, 3))]
            words += [*own, str(rng.choice(OTHERS))]
            tags += [f"B-{kind}", *[f"I-{kind}"] * (len(own) - 1), "O"]
        rows.append((words, tags))
    return rows


def lay(directory, sizes):
    directory.mkdir()
    rng = np.random.default_rng(0)
    for split, n in sizes.items():
        rows = sentences(rng, n)
        column = (lambda tag: "") if split == "test" else (lambda tag: f" {tag}")
        text = "\n".join("".join(f"{w}{column(t)}\n" for w, t in zip(*row, strict=True)) for row in rows)
        (directory / f"{split}.conll").write_text(text, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("words")
    lay(root / "data", {"train": 300, "dev": 30, "test": 6})
    return root


@pytest.fixture(scope="module")
def machine():
    with Machine("cpu", 2) as machine:
        yield machine


@pytest.fixture(scope="module")
def teacher(root):
    model = new_model(root / "model", words=WORDS)
    arguments = ["finetune", "--model", model, "--task", "tokens", "--data", root / "data", "--out", root / "teacher", "--json"]
    assert main([str(a) for a in (*arguments, "--epochs", 12, "--batch-size", 8, "--lr", 5e-3)]) == 0
    return str(root / "teacher")


@pytest.fixture(scope="module")
def task(root):
    return tagging_task(root / "data")


def test_a_teacher_learns_and_is_a_model_of_transformers(root, teacher, task, machine):
    transformers = pytest.importorskip("transformers")
    import torch

    results = evaluate(teacher, task, root / "data", machine)["dev"]
    assert list(results) == ["f1", "precision", "recall", "accuracy"] and results["f1"] > 0.9
    model, problems = transformers.AutoModelForTokenClassification.from_pretrained(teacher, output_loading_info=True)
    assert not any(problems.values()) and type(model).__name__ == "BertForTokenClassification"
    trace, _ = Bert.load(teacher).forward(np.array([[2, 6, 5, 3], [2, 7, 3, 0]]), np.array([[1, 1, 1, 1], [1, 1, 1, 0]]))
    with torch.no_grad():
        ids, mask = torch.tensor([[2, 6, 5, 3], [2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
        out = model.eval()(ids, attention_mask=mask, output_hidden_states=True)
    np.testing.assert_allclose(trace.logits, out.logits, atol=2e-5)
    np.testing.assert_allclose(trace.hidden[-1], out.hidden_states[-1], atol=2e-5)


RECIPE = {
    "default": RECIPES["default"],
    "huawei-2019": RECIPES["huawei-2019"],
    "elements, padded, asked once": Recipe(padding="count", prediction_mean="elements", temperature=2.0),
}


@pytest.mark.parametrize("recipe", RECIPE)
def test_a_student_learns_from_it(root, teacher, task, machine, tmp_path, recipe):
    results = distill_task(
        teacher, "1L-16D-2H-32F", task, root / "data", tmp_path / "student", machine, intermediate=FAST | {"epochs": 4},
        prediction=FAST | {"lr": 1e-2}, recipe=RECIPE[recipe], max_length=20,
    )  # fmt: skip
    assert results["dev"]["f1"] > 0.6, results
    student = Bert.load(tmp_path / "student")
    assert student.config.head == "tokens" and list(student.config.id2label.values()) == list(task.labels)


def test_shares_and_one_thread_end_alike(root, teacher, task, tmp_path):
    """A step's words are divided among threads with their sentences."""
    ends = []
    for threads in (1, 3):
        with Machine("cpu", threads) as machine:
            out = tmp_path / str(threads)
            few = Options(epochs=0.5, batch_size=16, lr=1e-3)
            distill_task(teacher, "1L-16D-2H-32F", task, root / "data", out, machine, stage="prediction", prediction=few)
            ends.append(Bert.load(out).parameters.flat)
    np.testing.assert_allclose(*ends, atol=1e-5)


def test_words_are_labelled(root, teacher, machine, capsys):
    (answer,) = predict(teacher, ["adason bob saw  rome ."], machine)
    assert answer["words"] == ["adason", "bob", "saw", "rome", "."] and answer["labels"] == ["B-PER", "I-PER", "O", "B-LOC", "O"]
    assert answer["entities"] == [
        {"kind": "PER", "text": "adason bob", "first": 0, "last": 1},
        {"kind": "LOC", "text": "rome", "first": 3, "last": 3},
    ]
    assert all(0.2 <= p <= 1 for p in answer["probabilities"]) and len(answer["probabilities"]) == 5
    assert main(["predict", "--model", teacher, "bob met ada"]) == 0
    assert capsys.readouterr().out == "bob\tB-PER\nmet\tO\nada\tB-PER\n\n"
    part = "bob met ada in oslo . lima near bob ."  # ten pieces: what a model of twelve reads at once
    ((long,), (one,)) = (predict(teacher, [text], machine, max_length=12) for text in (" ".join([part] * 4), part))
    assert long["labels"] == one["labels"] * 4
    blank, bob = predict(teacher, [" ", "bob"], machine)  # a blank line is answered, so that answer n is line n's
    assert blank["words"] == blank["labels"] == blank["entities"] == [] and bob["labels"] == ["B-PER"]
    with pytest.raises(InputError, match="no text has a word"):
        predict(teacher, ["", " "], machine)


def test_a_test_file_is_answered(root, teacher, task, tmp_path, capsys):
    arguments = ["predict", "--model", teacher, "--task", "tokens", "--data", root / "data", "--out", tmp_path, "--json"]
    assert main([str(a) for a in arguments]) == 0
    assert json.loads(capsys.readouterr().out) == [str(tmp_path / "test.conll")]
    asked = read_tagged(task, root / "data", "test")
    (root / "answers").mkdir()
    (root / "answers" / "test.conll").write_bytes((tmp_path / "test.conll").read_bytes())
    told = read_tagged(task, root / "answers", "test")
    assert told.words == asked.words and told.tags is not None and {t for tags in told.tags for t in tags} <= set(task.labels)


def test_labels_in_another_order_are_put_right(root, teacher, task, machine, tmp_path):
    model = Bert.load(teacher)
    order = np.arange(model.config.num_labels)[::-1]
    for name in ("classifier.weight", "classifier.bias"):
        model.parameters[name][...] = model.parameters[name][order]
    names = {i: model.config.id2label[int(k)] for i, k in enumerate(order)}
    Bert(replace(model.config, id2label=names), model.parameters, model.tokenizer_files).save(tmp_path / "turned")
    turned = evaluate(str(tmp_path / "turned"), task, root / "data", machine)
    assert turned == evaluate(teacher, task, root / "data", machine)


def test_a_classifier_of_texts_is_none_of_words(root, teacher, task, machine, tmp_path):
    texts = replace(Bert.load(teacher).config, head="classifier", pooler=True)
    Bert(texts, Bert.new(texts, 1).parameters, Bert.load(teacher).tokenizer_files).save(tmp_path / "texts")
    path = str(tmp_path / "texts")
    for ask in (lambda: load_teacher(path, task, machine), lambda: evaluate(path, task, root / "data", machine)):
        with pytest.raises(InputError, match="has no labels of words"):
            ask()
    fresh, name = load_classifier(path, task, 5), "classifier.weight"  # its classifier is not taken for one of words
    assert fresh.config.head == "tokens" and not np.allclose(fresh.parameters[name], Bert.load(path).parameters[name])


def test_a_teacher_that_knows_nothing_is_refused(root, teacher, task, machine):
    blind = Bert.load(teacher)
    blind.parameters["classifier.weight"][...] = 0
    files = TaskData(task, root / "data", Tokenizer.load(blind.tokenizer_files), 20, blind)
    with pytest.raises(InputError, match="f1 is 0.0000, that of a constant answer 0.0000"):
        check_teacher("blind", blind, files, machine)


def test_a_student_has_its_teacher_s_labels(root, teacher, task, tmp_path, capsys):
    """Though the texts it learns from have fewer; others than these are refused."""
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.conll").write_text("ada B-PER\nmet O\n" * 8, encoding="utf-8")
    arguments = ["distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", "--task", "tokens", "--data", tmp_path / "data"]
    few = ["--out", tmp_path / "student", "--stage", "prediction", "--epochs", 1]
    assert main([str(a) for a in (*arguments, *few)]) == 0
    assert list(Bert.load(tmp_path / "student").config.id2label.values()) == list(task.labels)
    (tmp_path / "data" / "train.conll").write_text("ada B-QUEEN\n", encoding="utf-8")
    assert main([str(a) for a in (*arguments, "--out", tmp_path / "other")]) == 2
    assert "label 'B-QUEEN'; the task has O, B-LOC, B-PER" in capsys.readouterr().err


def test_what_does_not_make_sense_is_refused(root, teacher, capsys):
    for command in (["ablate", "--teacher", teacher, "--student", "1L-16D-2H-32F"], ["augment", "--mlm", teacher, "--vectors", "x"]):
        assert main([*command, "--task", "tokens", "--data", str(root / "data"), "--out", "x"]) == 2
        assert "--task tokens" in capsys.readouterr().err
