"""Files that appear whole or not at all."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from minitinybert.errors import InputError
from minitinybert.files import building, json_text, parse_json, read_json, replacing


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


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
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


def test_json_that_is_nested_too_deeply_is_one_line():
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
