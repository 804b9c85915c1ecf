"""tf_tiny/ was written by TensorFlow (make_tf_tiny.py); the tables with other block sizes, kinds and shards by the writer here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.weights import tensorflow
from minitinybert.weights.names import rename

from .helpers import assert_same, assert_unharmed

TINY = Path(__file__).parent / "tf_tiny"
PREFIX = TINY / "model.ckpt-7"
LAYER = "bert.encoder.layer.0"
DENSE = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense"]


def hf_names():
    """By hand: each Hugging Face name, TensorFlow's, and whether it is transposed."""
    for part in ("word", "position", "token_type"):
        yield f"bert.embeddings.{part}_embeddings.weight", f"bert/embeddings/{part}_embeddings", False
    norms = ["bert.embeddings", f"{LAYER}.attention.output", f"{LAYER}.output", "cls.predictions.transform"]
    for scope in norms:
        theirs = scope.replace("layer.0", "layer_0").replace(".", "/") + "/LayerNorm/"
        yield f"{scope}.LayerNorm.weight", theirs + "gamma", False
        yield f"{scope}.LayerNorm.bias", theirs + "beta", False
    dense = [f"{LAYER}.{name}" for name in (*DENSE, "output.dense")]
    for scope in (*dense, "bert.pooler.dense", "cls.predictions.transform.dense"):
        theirs = scope.replace("layer.0", "layer_0").replace(".", "/") + "/"
        yield f"{scope}.weight", theirs + "kernel", True
        yield f"{scope}.bias", theirs + "bias", False
    yield "cls.predictions.bias", "cls/predictions/output_bias", False
    yield "cls.seq_relationship.weight", "cls/seq_relationship/output_weights", False
    yield "cls.seq_relationship.bias", "cls/seq_relationship/output_bias", False
    yield "classifier.weight", "output_weights", False
    yield "classifier.bias", "output_bias", False


@pytest.fixture(scope="module")
def expected():
    theirs = np.load(TINY / "expected.npz")
    named = {ours: theirs[name].T if transposed else theirs[name] for ours, name, transposed in hf_names()}
    assert len(named) == len(theirs.files)
    return named


@pytest.mark.parametrize("path", [TINY, PREFIX, str(PREFIX), PREFIX.with_name("model.ckpt-7.index")], ids=["dir", "prefix", "str", "index"])
def test_what_tensorflow_wrote(expected, path):
    checkpoint = weights.read(path)
    assert_same(checkpoint.tensors, expected)
    assert all(not tensor.flags.owndata for tensor in checkpoint.tensors.values())
    assert checkpoint.config == {
        **json.loads((TINY / "bert_config.json").read_text()),
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
        "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    }


def test_which_of_several(tmp_path, expected):
    for file in TINY.iterdir():
        shutil.copy(file, tmp_path / file.name)
        shutil.copy(file, tmp_path / file.name.replace("ckpt-7", "ckpt-8"))
    with pytest.raises(InputError, match=r"more than one TensorFlow checkpoint; give the path of one of model\.ckpt-7, model\.ckpt-8"):
        weights.read(tmp_path)
    assert_same(weights.read(tmp_path / "model.ckpt-8").tensors, expected)
    (tmp_path / "bert_config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json \(nor bert_config\.json\)"):
        weights.read(tmp_path / "model.ckpt-8")
    with pytest.raises(InputError, match=r"data-00000-of-00001: not a kind of file that is read .*TensorFlow checkpoint's prefix"):
        weights.read(tmp_path / "model.ckpt-8.data-00000-of-00001")


# ------------------------------------------------------------------------------------------------ a writer for the tests


def crc32c(data):
    """Bit by bit, as the definition has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def block(entries, restart_interval, kind=0):
    """Entries of a table (sorted) as one block with its trailer."""
    body, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart_interval == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    body += b"".join(r.to_bytes(4, "little") for r in [*(restarts or [0]), len(restarts or [0])]) + bytes([kind])
    crc = crc32c(body)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return bytes(body) + masked.to_bytes(4, "little")


def table(entries, a_block, restart_interval, kind=0):
    out, handles = b"", []
    for i in range(0, len(entries), a_block):
        data = block(entries[i : i + a_block], restart_interval, kind)
        handles.append((entries[i : i + a_block][-1][0], varint(len(out)) + varint(len(data) - 5)))
        out += data
    ends = b""
    for data in (block([], 1), block(handles, 1)):
        ends += varint(len(out)) + varint(len(data) - 5)
        out += data
    return out + ends.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def entry(dtype, shape, shard, offset, size, extra=b""):
    dims = b"".join(b"\x12" + varint(len(dim)) + dim for dim in (b"\x08" + varint(n) for n in shape))
    numbers = b"".join(tag + varint(n) for tag, n in ((b"\x18", shard), (b"\x20", offset), (b"\x28", size)) if n)
    return b"\x08" + varint(dtype) + b"\x12" + varint(len(dims)) + dims + numbers + b"\x35\1\2\3\4" + extra


ENUM = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def bundle(prefix, tensors, shards=1, a_block=1000, restart_interval=16, kind=0, header=None, extra=b"", more=()):
    """A checkpoint of float32 … tensors by name, spread over shards."""
    data = [bytearray() for _ in range(shards)]
    entries = [(b"", header or b"\x08" + varint(shards) + b"\x1a\x02\x08\x01"), *more]
    for i, (name, array) in enumerate(sorted(tensors.items())):
        shard = i % shards
        entries.append((name.encode(), entry(ENUM[str(array.dtype)], array.shape, shard, len(data[shard]), array.nbytes, extra)))
        data[shard] += array.tobytes()
    Path(f"{prefix}.index").write_bytes(table(entries, a_block, restart_interval, kind))
    for i, part in enumerate(data):
        Path(f"{prefix}.data-{i:05d}-of-{shards:05d}").write_bytes(part)


SOME = {
    "bert/embeddings/word_embeddings": np.arange(6, dtype=np.float32).reshape(3, 2),
    "bert/encoder/layer_10/output/dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bert/encoder/layer_10/output/dense/kernel/adam_m": np.ones((2, 3), np.float32),
    "bert/pooler/dense/bias": np.array([1, 2], np.float16),
    "bert/scale/bias": np.array(3.5),
    "bert/empty/bias": np.zeros((0, 2), np.float32),
    "global_step": np.array(7),
}
SOME_READ = {
    "bert.embeddings.word_embeddings.weight": SOME["bert/embeddings/word_embeddings"],
    "bert.encoder.layer.10.output.dense.weight": SOME["bert/encoder/layer_10/output/dense/kernel"].T,
    "bert.pooler.dense.bias": SOME["bert/pooler/dense/bias"],
    "bert.scale.bias": SOME["bert/scale/bias"],
    "bert.empty.bias": SOME["bert/empty/bias"],
}


def test_the_writer_agrees_with_tensorflow():
    """The writer's blocks, fed with the entries of tf_tiny, are TensorFlow's bytes."""
    theirs = Path(f"{PREFIX}.index").read_bytes()
    entries = list(tensorflow._table(theirs, PREFIX))
    assert block(entries, 16) == theirs[: len(block(entries, 16))]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(("a_block", "restart_interval"), [(1, 1), (2, 16), (3, 2), (1000, 16)])
def test_blocks_and_shards(tmp_path, shards, a_block, restart_interval):
    bundle(tmp_path / "bert_model.ckpt", SOME, shards, a_block, restart_interval)
    (tmp_path / "bert_config.json").write_text("{}")
    assert_same(weights.read(tmp_path).tensors, SOME_READ)


def test_bfloat16(tmp_path, monkeypatch):
    monkeypatch.setitem(ENUM, "uint16", 14)
    values = np.array([1.5, -2, 3.25], np.float32)
    bundle(tmp_path / "x.ckpt", {"bert/pooler/dense/bias": (values.view(np.uint32) >> 16).astype(np.uint16)})
    assert_same(tensorflow.read(tmp_path / "x.ckpt"), {"bert.pooler.dense.bias": values})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": 1}, r"x\.ckpt\.index: its blocks are compressed \(kind 1\)"),
        ({"header": b"\x08\x01\x10\x01"}, "big-endian"),
        (
            {"extra": b"\x3a\x00", "more": [(b"\0\1bert\0\1\x80\x82", b"")]},
            r"tensor bert/embeddings/word_embeddings is stored in slices",
        ),
    ],
)
def test_what_is_not_read(tmp_path, options, message):
    bundle(tmp_path / "x.ckpt", SOME, **options)
    with pytest.raises(InputError, match=message):
        tensorflow.read(tmp_path / "x.ckpt")


def test_other_models_and_dtypes(tmp_path, monkeypatch):
    bundle(tmp_path / "x.ckpt", {"resnet/conv1/kernel": np.ones(2)})
    with pytest.raises(InputError, match=r"x\.ckpt: not Google's BERT: .*resnet/conv1/kernel"):
        tensorflow.read(tmp_path / "x.ckpt")
    monkeypatch.setitem(ENUM, "float64", 8)  # complex64's number
    bundle(tmp_path / "x.ckpt", {"bert/x/bias": np.ones(2)})
    with pytest.raises(InputError, match="tensor bert/x/bias has TensorFlow's dtype number 8"):
        tensorflow.read(tmp_path / "x.ckpt")
    monkeypatch.setitem(ENUM, "float64", 1)
    bundle(tmp_path / "x.ckpt", {"bert/x/bias": np.ones(2)})
    with pytest.raises(InputError, match=r"x\.ckpt\.index: tensor bert/x/bias of shape \(2,\) has 16 bytes"):
        tensorflow.read(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "beside",
    [
        "bert/pooler/dense/bias/adam_m",  # Google's run_pretraining.py
        "bert/pooler/dense/bias/BERTAdam_1",  # BioBERT
        "bert/pooler/dense/bias/LAMB",
        "bert/pooler/dense/bias/Momentum",
        "bert/pooler/dense/bias/ExponentialMovingAverage",
        "bert/encoder/layer_0/output/LayerNorm/gamma/Adafactor/vr",
        "bert/global_step",
        "global_step",
        "beta1_power",
        "loss_scale",
        "LAMBOptimizer/bert/pooler/dense/bias",  # slots under a name of their own
        "crf_loss/transitions",
        "notbert/pooler/dense/bias",
    ],
)
def test_what_is_no_tensor_of_the_model_stays_behind(tmp_path, beside):
    bundle(tmp_path / "x.ckpt", {**SOME, beside: np.zeros(2, np.float32)})
    assert_same(tensorflow.read(tmp_path / "x.ckpt"), SOME_READ)


@pytest.mark.parametrize("prefix", ["module/", "model/module/"])
def test_a_prefix_is_taken_off(tmp_path, prefix):
    bundle(tmp_path / "x.ckpt", {prefix + name: values for name, values in {**SOME, "output_bias": np.ones(2)}.items()})
    assert_same(tensorflow.read(tmp_path / "x.ckpt"), {**SOME_READ, "classifier.bias": np.ones(2)})


# ------------------------------------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tf")
    for file in TINY.glob("model*"):
        shutil.copy(file, directory)
    return directory / PREFIX.name


def test_every_truncation_of_the_shard(copy, expected):
    shard = Path(f"{copy}.data-00000-of-00001")
    data = Path(f"{PREFIX}.data-00000-of-00001").read_bytes()
    for length in [*range(0, len(data), 37), len(data) - 1]:
        assert assert_unharmed(lambda _: rename(tensorflow.read(copy), copy), shard, data[:length], expected)
    # where the word embeddings begin, sought by their values: they are the first that is missing if that is cut
    begin = data.index(expected["bert.embeddings.word_embeddings.weight"].tobytes())
    shard.write_bytes(data[: begin + 5])
    with pytest.raises(InputError, match=r"data-00000-of-00001: cut short; bytes of tensor bert/embeddings/word_embeddings are missing"):
        tensorflow.read(copy)
    shard.unlink()
    with pytest.raises(InputError, match=r"model\.ckpt-7\.data-00000-of-00001: missing"):
        tensorflow.read(copy)
    shard.write_bytes(data)


def test_every_truncation_of_the_index(copy, expected):
    index = Path(f"{copy}.index")
    data = Path(f"{PREFIX}.index").read_bytes()
    for length in [*range(0, len(data), 5), *range(len(data) - 60, len(data))]:
        assert assert_unharmed(lambda _: rename(tensorflow.read(copy), copy), index, data[:length], expected)
    index.write_bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_index_is_never_other_data(copy, expected, data):
    index = Path(f"{copy}.index")
    content = Path(f"{PREFIX}.index").read_bytes()
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert_unharmed(lambda _: rename(tensorflow.read(copy), copy), index, bytes(damaged), expected)
    index.write_bytes(content)
