"""Files that someone made to do harm: each is refused in one line, soon, and nothing of it is run, shown or kept in memory."""

import json
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minitinybert.augmentation import files as augmentation
from minitinybert.commands import demo
from minitinybert.commands.ablation import study
from minitinybert.commands.recipe_file import load_recipe
from minitinybert.data.corpus import Corpus
from minitinybert.data.glue import TASKS
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.errors import InputError
from minitinybert.files import open_zip, read_array, read_member
from minitinybert.training.loop import Progress
from minitinybert.weights import hf, tensorflow, torch_bin

from . import loaders

SOON = 5.0  # seconds of processor time


@pytest.fixture(autouse=True)
def soon():
    started = time.process_time()
    yield
    assert time.process_time() - started < SOON


# ------------------------------------------------------------------------------------------------------------------ PyTorch

TEXT = lambda text: b"X" + struct.pack("<I", len(text)) + text.encode()
STORAGE = b"(" + TEXT("storage") + b"ctorch\nFloatStorage\n" + TEXT("0") + TEXT("cpu") + b"K\x02tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00K\x02\x85K\x01\x85\x89NtR"
DEEP = b")" + b"\x85" * 200_000  # ((((…))))


def archive(path, data_pkl, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("x/data.pkl", data_pkl)
        made.writestr("x/data/0", np.arange(2, dtype="<f4").tobytes())
    return path


def legacy(path, data_pkl):
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    rest = [pickle.dumps(["0"], 2), struct.pack("<Q2f", 2, 0, 1)]
    path.write_bytes(b"".join([*parts, data_pkl, *rest]))
    return path


FORMATS = pytest.mark.parametrize("write", [archive, legacy])


@FORMATS
def test_the_pickles_here_are_read(tmp_path, write):
    """Those below differ by one thing; attributes and what lies beside tensors are passed over."""
    more = TEXT("deep") + DEEP + b"s" + TEXT("set_state") + b"]}X\x01\x00\x00\x00aK\x01sbs"
    read = torch_bin.read(write(tmp_path / "x.bin", b"\x80\x02}" + more + TEXT("w") + TENSOR + b"s."))
    assert list(read) == ["w"] and read["w"].tolist() == [0, 1]


@FORMATS
@pytest.mark.parametrize(
    "data",
    [
        b"}" + DEEP + b"K\x01s.",  # a key
        b"(" + DEEP + b"K\x01d.",
        b"ccollections\nOrderedDict\n(]](" + DEEP + b"K\x01eatR.",
        b"(" + DEEP + b"\x91.",  # a frozenset
        b"\x8f(" + DEEP + b"\x90.",  # a set
        DEEP + b"Q.",  # a storage, whose error must not print it
        b"(" + DEEP + b"ctorch\nFloatStorage\n" + TEXT("0") + TEXT("cpu") + b"K\x02tQ.",
        b"(" + TEXT("storage") + DEEP + TEXT("0") + TEXT("cpu") + b"K\x02tQ.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00" + DEEP + b"K\x01\x85\x89NtR.",
        DEEP + b".",
        b"}" + TEXT("a\nb") + DEEP + b"s.",
    ],
)
def test_what_a_pickle_made_is_neither_hashed_nor_printed(tmp_path, write, data):
    """The hash and the repr of so deep a tuple end the process, or in RecursionError."""
    with pytest.raises(InputError, match=r"x\.bin: (cut short or damaged|no tensors by name)") as caught:
        torch_bin.read(write(tmp_path / "x.bin", b"\x80\x02" + data))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@FORMATS
@pytest.mark.parametrize(
    "data",
    [
        # one list of 50,000 pairs, named 50,000 times
        b"ccollections\nOrderedDict\nq\x00](" + b"".join(b"(" + TEXT(str(i)) + b"Nl" for i in range(50_000)) + b"eq\x010"
        + b"h\x00h\x01\x85R0" * 50_000 + b"}.",
        # a shape of 100,000 sizes, and as many tensors of it
        b"(" + b"K\x01" * 100_000 + b"tq\x010ctorch._utils\n_rebuild_tensor_v2\nq\x000" + STORAGE + b"q\x020"
        + b"h\x00(h\x02K\x00h\x01h\x01\x89NtR0" * 40_000,
        b"I" + b"9" * 1_000_000 + b"\n.",
        b"\x8b\xff\xff\xff\x7f.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
    ids=["pairs", "shapes", "digits", "long", "bytes"],
)  # fmt: skip
def test_a_short_pickle_cannot_ask_for_long_work_or_much_memory(tmp_path, write, data):
    with pytest.raises(InputError, match=r"x\.bin"):
        torch_bin.read(write(tmp_path / "x.bin", b"\x80\x02" + data))


def test_compressed_entries_are_refused_whatever_they_hold(tmp_path):
    path = archive(tmp_path / "x.bin", b"\x80\x02}" + TEXT("w") + TENSOR + b"s.", zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"x/data\.pkl is compressed, .*without compression"):
        torch_bin.read(path)


def test_a_pickle_of_megabytes_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"x/data\.pkl has 3000000 bytes, more than the 2097152 that are read"):
        torch_bin.read(archive(tmp_path / "x.bin", b"N" * 3_000_000))
    with pytest.raises(InputError, match="damaged"):
        torch_bin.read(legacy(tmp_path / "y.bin", b"\x80\x02" + b"N" * 3_000_000 + b"."))


@FORMATS
def test_a_tensor_that_is_expanded_beyond_measure(tmp_path, write):
    huge = TENSOR.replace(b"K\x02\x85K\x01\x85", b"\x8a\x05\x00\x00\x00\x00\x01\x85K\x00\x85")
    with pytest.raises(InputError, match=r"tensor w of 2 elements is expanded to the shape \(4294967296,\)"):
        torch_bin.read(write(tmp_path / "x.bin", b"\x80\x02}" + TEXT("w") + huge + b"s."))


# --------------------------------------------------------------------------------------------------------------- TensorFlow


def number(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def block(entries):
    """(shared, rest of the key, value) each."""
    body = b"".join(number(shared) + number(len(key)) + number(len(value)) + key + value for shared, key, value in entries)
    body += struct.pack("<II", 0, 1) + b"\0"
    return body[:-1], body + struct.pack("<I", tensorflow._masked_crc32c(body))


def index(entries, handles=1):
    body, data = block(entries)
    handle = number(0) + number(len(body))
    top, top_data = block([(0, bytes([i % 256, i // 256]), handle) for i in range(handles)])
    footer = number(0) * 2 + number(len(data)) + number(len(top))
    return data + top_data + footer.ljust(40, b"\0") + struct.pack("<Q", tensorflow._TABLE_MAGIC)


def tensor(shard=0, offset=0, size=8, dims=(2,)):
    shape = b"".join(b"\x12" + number(len(part)) + part for part in (b"\x08" + number(dim) for dim in dims))
    return b"\x08\x01\x12" + number(len(shape)) + shape + b"\x18" + number(shard) + b"\x20" + number(offset) + b"\x28" + number(size)


HEADER, BIAS = (0, b"", b"\x08\x01"), b"bert/pooler/dense/bias"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (index([(0, b"", b"\x08" + number(2**62)), (0, BIAS, tensor())]), r"data-00000-of-4611686018427387904: missing"),
        (index([(0, b"", b"\x10\x00"), (0, BIAS, tensor())]), "does not say in how many files"),
        (index([(0, b"", b"\x0a\x01\x01"), (0, BIAS, tensor())]), "does not say in how many files"),
        (index([HEADER, (0, BIAS, tensor(shard=1))]), r"tensor bert/.*bias is in file 1 of 1"),
        (index([HEADER, (0, BIAS, tensor(shard=2**63))]), r"tensor bert/.*bias is in file 9223372036854775808 of 1"),
        (index([HEADER, (0, BIAS, tensor(size=2**60, dims=(2**58,)))]), "cut short; bytes of tensor bert/.*bias"),
        (index([HEADER, (0, BIAS, tensor(offset=2**63))]), "cut short; bytes of tensor bert/.*bias"),
        (index([HEADER, (0, BIAS, tensor(dims=(2**64 - 2,)))]), r"of shape \(18446744073709551614,\) has 8 bytes"),
        (index([HEADER, (0, BIAS, b"\x08" + b"\xff" * 200_000)]), "damaged"),
        (index([HEADER, *((0, b"bert/pooler/dense/b%d" % i, tensor()) for i in range(1500))], 2000), "damaged"),
        (index([HEADER, (0, b"b" * 500_000, tensor()), *((500_000, b"%d" % i, b"") for i in range(5000))]), "damaged"),
    ],
    ids=["files", "no-files", "text-of-files", "file", "far-file", "size", "offset", "dims", "varint", "blocks", "names"],
)
def test_tensorflow_s_header_is_held_against_the_files(tmp_path, content, message):
    (tmp_path / "x.ckpt.index").write_bytes(content)
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(bytes(8))
    with pytest.raises(InputError, match=message):
        tensorflow.read(tmp_path / "x.ckpt")


def test_the_index_here_is_read(tmp_path):
    (tmp_path / "x.ckpt.index").write_bytes(index([HEADER, (0, BIAS, tensor())]))
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(np.array([1, 2], "<f4").tobytes())
    assert tensorflow.read(tmp_path / "x.ckpt")["bert.pooler.dense.bias"].tolist() == [1, 2]


def test_an_index_of_gigabytes_is_not_read(tmp_path):
    with open(tmp_path / "x.ckpt.index", "wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(InputError, match="8589934592 bytes, too many for an index"):
        tensorflow.read(tmp_path / "x.ckpt")


# ------------------------------------------------------------------------------------------------- safetensors, arrays, zips


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("[" * 100_000, id="deep list"),
        pytest.param('{"a":' * 100_000, id="deep"),
        '{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, "x"]}}',
    ],
)
def test_safetensors_headers(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
    with pytest.raises(InputError, match=r"x\.safetensors"):
        hf.read_safetensors(path)


def npy(path, header, data=bytes(16)):
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)
    return path


def test_an_array_that_is_what_it_says(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, 2]))
    assert read_array(tmp_path / "a.npy", "<i4 <i8").tolist() == [1, 2]
    np.save(tmp_path / "a.npy", np.empty(0, np.int64))
    assert read_array(tmp_path / "a.npy", "<i8").tolist() == []


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999,)}\n",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (3,)}\n",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}\n",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2)}\n",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}\n",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (",
        "__import__('os').abort()\n",
        "(" * 5000,
        "",
    ],
)
def test_an_array_s_header_is_held_against_the_file(tmp_path, header):
    with pytest.raises(InputError, match=r"a\.npy"):
        read_array(npy(tmp_path / "a.npy", header), "<i8")


def test_an_archive_with_a_pickle_is_no_array(tmp_path):
    np.savez(tmp_path / "a.npz", np.array([1]))
    with pytest.raises(InputError, match=r"a\.npz"):
        read_array(tmp_path / "a.npz", "<i8")


def test_members_of_an_archive(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(100 << 20))
        made.writestr("lzma", b"text", zipfile.ZIP_LZMA)
        made.writestr("good", b"text")
    with open_zip(path) as opened:
        assert read_member(opened, "good", 4) == b"text"
        for name, message in [
            ("zeros", "104857600 bytes, more than the 4"),
            ("lzma", "a method that is not read"),
            ("none", "is not in the archive"),
        ]:
            with pytest.raises(InputError, match=message):
                read_member(opened, name, 4)
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02")
    for place, value, message in [(8, 1, "encrypted"), (10, 9, "a method that is not read"), (24, 3, "damaged")]:  # flags, method, size
        path.write_bytes(data[: at + place] + bytes([value]) + data[at + place + 1 :])
        with open_zip(path) as opened, pytest.raises(InputError, match=message):
            read_member(opened, "good", 4)
    path.write_bytes(data[: at + 20] + b"\xff\xff\xff\x7f" + data[at + 24 :])
    with pytest.raises(InputError, match="claim more bytes than the file has"):
        open_zip(path)


# ----------------------------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"the": 2**31}, "a piece has the id 2147483648"),
        ({"the": 1 << 24}, "a piece has the id 16777216"),
        ({"[UNK]": None}, "cannot be split with it|has no|noted as id"),
    ],
)
def test_a_tokenizer_s_ids(tmp_path, changed, message):
    loaders.tokenizer_json(tmp_path)
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    pieces = {**raw["model"]["vocab"], **changed}
    raw["model"]["vocab"] = {piece: id for piece, id in pieces.items() if id is not None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=message):
        Tokenizer.load(tmp_path).encode(["a word that is unknown"])


# ------------------------------------------------------------------------------------------------------ what our own runs leave


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", None), ("step", True), ("step", -1), ("step", 1.0), ("step", float("nan")), ("step", 2**60), ("extra", 0),
        ("best", ""), ("best", float("nan")), ("window", "1"), ("window", {"a": "1"}), ("window", {"a": float("inf")}),
        ("window_steps", {"0": [[1]]}),
    ],
)  # fmt: skip
def test_how_far_a_run_has_come(name, value):
    good = {"step": 2, "best": None, "window": {"loss": 1.5}, "window_steps": 1}
    assert Progress.read(good, Path("x")) == Progress(2, None, {"loss": 1.5}, 1)
    with pytest.raises(InputError, match=r"^x: .*remove it to start again"):
        Progress.read({**good, name: value}, Path("x"))


@pytest.mark.parametrize("raw", [None, 7, [], {}, {"step": 1}])
def test_no_progress_at_all(raw):
    with pytest.raises(InputError, match="does not hold how far a run has come"):
        Progress.read(raw, Path("x"))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("manifest.json", lambda path: path.write_text(json.dumps({"shards": 10**30}))),
        ("manifest.json", lambda path: path.write_text(json.dumps({"shards": "1"}))),
        ("manifest.json", lambda path: path.write_text("{}")),
        ("sentences.npy", lambda path: np.save(path, np.array([0, 3, 2, 9]))),
        ("sentences.npy", lambda path: np.save(path, np.array([0, 2**40]))),
        ("documents.npy", lambda path: np.save(path, np.array([0, 10**6]))),
        ("documents.npy", lambda path: np.save(path, np.array([]))),
        ("shard-00000.tokens.npy", lambda path: np.save(path, np.zeros(1, np.uint16))),
        ("shard-00001.tokens.npy", lambda path: path.unlink()),
    ],
)
def test_an_index_that_is_of_no_corpus(tmp_path, file, change):
    loaders.shards(tmp_path)
    assert len(Corpus(tmp_path / "shards")) > 5
    change(tmp_path / "shards" / file)
    with pytest.raises(InputError, match="shards"):
        Corpus(tmp_path / "shards")


def test_a_study_s_results():
    good = {"dev": {"accuracy": 0.5}}
    assert study.checked(good, TASKS["rte"], Path("a/result.json")) is good
    for bad in ({}, {"dev": 1}, {"dev": {}}, {"dev": {"accuracy": "x"}}, {"dev": {"accuracy": True}}, {**good, "test": None}):
        with pytest.raises(InputError, match=r"^a/result\.json: has no accuracy; remove a, and --resume"):
            study.checked(bad, TASKS["rte"], Path("a/result.json"))


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"replacements": [1]}', pytest.param("[" * 100_000, id="deep"), "\xff", "null"])
def test_a_demo_s_provenance(tmp_path, line):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\na b\t1\na c\t0\n")
    both = [{"source": "bert"}, {"source": "glove"}]
    good = json.dumps({"replacements": [], "copy": 0}) + "\n" + json.dumps({"replacements": both, "copy": 1}) + "\n"
    (tmp_path / "provenance.jsonl").write_text(good)
    assert demo._example(tmp_path) == {"sentence": "a b", "augmented": "a c"}
    (tmp_path / "provenance.jsonl").write_text(line + "\n" + good, encoding="latin-1")
    with pytest.raises(InputError, match=r"provenance\.jsonl: not what augment wrote"):
        demo._example(tmp_path)


SUMMARY = {"train": "t", "examples": 1, "rows": 2, "words": 3, "bert": 4, "glove": 5}


@pytest.mark.parametrize("value", [None, "1", [1], 1.0, True, -1, 2**60])
@pytest.mark.parametrize("name", ["examples", "glove"])
def test_what_augment_left(tmp_path, name, value):
    path = tmp_path / "augment.json"
    path.write_text(json.dumps({"plan": {"seed": 0}, "summary": SUMMARY}))
    assert augmentation._finished(tmp_path, {"seed": 0}) == SUMMARY
    for written, message in [
        ({"plan": {"seed": 0}, "summary": {**SUMMARY, name: value}}, f"{name} is not a count"),
        ({"plan": {"seed": 0}, "summary": value}, "does not hold what a run has done"),
        ({"plan": value, "summary": SUMMARY}, "another choice of seed"),
        ({}, "another choice of seed"),
    ]:
        path.write_text(json.dumps(written))
        with pytest.raises(InputError, match=message):
            augmentation._finished(tmp_path, {"seed": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("projection = " + "[" * 10_000, "not TOML"),
        ("projection = [[1]]", r"projection is \[\[1\]\]; a str is needed"),
        ("layers = [[1]]", r"layers is \[\[1\]\]; a str is needed"),
        ("layers = [true]", r"layers is \[True\]; a str is needed"),
        ("a." * 10_000 + "b = 1", "no switch 'a'|not TOML"),
        ("recipe = [1]", r"recipe is \[1\]; choose one of"),
        ("projection." + "a." * 5_000 + "b = 1", "projection is a dict; a str is needed"),
        (f'layers = "{"9" * 5000}"', "layers is '9"),
        (f"temperature = {'9' * 400}", "temperature is 9"),
        (f"temperature = {'9' * 5000}", "not TOML"),
        ("temperature = nan", "a number above 0 is needed"),
        ("#" * 70_000, "more than 65536 bytes"),
    ],
)
def test_recipes(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=rf"r\.toml: .*({message})"):
        load_recipe(str(tmp_path / "r.toml"))
