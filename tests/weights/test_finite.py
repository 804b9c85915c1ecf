"""Weights that are not finite are refused where they are read, by their tensor's name, in every format."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.weights.files import check_finite

from .test_tensorflow import bundle

NAME = "bert.encoder.layer.0.intermediate.dense.weight"


def write(directory, kind, tensors, config):
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    if kind == "safetensors":
        save_file(tensors, directory / "model.safetensors")
    elif kind == "shards":
        first = dict.fromkeys(tensors, "a.safetensors") | {NAME: "b.safetensors"}
        for file in ("a.safetensors", "b.safetensors"):
            save_file({name: tensors[name] for name in tensors if first[name] == file}, directory / file)
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": first}))
    elif kind == "TensorFlow":
        google = {name.replace("layer.0", "layer_0").replace(".", "/"): values for name, values in tensors.items()}
        named = {}
        for name, values in google.items():
            name = name.removesuffix("/weight") if "_embeddings" in name else name.replace("LayerNorm/weight", "LayerNorm/gamma")
            kernel = name.endswith("/weight")
            name = name.replace("/weight", "/kernel").replace("predictions/bias", "predictions/output_bias")
            named[name] = values.T if kernel else values
        bundle(directory / "x.ckpt", named)
    else:
        torch = pytest.importorskip("torch")
        state = {name: torch.from_numpy(values) for name, values in tensors.items()}
        torch.save(state, directory / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "bin")


@pytest.mark.parametrize("kind", ["safetensors", "shards", "bin", "legacy bin", "TensorFlow"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_format_names_the_tensor(tmp_path, tensors, config, kind, value):
    write(tmp_path / "good", kind, tensors, config)
    assert set(weights.read(tmp_path / "good").tensors) == set(tensors)
    bad = {**tensors, NAME: tensors[NAME].copy()}
    bad[NAME][2, 1] = value
    write(tmp_path / "bad", kind, bad, config)
    with pytest.raises(InputError, match=f"tensor {NAME} has 1 numbers of 24 that are not finite"):
        weights.read(tmp_path / "bad")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_float_of_a_file(tmp_path, config, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    (tmp_path / "config.json").write_text(json.dumps(config))
    values = torch.ones(3, dtype=getattr(torch, dtype))
    save_torch({"bert.pooler.dense.bias": values}, tmp_path / "model.safetensors")
    assert (weights.read(tmp_path).tensors["bert.pooler.dense.bias"] == 1).all()
    values[1] = float("inf")
    save_torch({"bert.pooler.dense.bias": values}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: tensor bert\.pooler\.dense\.bias has 1 numbers of 3"):
        weights.read(tmp_path)


def test_whole_numbers_and_empty_tensors_are_finite():
    for dtype in (np.int64, np.bool_, np.float32):
        check_finite(np.ones(3, dtype), "x", "here")
        check_finite(np.ones((0, 3), dtype), "x", "here")


def test_an_optimiser_s_numbers_are_not_looked_at(tmp_path):
    tiny = Path(__file__).parent / "tf_tiny"
    shutil.copytree(tiny, tmp_path / "copy")
    expected = weights.read(tiny).tensors
    data = tmp_path / "copy" / "model.ckpt-7.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    from minitinybert.weights import tensorflow

    _, entries = tensorflow._bundle(tmp_path / "copy" / "model.ckpt-7.index")
    slot = next(entry for name, entry in entries.items() if name.endswith("adam_m"))
    content[slot.offset : slot.offset + 4] = np.float32(np.nan).tobytes()
    data.write_bytes(content)
    assert set(weights.read(tmp_path / "copy").tensors) == set(expected)
