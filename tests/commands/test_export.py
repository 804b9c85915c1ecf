"""The ONNX graph beside the model it was made of: outputs, padding, files, scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from minitinybert import Bert
from minitinybert.commands import export as command
from minitinybert.commands.cli import main
from minitinybert.model.config import Config

SIZES = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
HEADS = {
    "encoder": {"head": "none", "pooler": False},
    "encoder and pooler": {"head": "none"},
    "classifier": {"head": "classifier", "id2label": {0: "a", 1: "b", 2: "c"}},
    "classifier of relu": {"head": "classifier", "classifier_relu": True},
    "classifier of words": {"head": "tokens", "pooler": False, "id2label": {0: "O", 1: "B-PER", 2: "I-PER"}},
    "answers": {"head": "spans", "pooler": False},
    "masked words": {"head": "mlm", "pooler": False, "hidden_act": "gelu_new"},
}


def made(seed=0, **more):
    model = Bert.new(Config(**SIZES, max_position_embeddings=32, **more), seed)
    rng = np.random.default_rng(seed)
    for name in model.parameters:
        model.parameters[name][...] = rng.normal("LayerNorm.weight" in name, 0.3, model.parameters[name].shape)
    return model


@pytest.mark.parametrize("kind", HEADS)
def test_the_graph_gives_what_the_model_gives(kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = made(**HEADS[kind])
    session = onnxruntime.InferenceSession(command.graph(model).SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for B, L in ((1, 1), (4, 9), (2, 32)):
        ids, types = rng.integers(0, 40, (B, L)), rng.integers(0, 2, (B, L))
        mask = (np.arange(L) < rng.integers(1, L + 1, (B, 1))).astype(np.int64)
        trace, _ = model.forward(ids, mask, types)
        ours = {"last_hidden_state": trace.hidden[-1], "pooler_output": trace.pooled, "logits": trace.logits}
        if kind == "answers":
            ours |= {name: trace.logits[..., i] for i, name in enumerate(("start_logits", "end_logits"))}
        names = [output.name for output in session.get_outputs()]
        for name, theirs in zip(names, session.run(names, dict(zip(command.INPUTS, (ids, mask, types), strict=True))), strict=True):
            rows = mask.astype(bool) if theirs.ndim == 3 or name in ("start_logits", "end_logits") else slice(None)
            assert theirs.shape == ours[name].shape
            np.testing.assert_allclose(theirs[rows], ours[name][rows], rtol=1e-4, atol=1e-4)
            assert np.abs(ours[name]).max() > 0.1
    expected = {"encoder": ["last_hidden_state"], "encoder and pooler": ["last_hidden_state", "pooler_output"]}
    expected["answers"] = ["start_logits", "end_logits"]
    assert names == expected.get(kind, ["logits"])


def task(directory):
    directory.mkdir()
    rows = [("good film", 1), ("bad plot", 0), ("a good plot", 1), ("the bad film", 0)] * 3
    for name in ("train", "dev"):
        (directory / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return directory


@pytest.fixture
def saved(tmp_path):
    return written(tmp_path, head="classifier", id2label={0: "0", 1: "1"})


def written(tmp_path, **more):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "plot", "a", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    model = made(**more)
    model = Bert(model.config, model.parameters, {"vocab.txt": tmp_path / "vocab.txt"})
    (tmp_path / "vocab.txt").write_text("\n".join([*words, *(f"##{i}" for i in range(40 - len(words)))]) + "\n")
    model.save(tmp_path / "model")
    return str(tmp_path / "model")


def test_the_directory_and_the_scores(saved, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    data, out = task(tmp_path / "data"), tmp_path / "out"
    asked = ["export", "--model", saved, "--out", str(out), "--onnx", "--int8", "--task", "sst-2", "--data", str(data)]
    asked += ["--max-length", "16"]
    assert main([*asked, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} >= {"model.onnx", "model_int8.onnx", "config.json", "vocab.txt"}
    assert report["difference"] <= 1e-4 and report["bytes"]["int8"] < report["bytes"]["float32"]
    assert report["dev"]["float32"] == report["dev"]["minitinybert"] and 0 <= report["dev"]["int8"]["dev"]["accuracy"] <= 1
    assert main(asked) == 2
    assert "is there already" in capsys.readouterr().err


def test_the_scores_of_words_and_of_answers(tmp_path, capsys):
    """Of sentences of several lengths, so that the graph sees padding; and a document in two windows."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    data = tmp_path / "data"
    data.mkdir()
    (data / "dev.conll").write_text("a\tO\ngood\tX\nfilm\tO\n\nbad\tX\n\nthe\tO\nbad\tX\nplot\tY\na\tO\ngood\tX\n")
    answers = [{"text": "good film", "answer_start": 6}]
    questions = [{"id": "1", "question": "a film", "context": "the a good film the bad plot " * 3, "answers": answers}]
    questions.append({"id": "2", "question": "the plot", "context": "bad", "answers": [{"text": "bad", "answer_start": 0}]})
    paragraphs = [{"context": q["context"], "qas": [q]} for q in questions]
    (data / "dev.json").write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}))
    words = {"head": "tokens", "id2label": {0: "O", 1: "X", 2: "Y"}}
    for task, metric, head in (("tokens", "accuracy", words), ("squad", "f1", {"head": "spans"})):
        saved = written(tmp_path, pooler=False, **head)
        asked = ["export", "--model", saved, "--out", str(tmp_path / task), "--task", task, "--data", str(data), "--max-length", "20"]
        assert main([*asked, "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)["dev"]
        assert scores["float32"] == scores["minitinybert"] and 0 < scores["float32"]["dev"][metric] <= 1


def test_a_graph_that_says_something_else_is_not_written(saved, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    monkeypatch.setattr(command, "_gelu", lambda b, model, x: b.add("Relu", x))
    assert main(["export", "--model", saved, "--out", str(tmp_path / "out")]) == 2
    assert "differ from the model's" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_the_extra(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert main(["export", "--model", saved, "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'minitinybert[onnx]'" in capsys.readouterr().err and not Path(tmp_path / "out").exists()
    assert main(["export", "--model", saved, "--out", str(tmp_path / "out"), "--task", "sst-2"]) == 2
    assert "--task goes with --data" in capsys.readouterr().err
