from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.weights import hf

from .helpers import assert_same, assert_unharmed, numpy_of

CLASSES = ["BertModel", "BertForSequenceClassification", "BertForMaskedLM", "BertForPreTraining"]
CLASSES += ["BertForTokenClassification", "BertForQuestionAnswering"]


# ------------------------------------------------------------------------------------------------ beside transformers


def saved(bert_config, directory, cls, dtype="float32", **options):
    """A random model of a class of transformers, saved; its state by canonical names."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = getattr(transformers, cls)(bert_config).to(getattr(torch, dtype))
    model.save_pretrained(directory, **options)
    prefix = "bert." if cls == "BertModel" else ""
    return model, {prefix + name: array for name, array in numpy_of(model.state_dict()).items()}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("cls", CLASSES)
def test_what_transformers_saves(bert_config, tmp_path, cls, dtype):
    _, state = saved(bert_config, tmp_path, cls, dtype)
    checkpoint = weights.read(tmp_path)
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # saved once, under the other name
    assert_same(checkpoint.tensors, {name: array for name, array in state.items() if name not in tied})
    assert checkpoint.config["architectures"] == [cls]


def test_shards(bert_config, tmp_path):
    _, state = saved(bert_config, tmp_path, "BertForSequenceClassification", max_shard_size=500)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert_same(weights.read(tmp_path).tensors, state)
    assert_same(weights.read(tmp_path / "model.safetensors.index.json").tensors, state)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    lost = next(name for name, shard in index.items() if shard == shards[1].name)
    shards[1].rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{shards[1].name}: missing.*{lost}"):
        weights.read(tmp_path)
    shutil.copy(shards[0], shards[1])
    with pytest.raises(InputError, match=f"{shards[1].name}: does not hold tensor {lost}"):
        weights.read(tmp_path)


@pytest.mark.parametrize("cls", CLASSES)
def test_transformers_opens_what_is_written(bert_config, tmp_path, cls):
    transformers = pytest.importorskip("transformers")
    model, state = saved(bert_config, tmp_path / "theirs", cls)
    theirs = weights.read(tmp_path / "theirs")
    weights.write(tmp_path / "ours", theirs.config, theirs.tensors, theirs.tokenizer_files)
    again, problems = getattr(transformers, cls).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(problems.values()), problems
    assert_same(numpy_of(again.state_dict()), numpy_of(model.state_dict()))
    bare = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    assert_same(
        {f"bert.{name}": array for name, array in numpy_of(bare.state_dict()).items() if "pooler" not in name},
        {name: array for name, array in state.items() if name.startswith("bert.") and "pooler" not in name},
    )


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("name", ["bert_config.json", "config.json"])
def test_a_file_by_itself(tmp_path, tensors, name):
    save_file(tensors, tmp_path / "some.safetensors")
    (tmp_path / name).write_text('{"hidden_size": 4}')
    (tmp_path / "vocab.txt").write_text("a\n")
    checkpoint = weights.read(tmp_path / "some.safetensors")
    assert_same(checkpoint.tensors, tensors)
    assert checkpoint.config == {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 4}
    assert checkpoint.tokenizer_files == {"vocab.txt": tmp_path / "vocab.txt"}


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls != "BertModel"])
def test_tensors_tell_the_head_where_the_configuration_does_not(bert_config, tmp_path, cls):
    saved(bert_config, tmp_path, cls)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "architectures"}), encoding="utf-8")
    assert weights.read(tmp_path).config["architectures"] == [cls]


def test_tensors_are_views_of_the_file(tmp_path, tensors, config):
    weights.write(tmp_path / "m", config, tensors, {})
    for array in weights.read(tmp_path / "m").tensors.values():
        assert not array.flags.owndata
        assert not array.flags.writeable


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_dtypes_and_shapes(tmp_path, config, dtype):
    values = np.random.default_rng(1).integers(0, 100, 24).astype(dtype)
    shapes = {"a": values.reshape(2, 3, 4), "b": values[:0], "c": values[:1].reshape(()), "d": values[:3]}
    weights.write(tmp_path / "m", config, shapes, {})
    assert_same(weights.read(tmp_path / "m").tensors, shapes)


@pytest.mark.parametrize("name", ["missing", "missing/model.safetensors", "a/b/c", "./missing/there", "/no/where"])
def test_nothing_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "missing" if "/" in name[1:] else tmp_path).mkdir(exist_ok=True)
    with pytest.raises(InputError, match=f"{name.removeprefix('./')}: no such file or directory"):
        weights.read(name)


def test_a_file_that_may_not_be_read(tmp_path, config, tensors, monkeypatch):
    weights.write(tmp_path, config, tensors, {})

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(hf, "read_json", refuse)
    with pytest.raises(InputError, match=r"config\.json: cannot be read \(Permission denied\)"):
        weights.read(tmp_path)


def test_a_directory_without_weights_or_config(tmp_path, tensors):
    with pytest.raises(InputError, match=r"no weights in it; looked for model\.safetensors, .*pytorch_model\.bin.*\.index"):
        weights.read(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"no config\.json"):
        weights.read(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 4')
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        weights.read(tmp_path)
    (tmp_path / "config.json").write_text("[4]")
    with pytest.raises(InputError, match=r"config\.json: holds a JSON list"):
        weights.read(tmp_path)
    (tmp_path / "weights.h5").write_text("?")
    with pytest.raises(InputError, match=r"weights\.h5: not a kind of file that is read \(\.safetensors, \.bin"):
        weights.read(tmp_path / "weights.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", r"not a safetensors file \(it begins with b'<!DOCTYP'"),
        (struct.pack("<Q", 4) + b"[1]\n", "not a safetensors|damaged"),
        (struct.pack("<Q", 2**63) + b"{}", "damaged"),
    ],
)
def test_not_a_safetensors_file(tmp_path, content, message):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.safetensors: .*({message})"):
        weights.read(tmp_path)


def test_a_dtype_that_numpy_lacks(tmp_path):
    header = json.dumps({"bert.x": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with pytest.raises(InputError, match=r"tensor bert\.x has dtype F8_E4M3"):
        hf.read_safetensors(tmp_path / "m.safetensors")


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "", "..", 3])
def test_an_index_cannot_leave_its_directory(tmp_path, tensors, shard):
    (tmp_path / "in").mkdir()
    save_file(tensors, tmp_path / "outside.safetensors")
    (tmp_path / "in/config.json").write_text("{}")
    (tmp_path / "in/model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))
    with pytest.raises(InputError, match="weight_map"):
        weights.read(tmp_path / "in")


# ------------------------------------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("safetensors") / "whole.safetensors"
    save_file(tensors, path)
    return path.with_name("part.safetensors"), path.read_bytes()


def test_every_truncation(whole, tensors):
    path, data = whole
    header, start = hf._header(path.with_name("whole.safetensors"))
    ends = sorted((entry["data_offsets"][1], name) for name, entry in header.items())
    for length in range(len(data)):
        assert assert_unharmed(hf.read_safetensors, path, data[:length], tensors)
        if length >= start:
            first = next(name for end, name in ends if start + end > length)
            with pytest.raises(InputError, match=f"cut short; bytes of tensor {first}"):
                hf.read_safetensors(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_headers(whole, data):
    """No error but InputError; the format has no checksums, so what is read may differ."""
    path, content = whole
    length = 8 + int.from_bytes(content[:8], "little")
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        hf.read_safetensors(path)
    except InputError as error:
        assert "part.safetensors" in str(error)


# ------------------------------------------------------------------------------------------------ writing


def test_arrays_that_are_not_contiguous(tmp_path, config):
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"t": a.T, "step": a[::2, ::3], "back": a[::-1], "wide": np.broadcast_to(a[0], (3, 6)), "swapped": a.astype(">f4")}
    weights.write(tmp_path / "m", config, views, {})
    expected = {name: view.astype("<f4") for name, view in views.items()}
    assert_same(weights.read(tmp_path / "m").tensors, expected)


def test_tokenizer_files_go_along_and_do_not_mix(tmp_path, config, tensors):
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / name).write_text(name)
    both = {name: tmp_path / name for name in ("tokenizer.json", "vocab.txt")}
    target = tmp_path / "deep" / "m"
    weights.write(target, config, tensors, both)
    assert sorted(p.name for p in target.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
    assert (target / "vocab.txt").read_text() == "vocab.txt"
    weights.write(target, config, tensors, {})
    assert set(weights.read(target).tokenizer_files) == set(both)
    weights.write(target, config, tensors, {"vocab.txt": target / "vocab.txt"})  # onto itself
    assert weights.read(target).tokenizer_files == {"vocab.txt": target / "vocab.txt"}
    assert (target / "vocab.txt").read_text() == "vocab.txt"


def test_a_model_over_the_one_it_was_read_from(tmp_path, config, tensors):
    weights.write(tmp_path / "m", config, tensors, {})
    assert safe_open(tmp_path / "m" / "model.safetensors", "np").metadata() == {"format": "pt"}  # transformers asks for it
    checkpoint = weights.read(tmp_path / "m")
    weights.write(tmp_path / "m", config, {name: array + 1 for name, array in checkpoint.tensors.items()}, {})
    assert_same(checkpoint.tensors, tensors)  # the maps still show the old file
    assert_same(weights.read(tmp_path / "m").tensors, {name: array + 1 for name, array in tensors.items()})


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_write_that_fails_leaves_what_was(tmp_path, config, tensors, monkeypatch, error):
    weights.write(tmp_path / "old", config, tensors, {})

    def fail(arrays, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(hf, "save_file", fail)
    for name in ("old", "new"):
        with pytest.raises(InputError, match=rf"{name}.*cannot be written \(.*(No space|I/O)"):
            weights.write(tmp_path / name, config, {}, {})
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["config.json", "model.safetensors", "old"]
    assert_same(weights.read(tmp_path / "old").tensors, tensors)


def test_what_cannot_be_written(tmp_path, config):
    with pytest.raises(InputError, match="tensor x has dtype complex64"):
        weights.write(tmp_path / "m", config, {"x": np.zeros(2, np.complex64)}, {})
    with pytest.raises(InputError, match="tensor x has dtype object"):
        weights.write(tmp_path / "m", config, {"x": np.array([None])}, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/m: cannot be written"):
        weights.write(tmp_path / "file" / "m", config, {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
