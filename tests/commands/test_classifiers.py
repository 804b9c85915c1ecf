"""What a classifier says is decided in one place, and asked by every command: a number, one label of several, or each by itself."""

import json

import numpy as np
import pytest

from minitinybert import weights
from minitinybert.commands.classifiers import answer_kind, load_classifier
from minitinybert.commands.cli import main
from minitinybert.data.glue import TASKS
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "plot", "the", "a", "is"]
TASK = ("--task", "sst-2", "--max-length", 16, "--threads", 1)
MULTI = "multi_label_classification"


def saved(directory, bias, problem_type=None, names=None, head="classifier"):
    """A BERT whose logits are `bias`, whatever it reads."""
    labels = dict(enumerate(names or [f"LABEL_{i}" for i in range(len(bias))]))
    config = Config(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=16, head=head, id2label=labels, problem_type=problem_type,
    )  # fmt: skip
    model = Bert.new(config, 1)
    if head == "classifier":
        model.parameters["classifier.weight"][...], model.parameters["classifier.bias"][...] = 0, bias
    directory.parent.mkdir(exist_ok=True)
    (directory.parent / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    model.tokenizer_files = {"vocab.txt": directory.parent / "vocab.txt"}
    model.save(directory)
    return directory


@pytest.fixture
def data(tmp_path):
    """SST-2's layout. Nine of ten dev sentences are 1, so that whoever always says so passes for a teacher."""
    (tmp_path / "data").mkdir()
    for split, n in (("train", 20), ("dev", 10)):
        rows = [f"the film is {'bad' if i % 10 == 0 else 'good'}\t{int(i % 10 != 0)}" for i in range(n)]
        (tmp_path / "data" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "corpus.txt").write_text("the film is good\n" * 40, encoding="utf-8")
    return tmp_path / "data"


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(status, err, words):
    """Exit status 2 and, beside what a run says of its progress, one line that has `words`."""
    said = [line for line in err.splitlines() if line.startswith("minitinybert: ")]
    assert status == 2 and len(said) == 1 and words in said[0] and "Traceback" not in err, err
    return True


def test_each_label_of_a_multi_label_model_has_its_own_sigmoid(capsys, tmp_path):
    model = saved(tmp_path / "m", (3.0, 0.5, -3.0), MULTI, ["toxic", "rude", "threat"])
    status, out, _ = run(capsys, "predict", "--model", model, "--max-length", 16, "--json", "the film is bad")
    assert status == 0
    assert json.loads(out) == [
        {
            "text": "the film is bad",
            "labels": ["toxic", "rude"],
            "probabilities": {"toxic": 0.952574, "rude": 0.622459, "threat": 0.047426},  # 1 / (1 + exp(-x))
        }
    ]
    status, out, _ = run(capsys, "predict", "--model", model, "--max-length", 16, "the film is bad")
    assert out == "toxic 0.9526, rude 0.6225\tthe film is bad\n"


def test_no_label_may_hold_and_one_label_may_be_all(capsys, tmp_path):
    one = saved(tmp_path / "m", (-1.0,), MULTI, ["toxic"])
    status, out, _ = run(capsys, "predict", "--model", one, "--max-length", 16, "--json", "good")
    assert json.loads(out) == [{"text": "good", "labels": [], "probabilities": {"toxic": 0.268941}}]
    assert run(capsys, "predict", "--model", one, "--max-length", 16, "good")[1] == "none\tgood\n"


def test_one_of_several_has_a_softmax(capsys, tmp_path):
    for problem_type in (None, "single_label_classification"):
        model = saved(tmp_path / f"{problem_type}", (3.0, 0.0), problem_type, ["no", "yes"])
        answer = json.loads(run(capsys, "predict", "--model", model, "--max-length", 16, "--json", "good")[1])[0]
        assert answer == {"text": "good", "label": "no", "probabilities": {"no": 0.952574, "yes": 0.047426}}


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--model", "{m}", *TASK, "--data", "{data}"),
        ("predict", "--model", "{m}", *TASK, "--data", "{data}", "--out", "{out}"),
        ("evaluate", "--model", "{m}", "--task", "custom", "--text-columns", "sentence", "--label-column", "label", "--data", "{data}"),
        ("distill", "task", "--teacher", "{m}", "--student", "1L-8D-2H-8F", *TASK, "--data", "{data}", "--out", "{out}"),
        ("ablate", "--teacher", "{m}", "--student", "1L-8D-2H-8F", *TASK, "--data", "{data}", "--out", "{out}"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_multi_label_model_is_no_one_of_several(capsys, tmp_path, data, arguments):
    """It would be right nine times of ten, and pass for a teacher."""
    places = {"m": saved(tmp_path / "m", (0.0, 1.0), MULTI), "data": data, "out": tmp_path / "out"}
    status, _, err = run(capsys, *(str(a).format(**places) for a in arguments))
    assert refused(status, err, "a multi-label model (problem_type multi_label_classification)")
    assert not (tmp_path / "out").exists()


def test_fine_tuning_from_a_multi_label_model_begins_with_a_fresh_classifier(capsys, tmp_path, data):
    model = str(saved(tmp_path / "m", (0.0, 1.0), MULTI))
    loaded = load_classifier(model, TASKS["sst-2"], 0)
    assert loaded.config.problem_type == "single_label_classification" and list(loaded.config.id2label.values()) == ["negative", "positive"]
    assert (loaded.parameters["classifier.bias"] == 0).all() and (loaded.parameters["classifier.weight"] != 0).all()
    assert "a fresh classifier, in the place of the model's" in capsys.readouterr().err
    status, _, err = run(capsys, "finetune", "--model", model, *TASK, "--data", data, "--out", tmp_path / "out", "--epochs", 1)
    assert status == 0, err
    assert Bert.load(tmp_path / "out").config.problem_type == "single_label_classification"


def test_what_a_classifier_says():
    config = lambda *names, **more: Config(head="classifier", id2label=dict(enumerate(names)), **more)
    assert answer_kind(config("a", "b"), "m") == "label"
    assert answer_kind(config("a"), "m") == answer_kind(config("a", problem_type="regression"), "m") == "score"
    assert answer_kind(config("a", problem_type=MULTI), "m") == answer_kind(config("a", "b", problem_type=MULTI), "m") == "labels"
    for bad, words in (
        (config("a", "b", problem_type="regression"), "m: problem_type regression with 2 outputs"),
        (config("a", "b", "a"), "m: two labels are called 'a'"),
        (Config(), "m: has no classifier"),
    ):
        with pytest.raises(InputError, match=words):
            answer_kind(bad, "m")


@pytest.mark.parametrize(
    "bias, problem_type, task, words",
    [
        ((0.0, 1.0), "regression", "sst-2", "problem_type regression with 2 outputs"),
        ((0.0, 1.0, 2.0), None, "sst-2", "the classifier has 3 outputs, task sst-2 needs 2"),
        ((0.0,), MULTI, "sts-b", "a multi-label model"),
        ((0.0,), None, "sst-2", "the classifier has 1 outputs, task sst-2 needs 2"),
    ],
)
def test_a_model_for_another_kind_of_answer_is_refused(capsys, tmp_path, data, bias, problem_type, task, words):
    model = saved(tmp_path / "m", bias, problem_type)
    status, _, err = run(capsys, "evaluate", "--model", model, "--task", task, "--data", data, "--max-length", 16)
    assert refused(status, err, words)


UNTIED = {"cls.predictions.decoder.weight": np.ones((12, 8), np.float32), "cls.predictions.bias": np.ones(12, np.float32)}
RESIZED = {"cls.predictions.decoder.weight": np.ones((9, 8), np.float32), "cls.predictions.bias": np.ones(9, np.float32)}


@pytest.mark.parametrize("other", [UNTIED, RESIZED], ids=["untied", "resized"])
def test_an_encoder_is_used_whatever_its_head_for_words(capsys, tmp_path, data, other):
    body = weights.read(saved(tmp_path / "body", (), head="none", names=["a", "b"]))
    tensors = {"bert." + name.removeprefix("bert."): values for name, values in body.tensors.items() if "pooler" not in name}
    dense = {"cls.predictions.transform.dense.weight": np.eye(8, dtype=np.float32)}
    dense |= {f"cls.predictions.transform.{name}": np.ones(8, np.float32) for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")}
    config = {**body.config, "architectures": ["BertForMaskedLM"], "tie_word_embeddings": False}
    config = {name: value for name, value in config.items() if name not in ("id2label", "label2id")}
    weights.write(tmp_path / "m", config, {**tensors, **dense, **other}, body.tokenizer_files)
    few = ("--epochs", 1, "--max-length", 16, "--threads", 1)
    status, _, err = run(capsys, "finetune", "--model", tmp_path / "m", "--task", "sst-2", "--data", data, "--out", tmp_path / "t", *few)
    assert status == 0, err
    status, _, err = run(
        capsys, "distill", "general", "--teacher", tmp_path / "m", "--student", "1L-8D-2H-8F", "--corpus", tmp_path / "corpus.txt",
        "--out", tmp_path / "g", *few,
    )  # fmt: skip
    assert status == 0, err
    status, _, err = run(capsys, "convert", tmp_path / "m", tmp_path / "converted")
    assert status == 0, err
    converted = weights.read(tmp_path / "converted").tensors
    assert all(np.array_equal(converted[name], values) for name, values in other.items())  # it goes along as it is
    status, _, err = run(capsys, "pretrain", "--model", tmp_path / "m", "--corpus", tmp_path / "corpus.txt", "--out", tmp_path / "p", *few)
    assert refused(status, err, "tensor cls.predictions" if other is RESIZED else "differs from the word embeddings")
