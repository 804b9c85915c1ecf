"""Files of rows in four formats: what is quoted, numbered, encoded, and what is none of the format."""

import json
import sys

import numpy as np
import pyarrow.parquet
import pytest

from minitinybert.data.tables import open_table
from minitinybert.data.vectors import load_vectors
from minitinybert.errors import InputError


def read(path, content, header=True, counted=False):
    path.write_bytes(content)
    table = open_table(path, header, counted)
    return table.header, list(table.rows)


def test_a_tsv_is_raw(tmp_path):
    content = '\ufeffa\tb \n"x\t y"\n\n\u2028\x85\tz\r\n'.encode()
    assert read(tmp_path / "t.tsv", content) == (["a", "b"], [(2, ['"x', ' y"']), (4, ["\u2028\x85", "z"])])
    assert read(tmp_path / "t.tsv", b"a\tb\nc\td", header=False) == (None, [(1, ["a", "b"]), (2, ["c", "d"])])


def test_a_csv_s_quotes_and_line_ends(tmp_path):
    content = b'a,b\n"one, ""two""\n\nthree",1\n\n\nx,2\n'
    assert read(tmp_path / "t.csv", content) == (["a", "b"], [(4, ['one, "two"\n\nthree', "1"]), (7, ["x", "2"])])


def test_a_field_of_a_csv_may_be_as_long_as_a_document(tmp_path):
    long = "good " * 100_000
    assert read(tmp_path / "t.csv", f'a,b\n"{long}",1\n{long},2\n'.encode())[1] == [(2, [long, "1"]), (3, [long, "2"])]


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
def test_a_line_feed_alone_ends_a_row(tmp_path, ending):
    odd = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i\rj"
    rows = {
        ".tsv": f"t\ty\r\n{odd}\t1\r\n{odd}\t2",
        ".csv": f't,y\r\n{odd},1\r\n"{odd}",2',
        ".jsonl": "\n" + "".join(json.dumps({"t": odd, "y": y}, ensure_ascii=False) + "\r\n" for y in "12"),
    }[ending]
    assert read(tmp_path / f"t{ending}", rows.encode())[1] == [(2, [odd, "1"]), (3, [odd, "2"])]


def test_a_parquet_file_by_itself(tmp_path):
    """A directory named like a partition adds no column; a value that Python cannot hold is one line."""
    directory = tmp_path / "label=7"
    directory.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x"]}), directory / "t.parquet")
    table = open_table(directory / "t.parquet")
    assert (table.header, list(table.rows)) == (["a"], [(1, ["x"])])
    (tmp_path / "t.parquet").write_bytes(b"PAR1nothingPAR1")
    with pytest.raises(InputError, match="t.parquet: not a Parquet file, or damaged"):
        open_table(tmp_path / "t.parquet")
    far = pyarrow.array([1 << 61], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"a": far}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="t.parquet: not a Parquet file, or damaged"):
        open_table(tmp_path / "t.parquet")


def test_no_row_of_a_counted_file_vanishes(tmp_path):
    """White space is a row there; an empty line is none, and only the end of the file may have some."""
    content = b"a\tb\n\t\n  \n1\t2\n\n\n"
    assert read(tmp_path / "t.tsv", content, counted=True)[1] == [(2, ["", ""]), (3, ["  "]), (4, ["1", "2"])]
    assert read(tmp_path / "t.tsv", content)[1] == [(4, ["1", "2"])]
    content = b'a,b\n,\n" "\n"1\n\n",2\r\n\r\n'
    assert read(tmp_path / "t.csv", content, counted=True)[1] == [(2, ["", ""]), (3, [" "]), (6, ["1\n\n", "2"])]
    for name, content in (("t.tsv", b"a\n1\n\n\n2\n"), ("t.csv", b"a\r\n1\r\n\r\n2\r\n")):
        with pytest.raises(InputError, match=f"{name}, line 3: an empty line"):
            read(tmp_path / name, content, counted=True)
        assert [fields for _, fields in read(tmp_path / name, content)[1]] == [["1"], ["2"]]


def test_json_lines_by_the_first_line_s_names(tmp_path):
    content = b'{"a": 1, "b": null}\n\n{"b": [2], "c": 3}\n'
    assert read(tmp_path / "t.jsonl", content) == (["a", "b"], [(1, [1, None]), (3, [None, [2]])])


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("t.tsv", b"", "the file is empty"),
        ("t.tsv", b"\n \n", "the file is empty"),
        ("t.csv", b"\n\n", "the file is empty"),
        ("t.jsonl", b"\n", "the file is empty"),
        ("t.tsv", b"a\nb\n\xff", "line 3: not UTF-8 (byte 1)"),
        ("t.csv", b'a\n"b\n', "line 2: not CSV"),
        ("t.csv", b"a\n\xff", "line 2: not UTF-8"),
        ("t.jsonl", b'{"a": 1}\n{', "line 2: not JSON"),
        ("t.jsonl", b'{"a": 1}\n[1]\n', "line 2: a JSON object"),
        ("t.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "line 2: not UTF-8"),
        ("t.jsonl", b'{"a": "\\ud83d\\ude00"}\n{"a": "cut \\ud83d"}\n', r"line 2: not JSON ('\ud83d' is half a surrogate pair"),
        ("t.jsonl", b'{"a": [{"\\uDFFF": 1}]}\n', r"line 1: not JSON ('\udfff' is half a surrogate pair"),
    ],
)
def test_bad_files(tmp_path, name, content, words):
    with pytest.raises(InputError) as error:
        read(tmp_path / name, content)
    assert words in str(error.value) and str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        open_table(tmp_path / "nowhere.tsv")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    """One line that names the extra, of a table as of word vectors."""
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    (tmp_path / "v_index.parquet").write_bytes(b"PAR1")
    np.save(tmp_path / "v_emb.npy", np.ones((1, 2), np.float32))
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for ask in (lambda: open_table(tmp_path / "t.parquet"), lambda: load_vectors(tmp_path)):
        with pytest.raises(InputError, match=r"^\S+: Parquet is read by pyarrow.*; pip install 'minitinybert\[parquet\]'$"):
            ask()
