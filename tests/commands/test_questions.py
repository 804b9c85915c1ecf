"""Questions on documents by the commands: 1.1 and 2.0, documents longer than the model, no answer, what transformers opens."""

import json
from dataclasses import replace

import numpy as np
import pytest

from commands.test_task import new_model
from minitinybert.commands.answer import evaluate, predict
from minitinybert.commands.cli import main
from minitinybert.commands.task import distill_task, load_teacher
from minitinybert.data.squad import squad_task
from minitinybert.distillation.recipes import RECIPES, Recipe
from minitinybert.errors import InputError
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert
from minitinybert.training.loop import Options

PEOPLE, PLACES, TIMES = ["ada", "bob", "cleo", "dora"], ["oslo", "rome", "lima", "kyiv"], ["noon", "dawn", "dusk"]
FILLERS = ["the", "old", "met", "rain", "fell", "and", "near", ".", "mill", "river"]
KINDS = {"who": PEOPLE, "where": PLACES, "when": TIMES}
WORDS = [*PEOPLE, *PLACES, *TIMES, *FILLERS, *KINDS, "?", "was", "it", "##son"]


def paragraph(rng, number, second):
    """A text with two of three kinds of words, each once; a question about each, and, in 2.0, about the third."""
    kinds = list(rng.permutation(list(KINDS)))[:2]
    words = [str(w) for w in rng.choice(FILLERS, rng.integers(3, 30))]
    answers = {}
    for kind in kinds:
        name = str(rng.choice(KINDS[kind])) + ("son" if kind == "who" and rng.random() < 0.3 else "")
        answers[kind] = name.capitalize() if rng.random() < 0.5 else name
        words.insert(int(rng.integers(len(words) + 1)), answers[kind])
    context = " ".join(words)
    rows = []
    for kind in KINDS if second else kinds:
        row = {"id": f"{number}-{kind}", "question": f"{kind} was it ?", "is_impossible": kind not in answers}
        text = answers.get(kind)
        row["answers"] = [] if text is None else [{"text": text, "answer_start": context.index(text)}]
        rows.append(row)
    return {"context": context, "qas": rows}


def lay(directory, second, train=120, dev=24):
    directory.mkdir()
    rng = np.random.default_rng(3)
    for split, n in (("train", train), ("dev", dev), ("test", 6)):
        content = {"version": "v2.0" if second else "1.1", "data": [{"paragraphs": [paragraph(rng, i, second) for i in range(n)]}]}
        (directory / f"{split}-made.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("questions")


@pytest.fixture(scope="module")
def first(root):
    return lay(root / "first", False)


@pytest.fixture(scope="module")
def second(root):
    return lay(root / "second", True)


@pytest.fixture(scope="module")
def machine():
    with Machine("cpu", 2) as machine:
        yield machine


LENGTH = ("--max-length", 24, "--doc-stride", 8)  # of some documents there are several windows
SHORT = squad_task(doc_stride=8)


def made(root, name, data, epochs=8):
    arguments = ["finetune", "--model", root / "model" / "saved", "--task", "squad", "--data", data, "--out", root / name, *LENGTH]
    if not (root / "model").exists():
        new_model(root / "model", words=WORDS)
    assert main([str(a) for a in (*arguments, "--epochs", epochs, "--batch-size", 16, "--lr", 5e-3)]) == 0
    return str(root / name)


@pytest.fixture(scope="module")
def teacher(root, first):
    return made(root, "teacher", first)


@pytest.fixture(scope="module")
def doubter(root, second):
    return made(root, "doubter", second)


def test_every_question_has_an_answer(teacher, first, machine):
    results = evaluate(teacher, SHORT, first, machine, 24)["dev"]
    assert list(results) == ["f1", "exact_match"] and results["exact_match"] > 0.9, results
    assert Bert.load(teacher).config.null_threshold is None
    one = evaluate(teacher, squad_task(), first, machine, 60)["dev"]  # in one window, longer than any that was learned
    assert one["f1"] > 0.6, one


def test_some_have_none(doubter, second, machine, capsys):
    results = evaluate(doubter, SHORT, second, machine, 24)["dev"]
    assert results["f1"] > 0.85 and results["no_answer"] > 0.8 and results["has_answer_f1"] > 0.8, results
    assert results["best_f1"] >= results["f1"]
    assert Bert.load(doubter).config.null_threshold == 0.0 and json.loads(
        (second.parent / "doubter" / "config.json").read_text()
    )["architectures"] == ["BertForQuestionAnswering"]
    for threshold, share in ((-100, 1.0), (100, 0.0)):  # never an answer, always one
        asked = evaluate(doubter, replace(SHORT, null_threshold=threshold), second, machine, 24)["dev"]
        assert asked["no_answer"] == share and (asked["has_answer_f1"] == 0) is (share == 1)


def test_transformers_opens_it(teacher):
    transformers = pytest.importorskip("transformers")
    import torch

    model, problems = transformers.AutoModelForQuestionAnswering.from_pretrained(teacher, output_loading_info=True)
    assert not any(problems.values()) and type(model).__name__ == "BertForQuestionAnswering"
    ids, types, mask = (np.array(a) for a in ([[2, 6, 3, 8, 9, 3], [2, 7, 3, 9, 3, 0]], [[0] * 3 + [1] * 3] * 2, [[1] * 6, [1] * 5 + [0]]))
    trace, _ = Bert.load(teacher).forward(ids, mask, types)
    with torch.no_grad():
        out = model.eval()(
            torch.tensor(ids), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types), output_hidden_states=True
        )
    for column, theirs in enumerate((out.start_logits, out.end_logits)):
        np.testing.assert_allclose(trace.logits[..., column], theirs, atol=5e-5)
    for ours, theirs in zip(trace.hidden, out.hidden_states, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_a_model_of_transformers_comes_in(root, teacher, first, machine, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(teacher)
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "vocab.txt").write_bytes((root / "model" / "vocab.txt").read_bytes())
    assert evaluate(str(tmp_path / "theirs"), SHORT, first, machine, 24) == evaluate(teacher, SHORT, first, machine, 24)
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "converted")]) == 0
    assert Bert.load(tmp_path / "converted").config.head == "spans"


RECIPE = {
    "default": RECIPES["default"],
    "huawei-2019": RECIPES["huawei-2019"],
    "elements, padded, asked once": Recipe(padding="count", prediction_mean="elements"),
}


@pytest.mark.parametrize("recipe", RECIPE)
def test_a_student_learns_from_it(doubter, second, machine, tmp_path, recipe):
    few, many = {"epochs": 4, "batch_size": 16, "lr": 5e-3}, {"epochs": 16, "batch_size": 16, "lr": 5e-3}
    results = distill_task(
        doubter, "2L-24D-2H-32F", replace(SHORT, unanswerable=True), second, tmp_path / "student", machine, intermediate=few,
        prediction=many, recipe=RECIPE[recipe], max_length=24,
    )  # fmt: skip
    floor = 1 / 3  # always no answer
    assert results["dev"]["f1"] > floor + 0.1, results
    assert Bert.load(tmp_path / "student").config.null_threshold == 0.0


def test_shares_and_one_thread_end_alike(teacher, first, tmp_path):
    ends = []
    for threads in (1, 3):
        with Machine("cpu", threads) as machine:
            out, few = tmp_path / str(threads), Options(epochs=0.5, batch_size=16, lr=1e-3)
            distill_task(teacher, "1L-16D-2H-32F", SHORT, first, out, machine, stage="prediction", prediction=few, max_length=24)
            ends.append(Bert.load(out).parameters)
    # What is added to every piece's logit no softmax sees: its gradient is rounding, whose direction Adam follows.
    blind = ("qa_outputs.bias", "bert.encoder.layer.0.output.LayerNorm.bias")
    for name in set(ends[0]) - set(blind):
        np.testing.assert_allclose(ends[0][name], ends[1][name], atol=1e-5, err_msg=name)


def test_a_question_by_hand(teacher, doubter, machine, capsys):
    context = "the old mill fell . Bobson met rain near oslo and the river ."
    (who, where) = predict(teacher, [f"who was it ? ||| {context}", f"where was it? |||{context}"], machine, 24, SHORT)
    assert who["answer"] == "Bobson" and context[who["start"] : who["end"]] == "Bobson" and where["answer"] == "oslo"
    asked = ["predict", "--model", doubter, f"when was it ? ||| {context}", "--max-length", "24"]
    assert main(asked) == 0
    said, margin, text = capsys.readouterr().out.rstrip("\n").split("\t")
    assert said == "(no answer)" and float(margin) < 0 and text.startswith("when")
    assert main([*asked, "--null-threshold", "99", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["answer"] and answer["answer"] == context[answer["start"] : answer["end"]]
    for text in ("who was it ?", "||| text", "who ||| "):
        with pytest.raises(InputError, match="a question and a document are needed"):
            predict(teacher, [text], machine, 24)
    blank, asked = predict(teacher, ["", "who ||| bob"], machine, 24)
    assert (blank["answer"], blank["start"], blank["margin"]) == ("", None, None) and asked["answer"] == "bob"
    with pytest.raises(InputError, match="--max-length 384: a number from 3 to the model's 128 positions"):
        predict(teacher, ["who ||| bob"], machine)


def test_a_file_is_answered_as_the_official_scripts_take_it(doubter, second, tmp_path, capsys):
    for data in (second, second / "test-made.json"):
        arguments = ["predict", "--model", doubter, "--task", "squad", "--data", data, "--out", tmp_path / data.name, *LENGTH, "--json"]
        assert main([str(a) for a in arguments]) == 0
        paths = json.loads(capsys.readouterr().out)
        assert paths == [str(tmp_path / data.name / name) for name in ("predictions.json", "null_odds.json")]
    said, odds = (json.loads((tmp_path / "second" / name).read_text()) for name in ("predictions.json", "null_odds.json"))
    asked = json.loads((second / "test-made.json").read_text())["data"][0]["paragraphs"]
    rows = {row["id"]: row for part in asked for row in part["qas"]}
    assert said.keys() == rows.keys() == odds.keys()
    assert all((text == "") is (odds[id] > 0) for id, text in said.items())
    right = sum(said[id] == (row["answers"][0]["text"] if row["answers"] else "") for id, row in rows.items())
    assert right > 0.7 * len(rows)
    assert main([str(a) for a in ("evaluate", "--model", doubter, "--task", "squad", "--data", second / "dev-made.json", *LENGTH)]) == 0
    assert "exact_match" in capsys.readouterr().out


def test_a_run_is_gone_on_with(root, first, tmp_path, capsys):
    new_model(tmp_path / "model", words=WORDS)
    command = ["finetune", "--model", tmp_path / "model" / "saved", "--task", "squad", "--data", first, *LENGTH, "--batch-size", 16]
    for out, epochs in (("whole", 1), ("whole", 1)):
        assert main([str(a) for a in (*command, "--out", tmp_path / out, "--epochs", epochs, "--resume")]) == 0
    assert main([str(a) for a in (*command, "--out", tmp_path / "whole", "--doc-stride", 5, "--epochs", 1, "--resume")]) == 2
    assert "--resume needs the same" in capsys.readouterr().err  # the windows are others


def test_a_classifier_has_no_answers(root, teacher, first, machine, tmp_path):
    texts = replace(Bert.load(teacher).config, head="classifier", pooler=True)
    Bert(texts, Bert.new(texts, 1).parameters, Bert.load(teacher).tokenizer_files).save(tmp_path / "texts")
    with pytest.raises(InputError, match="the teacher has no answers to questions; fine-tune it first"):
        load_teacher(str(tmp_path / "texts"), SHORT, machine)
