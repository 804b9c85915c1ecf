"""An error for the user is one line, whatever was put into it."""

import pickle

import pytest

from minitinybert.errors import InputError, one_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("x.tsv, line 3: 中文 é 😀", "x.tsv, line 3: 中文 é 😀"),
        ("a\nb\r\nc\vd\fe\x1cf\x1dg\x1eh\x85i\u2028j\u2029k\n\n", "a b c d e f g h i j k"),
        ("  a  \n\n  b\tc", "a b\\tc"),
        ("\x1b[2J\x07\x00\x7f", "\\x1b[2J\\x07\\x00\\x7f"),
        ("half \ud800 \udcff", "half \\ud800 \\udcff"),
        ("from \u202eright\u2066 to left\u200b", "from \\u202eright\\u2066 to left\\u200b"),
        (ValueError("a\nb"), "a b"),
        ("", ""),
    ],
)
def test_one_line(message, line):
    assert str(InputError(message)) == line
    assert str(pickle.loads(pickle.dumps(InputError(message)))) == line  # as it comes back from a process of a pool


@pytest.mark.parametrize("piece", ["x", "\x00", "\n", "x\n", "中"])
def test_a_long_text_loses_its_middle(piece):
    line = one_line("begin " + piece * 1_000_000 + " end")
    assert line.startswith("begin") and line.endswith("end") and len(line) <= 1003 and line.isprintable()


def test_a_text_of_the_longest_length_is_whole():
    assert one_line("x" * 1000) == "x" * 1000
    assert one_line("x" * 1001) == "x" * 500 + " … " + "x" * 500
