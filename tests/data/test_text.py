"""Lines end at line feeds alone; a corpus is read in stretches and within bounds, whatever is in it."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.data import text
from minitinybert.data.text import on_one_line, read_corpus, read_lines
from minitinybert.errors import InputError

SEPARATORS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # what str.splitlines, or a file opened as text, ends a line at


def test_a_line_feed_alone_ends_a_line(tmp_path):
    lines = [f"a{c}b" for c in SEPARATORS] + ["", "x\r"]
    (tmp_path / "t").write_bytes(("\ufeff" + "\n".join(lines) + "\r\n" + "\ufeff last").encode())
    assert list(read_lines(tmp_path / "t")) == list(enumerate([*lines, "\ufeff last"], 1))
    (tmp_path / "t").write_bytes("".join(f"{line}\n" for line in lines).encode())
    assert list(read_corpus(tmp_path / "t")) == [line.strip() for line in lines]
    assert on_one_line("a\r\nb" + "c".join(SEPARATORS) + "d\te") == "a b c c c c c c c c d\te"


def test_what_cannot_be_read(tmp_path):
    for read in (read_lines, read_corpus):
        with pytest.raises(InputError, match="nowhere: cannot be read"):
            list(read(tmp_path / "nowhere"))
        (tmp_path / "t").write_bytes("é\nü".encode() + b"\xff\n")
        with pytest.raises(InputError, match=r"t, line 2: not UTF-8 \(byte 3\); save the file as UTF-8"):
            list(read(tmp_path / "t"))


def slow(data, block):
    """The lines by their definition: (where each begins, its bytes)."""
    starts, at = [0], 0
    while at < len(data):
        m = at // block * block
        before = data[m - block : m]
        if m and at == m and b"\n" not in before:  # a line that held the block before
            whole = data[m : m + block]
            ends = [i for i, byte in enumerate(whole) if byte in b" \t\n"]
            cut = ends[0] if ends else next((i for i, byte in enumerate(whole[:4]) if byte & 0xC0 != 0x80), len(whole[:4]))
            if not ends or whole[cut] != 10:  # not where the line ends before
                starts.append(m + cut)
        if data[at] == 10:
            starts.append(at + 1)
        at += 1
    starts = sorted({start for start in starts if start < len(data)})
    return [(start, data[start:stop].removesuffix(b"\n")) for start, stop in zip(starts, [*starts[1:], len(data)], strict=False)]


PARTS = ["a", "é", "中", " ", "\t", "\n", "\n\n", "bcdef", "bcdef", "😀"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_stretches_are_together_the_file_and_no_line_is_long(tmp_path_factory, parts):
    data, block = "".join(parts).encode(), 8
    path = tmp_path_factory.mktemp("text") / "t"
    path.write_bytes(data)
    before, text.BLOCK = text.BLOCK, block
    try:
        whole = list(read_corpus(path))
        for edge in range(len(data) + 1):
            assert [*read_corpus(path, 0, edge), *read_corpus(path, edge, len(data))] == whole
    finally:
        text.BLOCK = before
    pieces = slow(data, block)
    lines = {at for at, _ in pieces if not at or data[at - 1] == 10}  # those that no cut begins
    assert whole == [line.decode().strip() for at, line in pieces if at in lines or line.strip()]
    assert all(len(line.encode()) < 3 * block + 4 for line in whole)
    assert "".join("".join(whole).split()) == "".join(data.decode().split())


def test_a_file_without_a_line_end_needs_little_memory(tmp_path):
    for unit in ("word ", "中"):
        (tmp_path / "t").write_bytes((unit * (20_000_000 // len(unit.encode()))).encode())
        tracemalloc.start()
        total = sum(len(line.split()) if unit == "word " else len(line) for line in read_corpus(tmp_path / "t"))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert total == 20_000_000 // len(unit.encode())
        assert peak < 16 * text.BLOCK, f"{peak} bytes at the peak"
