"""What is printed reaches any terminal, pipe or file, or ends in one line; and what each exit status means."""

import os
import subprocess
import sys

import pytest

from minitinybert.commands import cli
from minitinybert.errors import InputError

# The command line itself, with a command that prints: half a surrogate pair, and what no 8-bit encoding has.
PRINTS = """
import sys
from minitinybert.commands import cli
from minitinybert.commands.results import Report
def show(args):
    return Report({{}}, "\\n".join(["\\u4e2d \\xe9 \\udce9"] * {lines}), {status})
cli._COMMANDS["audit"] = show
sys.exit(cli.main(["audit"]))
"""


def run(lines=1, stdout=subprocess.PIPE, **environment):
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG")) or name == "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", PRINTS.format(lines=lines, status=0)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=settings | environment,
    )


@pytest.mark.parametrize(
    "environment, shown",
    [
        ({"PYTHONIOENCODING": "ascii"}, b"\\u4e2d \\xe9 \\udce9"),
        ({"PYTHONIOENCODING": "cp1252"}, b"\\u4e2d \xe9 \\udce9"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"\\u4e2d \\xe9 \\udce9"),
        ({"LC_ALL": "C.UTF-8"}, "中 é ".encode() + b"\\udce9"),
    ],
    ids=["ascii", "cp1252", "C", "UTF-8"],
)
def test_what_cannot_be_shown_is_replaced(environment, shown):
    done = run(**environment)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, shown, b"")


@pytest.mark.parametrize("lines", [1, 10_000])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_nobody_reads_is_quiet_and_no_success(lines, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = run(lines, stdout=writer, PYTHONUNBUFFERED=unbuffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("lines", [1, 10_000])
def test_a_full_disk_under_the_output_is_one_line(lines):
    with open("/dev/full", "wb") as full:
        done = run(lines, stdout=full)
    assert done.returncode == 2 and done.stderr.startswith(b"minitinybert: ") and done.stderr.count(b"\n") == 1, done.stderr
    assert b"No space left on device" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell's >&-")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed):
    script = PRINTS.format(lines=3, status=1)
    done = subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, script], capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    "error, status, says",
    [
        (InputError("a\nb"), 2, "minitinybert: a b\n"),
        (MemoryError("Unable to allocate 9.00 TiB"), 2, "minitinybert: not enough memory (Unable to allocate 9.00 TiB); try a smaller"),
        (MemoryError(), 2, "minitinybert: not enough memory; try a smaller --batch-size"),
        (OSError(28, "No space left on device", "a\nb.tsv"), 2, "minitinybert: a b.tsv: No space left on device; check"),
        (KeyboardInterrupt(), 130, "minitinybert: interrupted\n"),
        (ZeroDivisionError("x"), 70, "Traceback (most recent call last):"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_status(monkeypatch, capsys, error, status, says):
    def fail(args):
        raise error

    monkeypatch.setitem(cli._COMMANDS, "audit", fail)
    assert cli.main(["audit"]) == status
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert status == 70 or said.count("\n") == 1
    assert status != 70 or "ZeroDivisionError: x" in said and "please report" in said
