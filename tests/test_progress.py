"""Progress on something that is no terminal: plain lines, the end always said, silence when asked for."""

import io
import re
import sys
from types import SimpleNamespace

from minitinybert import progress as module
from minitinybert.progress import log, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    bar = progress(range(2, 5), 5, "train", initial=2)
    for _ in bar:
        bar.set(loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("train: step 3/5, ") and lines[-1].startswith("train: step 5/5, ")
    assert lines[-1].endswith("loss 0.25") and "\r" not in "".join(lines)


def test_the_end_is_said_however_quick(capsys):
    assert list(progress("ab", 2, "work")) == ["a", "b"]
    assert capsys.readouterr().err.count("\n") == 1


def test_an_end_before_the_total_is_said_too_and_what_is_broken_off_is_not(capsys):
    assert list(progress("ab", 9, "work")) == ["a", "b"]
    assert capsys.readouterr().err.startswith("work: step 2/9, ")
    for _ in progress("abc", 3, "work"):
        break
    assert capsys.readouterr().err == ""


def test_rate_and_time_left(capsys, monkeypatch):
    now = iter([0.0, 10.0, 30.0, 30.0, 60.0, 60.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(now)))
    list(progress(range(103, 106), 163, "work", initial=103))
    assert capsys.readouterr().err.splitlines() == [
        "work: step 105/163, 15.0 s/it, 14.5 min left",  # 2 steps in 30 s, 58 to go
        "work: step 106/163, 20.0 s/it, 19.0 min left",
    ]


def test_many_losses_stay_within_80_columns(capsys):
    bar = progress(range(1), 1, "distill intermediate")
    losses = {f"hidden.{i}": 0.12345678 * 10**i for i in range(9)}
    for _ in bar:
        bar.set(**losses)
    said = capsys.readouterr().err
    assert max(map(len, said.splitlines())) in range(70, 81) and said.count("\n") > 1
    first, *more = said.splitlines()
    assert first.startswith("distill intermediate: step 1/1, ") and all(line.startswith("  hidden.") for line in more)
    assert ", ".join(f"{name} {value:.4g}" for name, value in losses.items()) in said.replace("\n ", "")


def test_a_step_of_seconds_on_a_terminal(monkeypatch):
    """tqdm turns its rate round by itself."""
    from tqdm import tqdm

    assert "2.50s/it" in tqdm.format_meter(4, 8, 10.0)


def test_no_colours_even_on_a_terminal(monkeypatch):
    """NO_COLOR has nothing to switch off here: of all sequences that steer a terminal there is none that colours (SGR)."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in progress(range(3), 3, "train"):
        log("a line")
    assert not re.search(r"\x1b\[[\d;]*m", sys.stderr.getvalue())


def test_a_bar_on_a_terminal_and_lines_above_it(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress(range(3), 3, "train")
    for i in bar:
        bar.set(loss=0.5)
        if i == 1:
            log("a plain line")
    shown = sys.stderr.getvalue()
    assert "train: 100%" in shown and "loss 0.5" in shown and "\ra plain line\n" in re.sub(r"\r +\r", "\r", shown)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(range(3), 3, "train", quiet=True)) == [0, 1, 2] and sys.stderr.getvalue() == ""


def test_silence(capsys, monkeypatch):
    list(progress("ab", 2, "work", quiet=True))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MINITINYBERT_QUIET", "1")
    log("a line")
    list(progress("ab", 2, "work"))
    assert capsys.readouterr().err == ""
