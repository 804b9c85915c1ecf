from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.weights import torch_bin

from .helpers import assert_same, assert_unharmed, numpy_of

torch = pytest.importorskip("torch")
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(state, path, zipped):
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


def state_dict():
    g = torch.Generator().manual_seed(0)
    base = torch.randn(5, 6, generator=g)
    return OrderedDict(
        plain=base.clone(),
        transposed=base.clone().t(),
        sliced=base.clone()[1:4, ::2],
        row=base[2],
        column=base[:, 3],  # the same storage as row
        parameter=torch.nn.Parameter(torch.randn(3, generator=g)),
        expanded=torch.randn(1, 3, generator=g).expand(4, 3),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        half=torch.randn(3, generator=g).half(),
        bfloat=torch.randn(3, 2, generator=g).bfloat16().t(),
        double=torch.randn(3, generator=g).double(),
        **{name: torch.arange(-2, 4).to(getattr(torch, name)) for name in ("int64", "int32", "int16", "int8", "uint8", "bool")},
    )


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
def test_all_kinds_of_tensors(tmp_path, zipped, protocol):
    state = state_dict()
    torch.save(state, tmp_path / "x.bin", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    got = torch_bin.read(tmp_path / "x.bin")
    assert_same(got, numpy_of(state))
    assert got["bfloat"].dtype == np.float32
    assert np.shares_memory(got["row"], got["column"])
    assert not got["plain"].flags.writeable


@FORMATS
@pytest.mark.parametrize("cls", ["BertModel", "BertForSequenceClassification", "BertForMaskedLM"])
@pytest.mark.parametrize("spelling", ["as it is", "module", "gamma"])
def test_models(bert_config, tmp_path, zipped, cls, spelling):
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, cls)(bert_config)
    bert_config.to_json_file(tmp_path / "config.json")
    state = model.state_dict()
    prefix = "bert." if cls == "BertModel" else ""
    expected = {prefix + name: array for name, array in numpy_of(state).items()}
    if spelling == "module":
        state = OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
    if spelling == "gamma":
        old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        state = OrderedDict((old(name), tensor) for name, tensor in state.items())
        assert "gamma" in str(state.keys())
        state["bert.embeddings.position_ids"] = torch.arange(7)[None]
    save(state, tmp_path / "pytorch_model.bin", zipped)
    assert_same(weights.read(tmp_path).tensors, expected)
    assert_same(weights.read(tmp_path / "pytorch_model.bin").tensors, expected)


def test_shards(tmp_path, tensors):
    names = sorted(tensors)
    for i, part in enumerate((names[:2], names[2:])):
        save({name: torch.from_numpy(tensors[name]) for name in part}, tmp_path / f"pytorch_model-{i}.bin", True)
    shard_of = {name: f"pytorch_model-{int(i >= 2)}.bin" for i, name in enumerate(names)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(f'{{"weight_map": {str(shard_of).replace(chr(39), chr(34))}}}')
    (tmp_path / "config.json").write_text("{}")
    assert_same(weights.read(tmp_path).tensors, tensors)


# ------------------------------------------------------------------------------------------------ what is refused


class Evil:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@FORMATS
@pytest.mark.parametrize("where", ["value", "key's neighbour", "whole"])
@pytest.mark.parametrize("name", ["os.mkdir", "builtins.eval", "builtins.getattr"])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, zipped, where, name):
    target = tmp_path / "ran"
    evil = {
        "os.mkdir": Evil(os.mkdir, str(target)),
        "builtins.eval": Evil(eval, f"__import__('os').mkdir({str(target)!r})"),
        "builtins.getattr": Evil(getattr, "text", "upper"),
    }[name]
    state = {"value": {"w": torch.ones(2), "x": evil}, "key's neighbour": OrderedDict(x=[evil], w=torch.ones(2)), "whole": evil}
    save(state[where], tmp_path / "x.bin", zipped)
    with pytest.raises(InputError, match=rf"x\.bin: its pickle names (posix|__builtin__)\.{name.partition('.')[2]}, which is not read"):
        torch_bin.read(tmp_path / "x.bin")
    assert not target.exists()


@pytest.mark.parametrize(
    "name", ["collections OrderedDict.fromkeys", "torch._utils _rebuild_tensor_v2.__globals__", "torch load", "evil FloatStorage"]
)
def test_names_beside_the_admitted_ones(tmp_path, name):
    module, attribute = name.split()
    data = pickle.PROTO + b"\x04" + b"".join(pickle.SHORT_BINUNICODE + bytes([len(t)]) + t.encode() for t in (module, attribute))
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("x/data.pkl", data + pickle.STACK_GLOBAL + pickle.STOP)
    with pytest.raises(InputError, match="its pickle names"):
        torch_bin.read(tmp_path / "x.bin")


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes: here `items` of the dictionary, and the defaults of the function that the reader hands out."""
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    state = b"}X\x0c\x00\x00\x00__defaults__)s"
    tampering = function + b"(N" + state + b"tb0"
    dictionary = b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00items" + function + b"sb."
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + dictionary)
        archive.writestr("y", b"\x80\x02" + tampering + dictionary)
    with pytest.raises(InputError, match="no tensors by name"):
        torch_bin.read(tmp_path / "x.bin")
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + tampering + dictionary)
    with pytest.raises(InputError):
        torch_bin.read(tmp_path / "x.bin")
    assert torch_bin._rebuild_tensor.__defaults__ is None


def test_a_huge_memo_index_takes_no_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02N" + pickle.LONG_BINPUT + b"\xff\xff\xff\xff.")
    with pytest.raises(InputError, match="no tensors by name in it, a NoneType"):
        torch_bin.read(tmp_path / "x.bin")


@FORMATS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"w": torch.ones(2)}, "epoch": 3}, r"no tensors by name in it, only model, epoch; .*state_dict"),
        ([torch.ones(2)], "no tensors by name in it, a list"),
        (torch.nn.Linear(2, 2), r"its pickle names torch\.nn\.modules\.linear\.Linear"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, r"its pickle names torch\.ComplexFloatStorage"),
    ],
)
def test_not_a_state_dict(tmp_path, zipped, content, message):
    save(content, tmp_path / "x.bin", zipped)
    with pytest.raises(InputError, match=message):
        torch_bin.read(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>", "not a PyTorch file"),
        (pickle.dumps({"a": 1}), "not a PyTorch file"),
        (b"PK\x03\x04 and no more", "cut short"),
    ],
)
def test_not_a_pytorch_file(tmp_path, content, message):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(InputError, match=message):
        torch_bin.read(tmp_path / "x.bin")


def rewritten(path, change):
    """A zip of PyTorch's with its members changed: change(name, data) -> data or None."""
    members = {}
    with zipfile.ZipFile(path) as archive:
        members = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: None if n.endswith("data/1") else d, r"x/data/1 is not in the archive.*\(tensor b\)"),
        (lambda n, d: d[:-4] if n.endswith("data/1") else d, r"x/data/1 has 8 bytes, 12 are needed.*\(tensor b\)"),
        (lambda n, d: b"big" if n.endswith("byteorder") else d, "big-endian"),
        (lambda n, d: None if n.endswith("data.pkl") else d, r"no data\.pkl"),
        (lambda n, d: d.replace(b"q", b"\xff") if n.endswith("data.pkl") else d, "in its pickle"),
        # the record of b claims one element more, from the same storage
        (
            lambda n, d: d.replace(b"K\x00K\x03\x85", b"K\x01K\x03\x85") if n.endswith("pkl") else d,
            "tensor [ab] reaches beyond its storage",
        ),
    ],
)
def test_archives_that_lack_something(tmp_path, change, message):
    save({"a": torch.arange(3.0), "b": torch.arange(3.0)}, tmp_path / "x.bin", True)
    rewritten(tmp_path / "x.bin", change)
    with pytest.raises(InputError, match=message):
        torch_bin.read(tmp_path / "x.bin")


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"cpuq\x06K\x03", b"cpuq\x06N"),  # the number of elements in the storage: None
        (b"cpuq\x06K\x03", b"cpuq\x06J\xfd\xff\xff\xff"),  # -3
        (b"cpuq\x06K\x03", b"cpuq\x06G\x40\x08\0\0\0\0\0\0"),  # 3.0
        (b"QK\x00K\x03", b"QJ\xff\xff\xff\xffK\x03"),  # the offset: -1
        (b"QK\x00K\x03", b"QK\x00J\xff\xff\xff\xff"),  # the size: -1
        (b"\x85q\x08K\x01", b"\x85q\x08J\xff\xff\xff\xff"),  # the stride: -1
        (b"QK\x00K\x03\x85", b"QK\x00]"),  # no shape, one stride
        (b"storage", b"garbage"),
    ],
)
@FORMATS
def test_records_with_impossible_numbers(tmp_path, zipped, old, new):
    path = save({"a": torch.arange(3.0)}, tmp_path / "x.bin", zipped)
    change = lambda data: data.replace(old, new)
    before = path.read_bytes() if not zipped else zipfile.ZipFile(path).read("x/data.pkl")
    assert change(before) != before
    if zipped:
        rewritten(path, lambda n, d: change(d) if n.endswith("pkl") else d)
    else:
        path.write_bytes(change(before))
    with pytest.raises(InputError, match=r"x\.bin: cut short or damaged \(ValueError in its pickle\)"):
        torch_bin.read(path)


def test_a_legacy_storage_of_another_length(tmp_path):
    path = save({"a": torch.arange(3.0), "b": torch.arange(4.0)}, tmp_path / "x.bin", False)
    data = path.read_bytes()
    assert data.count(b"\x03" + bytes(7) + np.arange(3, dtype="<f4").tobytes()) == 1
    path.write_bytes(data.replace(b"\x03" + bytes(7) + bytes(4), b"\x02" + bytes(7) + bytes(4)))
    with pytest.raises(InputError, match=r"bytes of storage \d+ are missing.*\(tensor [ab]\)"):
        torch_bin.read(path)


@pytest.fixture(scope="module", params=[True, False], ids=["zip", "legacy"])
def whole(request, tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("bin") / "whole.bin"
    save({name: torch.from_numpy(array) for name, array in tensors.items()}, path, request.param)
    return path.with_name("part.bin"), path.read_bytes(), request.param


def test_truncations(whole, tensors):
    path, data, _ = whole
    for length in [*range(0, len(data), 7), *range(len(data) - 30, len(data))]:
        assert assert_unharmed(torch_bin.read, path, data[:length], tensors), length


@pytest.mark.parametrize(
    "name", ["bert.embeddings.LayerNorm.weight", "bert.encoder.layer.0.intermediate.dense.weight", "cls.predictions.bias"]
)
def test_a_truncation_names_the_tensor(whole, tensors, name):
    path, data, zipped = whole
    end = data.index(tensors[name].tobytes()) + tensors[name].nbytes
    path.write_bytes(data[: end - 1])
    with pytest.raises(InputError, match=r"part\.bin: cut short( or damaged)?; bytes of ") as caught:
        torch_bin.read(path)
    named = re.search(r"tensor ([\w.]+)", str(caught.value))[1]
    assert tensors[named].tobytes() not in data[: end - 1]  # the legacy format has its own order: others are missing too
    if zipped:
        assert named == name


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage(whole, tensors, data):
    """No error but InputError; and where the format has checksums (zip), never other data."""
    path, content, zipped = whole
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if zipped:
        assert_unharmed(torch_bin.read, path, bytes(damaged), tensors)
        return
    path.write_bytes(damaged)
    try:
        torch_bin.read(path)
    except InputError as error:
        assert "part.bin" in str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_pickle(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + data)
    with pytest.raises(InputError, match=r"any\.bin"):
        torch_bin.read(path)
    buffer = io.BytesIO()
    pickle.dump(torch_bin._MAGIC, buffer, protocol=2)
    path.write_bytes(buffer.getvalue() + data)
    with pytest.raises(InputError, match=r"any\.bin"):
        torch_bin.read(path)
