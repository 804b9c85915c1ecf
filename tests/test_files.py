"""Files that appear whole or not at all; one line for what cannot be written, whichever library writes."""

import errno
import os
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import save_file

from minitinybert.errors import InputError
from minitinybert.files import (
    building,
    is_free,
    json_text,
    parse_json,
    read_json,
    replacing,
    reserve,
    sweep,
    write_json,
    writing,
)  # fmt: skip


def test_a_file_that_was_begun_and_not_ended_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as beside:
        beside.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_who_may_read_new_files_may_read_weights(tmp_path):
    """The writer of safetensors gives its files to nobody else (0600)."""
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "weights.safetensors") as beside:
        save_file({"a": np.zeros(3)}, beside)
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_directory_appears_whole(tmp_path):
    with pytest.raises(ZeroDivisionError), building(tmp_path / "d") as beside:
        (beside / "a").touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with building(tmp_path / "d") as beside:
        (beside / "a").touch()
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["a"]


@pytest.mark.parametrize("text", ["{", "[1]", pytest.param("[" * 100_000, id="deep")])
def test_what_is_no_json_object_is_named(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError, match="c.json"):
        read_json(path)


def test_json_has_neither_nan_nor_infinity():
    nan, inf = float("nan"), float("inf")
    value = {"a": [1, nan, (inf, -inf)], "b": {"c": nan, "d": 0.5, "e": None, "f": "NaN", "g": True}}
    assert json_text(value) == '{"a": [1, null, [null, null]], "b": {"c": null, "d": 0.5, "e": null, "f": "NaN", "g": true}}'
    assert json_text({"é": 1}, ensure_ascii=False) == '{"é": 1}' and json_text([1], indent=2) == "[\n  1\n]"


@pytest.fixture
def recursion():
    """Python's own limit, which some libraries raise in the whole process."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


def test_json_that_is_nested_too_deeply_is_one_line(recursion):
    for leaf in (1.0, float("nan")):
        value = leaf
        for _ in range(2000):
            value = [value]
        with pytest.raises(InputError, match="nested too deeply"):
            json_text({"a": value}, indent=2)


@pytest.mark.parametrize(
    "content, half",
    [
        (b'{"id2label": {"0": "\\ud800"}}', "ud800"),
        (b'{"a": [["\\uDC00\\uD800"]]}', "udc00"),
        (b'{"\\ud83dx": 1}', "ud83d"),
        (b'{"a": "\xed\xa0\x80"}', "ud800"),  # as if it were UTF-8
    ],
)
def test_half_a_surrogate_pair_is_no_text(tmp_path, content, half):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"c\.json: not JSON \('\\{half}' is half a surrogate pair"):
        read_json(tmp_path / "c.json")


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    (tmp_path / "c.json").write_bytes(b'{"a": "\\ud83d\\ude00 \\u00e9 \\\\ud800"}')
    assert read_json(tmp_path / "c.json") == {"a": "\U0001f600 \u00e9 \\ud800"}
    assert parse_json('["\\ud83d\\ude00"]') == ["\U0001f600"]


@contextmanager
def no_file_above(size):
    """The system's own limit: a write beyond it fails, in a library of whatever language (EFBIG)."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def by_safetensors(path):
    save_file({"a": np.zeros(99_999)}, path)


def by_tokenizers(path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordPiece({f"a{i}": i for i in range(9_000)} | {"[UNK]": 9_000}, unk_token="[UNK]")).save(str(path))


def by_pyarrow(path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": np.random.default_rng(0).random(99_999)}), path)


def by_matplotlib(path):
    from matplotlib.figure import Figure

    Figure(figsize=(20, 20)).savefig(path, format="png", dpi=200)


def by_python(path):
    path.write_text("a" * 99_999)


@pytest.mark.parametrize("write", [by_safetensors, by_tokenizers, by_pyarrow, by_matplotlib, by_python])
def test_every_library_s_error_is_one_line_with_file_and_cause(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old")
    with no_file_above(8192), pytest.raises(InputError) as error, replacing(path) as new:
        write(new)
    assert str(error.value) == f"{path}: cannot be written (File too large); make room there, or choose another place"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_cause_that_the_system_has_no_number_for_is_the_library_s_own(tmp_path):
    said = r"a\.npy: cannot be written \(99999 requested and \d+ written\)$"
    with no_file_above(8192), pytest.raises(InputError, match=said), replacing(tmp_path / "a.npy") as new:
        np.save(new, np.zeros(99_999))


def test_a_file_in_a_new_directory_is_named_as_it_would_have_been(tmp_path):
    with no_file_above(8192), pytest.raises(InputError) as error, building(tmp_path / "d") as new:
        write_json(new / "c.json", "a" * 99_999)
    assert str(error.value).startswith(f"{tmp_path}/d/c.json: cannot be written (File too large)")
    assert not list(tmp_path.iterdir())


def test_what_is_copied_from_is_named_where_it_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"source: cannot be read \(No such file"), replacing(tmp_path / "copy") as new:
        new.write_bytes((tmp_path / "source").read_bytes())
    with pytest.raises(InputError, match=r"none/a: cannot be written \(No such file"), replacing(tmp_path / "none" / "a"):
        pass


def test_what_is_no_write_error_stays_what_it_is(tmp_path):
    for error in (ValueError("no"), Exception("something else"), KeyError("x")):
        with pytest.raises(type(error)) as raised, writing(tmp_path / "a"):
            raise error
        assert raised.value is error


def recorded(monkeypatch):
    """The order of what is synced and renamed, by name."""
    seen = []
    fsync, replace, rename = os.fsync, os.replace, os.rename
    name = lambda descriptor: os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
    monkeypatch.setattr(os, "fsync", lambda d: (seen.append(f"sync {name(d)}"), fsync(d)))
    for how, call in (("replace", replace), ("rename", rename)):
        monkeypatch.setattr(os, how, lambda a, b, call=call: (seen.append(f"rename {os.path.basename(b)}"), call(a, b)))
    return seen


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc, which tells which file a descriptor is of")
def test_a_rename_counts_when_file_and_directory_are_on_disk(tmp_path, monkeypatch):
    seen = recorded(monkeypatch)
    with replacing(tmp_path / "a") as new:
        new.write_text("new")
    assert seen == ["sync a", "rename a", f"sync {tmp_path.name}"]
    del seen[:]
    with building(tmp_path / "d") as new:
        (new / "b").mkdir()
        (new / "b" / "c").write_text("new")
    assert sorted(seen[:3]) == sorted(["sync c", "sync b", f"sync {new.name}"])
    assert seen[3:] == ["rename d", f"sync {tmp_path.name}"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_directory_that_cannot_be_synced_by_its_file_system_is_well(tmp_path, monkeypatch, number):
    real = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(InputError, match=r"c\.json: cannot be written \(Input/output error\)"):
            write_json(tmp_path / "c.json", {})
    else:
        write_json(tmp_path / "c.json", {})
        assert read_json(tmp_path / "c.json") == {}


@pytest.mark.parametrize("system", ["has it", "lacks it", "does not on this file system", "has it, the disk is full"])
def test_room_is_reserved(tmp_path, monkeypatch, system):
    """A file with a hole in it has no room for what is stored there."""

    def refuse(descriptor, offset, size):
        number = errno.ENOSPC if "full" in system else errno.EOPNOTSUPP
        raise OSError(number, os.strerror(number))

    if system == "lacks it":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif system != "has it":
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with open(tmp_path / "a", "w+b") as file:
        if "full" in system:
            with pytest.raises(OSError, match="No space left"):
                reserve(file.fileno(), 3_000_000)
        else:
            reserve(file.fileno(), 3_000_000)
            status = os.fstat(file.fileno())
            assert status.st_size == 3_000_000 and status.st_blocks * 512 >= 3_000_000


def test_leftovers_are_swept_and_nothing_else(tmp_path):
    for name in (".a.json.12.partial", ".d.7.partial/x", "a.json", ".hidden", "x.partial", ".a.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    sweep(tmp_path, "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.json.12.partial", ".a.partial", ".hidden", "a.json", "x.partial"]
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.partial", ".hidden", "a.json", "x.partial"]


def test_what_is_written_beside_is_what_is_swept(tmp_path):
    with replacing(tmp_path / "a"):
        sweep(tmp_path, "a")
        assert not list(tmp_path.iterdir())
        (tmp_path / f".a.{os.getpid()}.partial").mkdir()
        (tmp_path / f".a.{os.getpid()}.partial" / "a").touch()


def test_a_place_is_free(tmp_path):
    assert is_free(tmp_path / "none") and is_free(tmp_path)
    (tmp_path / ".lock").touch()  # of a claim within it
    assert is_free(tmp_path)
    (tmp_path / "a").touch()
    assert not is_free(tmp_path)
