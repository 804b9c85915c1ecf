"""Progress on something that is no terminal: plain lines, the end always said, silence when asked for."""

from minitinybert import progress as module
from minitinybert.progress import log, progress


def test_plain_lines_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    bar = progress(range(2, 5), 5, "train", initial=2)
    for _ in bar:
        bar.set(loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("train: 3/5, ") and lines[-1].startswith("train: 5/5, ")
    assert lines[-1].endswith("loss 0.25") and "\r" not in "".join(lines)


def test_the_end_is_said_however_quick(capsys):
    assert list(progress("ab", 2, "work")) == ["a", "b"]
    assert capsys.readouterr().err.count("\n") == 1


def test_silence(capsys, monkeypatch):
    monkeypatch.setenv("MINITINYBERT_QUIET", "1")
    log("a line")
    list(progress("ab", 2, "work"))
    assert capsys.readouterr().err == ""
