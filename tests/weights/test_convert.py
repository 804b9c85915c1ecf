from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.model.config import Config
from minitinybert.weights.convert import convert

from .helpers import assert_same

TF = Path(__file__).parent / "tf_tiny"


@pytest.fixture
def source(tmp_path, tensors, config):
    """make(kind) -> the path of the same model in another format, with a tokenizer beside it."""

    def make(kind):
        directory = tmp_path / "source"
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "vocab.txt").write_text("[PAD]\n")
        if kind.endswith("safetensors"):
            save_file(tensors, directory / "model.safetensors")
        else:
            torch = pytest.importorskip("torch")
            state = {name: torch.from_numpy(array) for name, array in tensors.items()}
            torch.save(state, directory / "pytorch_model.bin", _use_new_zipfile_serialization=kind != "legacy.bin")
        return directory / "pytorch_model.bin" if kind == "lone.bin" else directory

    return make


@pytest.mark.parametrize(
    ("kind", "format"),
    [("safetensors", "safetensors"), ("bin", "PyTorch .bin"), ("legacy.bin", "PyTorch .bin"), ("lone.bin", "PyTorch .bin")],
)
def test_each_format(tmp_path, source, tensors, config, kind, format):
    path = source(kind)
    assert convert(path, tmp_path / "to") == {
        "source": str(path),
        "format": format,
        "tensors": 5,
        "parameters": 13 * 4 + 4 + 6 * 4 + 6 + 13,
        "destination": str(tmp_path / "to"),
    }
    checkpoint = weights.read(tmp_path / "to")
    assert_same(checkpoint.tensors, tensors)
    assert checkpoint.config == config
    assert checkpoint.tokenizer_files["vocab.txt"].read_text() == "[PAD]\n"


@pytest.mark.parametrize("kind", ["released code's", "ours, of old", "no relu"])
def test_a_relu_before_the_classifier_is_said_in_what_is_written(tmp_path, kind):
    """The released code's students have `fit_dense` and a configuration that says nothing; ours once said BertForSequenceClassification."""
    relu = kind != "no relu"
    tensors = {"classifier.weight": np.ones((3, 4), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    said = {"architectures": ["BertForSequenceClassification"], "classifier_relu": relu}
    if kind == "released code's":
        tensors["fit_dense.weight"], said = np.ones((6, 4), np.float32), {}
        tensors |= {"bert.pooler.dense.weight": np.eye(4, dtype=np.float32), "bert.pooler.dense.bias": np.zeros(4, np.float32)}
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "config.json").write_text(json.dumps({**sizes, **said}))
    save_file(tensors, tmp_path / "from" / "model.safetensors")
    convert(tmp_path / "from", tmp_path / "to")
    raw = json.loads((tmp_path / "to" / "config.json").read_text())
    kinds = ("tinybert", ["TinyBertForSequenceClassification"]) if relu else ("bert", ["BertForSequenceClassification"])
    assert (raw["model_type"], raw["architectures"]) == kinds
    config = Config.from_hf(weights.read(tmp_path / "to").config)
    assert (config.head, config.classifier_relu, config.num_labels) == ("classifier", relu, 3)


def test_tensorflow_to_transformers(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    assert convert(TF / "model.ckpt-7", tmp_path / "to")["format"] == "TensorFlow checkpoint"
    expected = weights.read(TF).tensors
    model, problems = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "to", output_loading_info=True)
    assert not problems["missing_keys"]
    assert not problems["mismatched_keys"]
    assert all(key.startswith("cls.") for key in problems["unexpected_keys"])
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert_same(state, {name: array for name, array in expected.items() if not name.startswith("cls.")})


def test_in_place(source, tensors):
    path = source("bin")
    convert(path, path)
    assert_same(weights.read(path / "model.safetensors").tensors, tensors)


def test_destinations(tmp_path, source, tensors):
    path = source("safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: a file; the destination must be a directory"):
        convert(path, tmp_path / "file")
    (tmp_path / "other").mkdir()
    convert(path, tmp_path / "other")  # empty: may be filled
    with pytest.raises(InputError, match="other: holds a model already; .* --overwrite"):
        convert(path, tmp_path / "other")
    convert(path, tmp_path / "other", overwrite=True)
    assert_same(weights.read(tmp_path / "other").tensors, tensors)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/config.json").write_text("{}")
    with pytest.raises(InputError, match="thesis: holds files but no model"):
        convert(path, tmp_path / "thesis")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["config.json"]


def test_a_source_that_cannot_be_read_leaves_nothing(tmp_path):
    shutil.copy(TF / "model.ckpt-7.index", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="data-00000-of-00001: missing"):
        convert(tmp_path, tmp_path / "to")
    assert not (tmp_path / "to").exists()
