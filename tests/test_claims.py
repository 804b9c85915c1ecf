"""One run writes to a directory at a time; a claim ends with its process, however that ends."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from minitinybert import claims
from minitinybert.claims import claimed
from minitinybert.commands.cli import main
from minitinybert.errors import InputError

pytestmark = pytest.mark.skipif(claims.fcntl is None, reason="no locks on this system")

HOLD = """
import sys, time
from pathlib import Path
from minitinybert.claims import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has claimed out."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_in_one_line(tmp_path, holder, capsys):
    for line in (
        ["predict", "--model", "none", "--task", "rte", "--data", "none", "--out"],
        ["finetune", "--model", "none", "--task", "rte", "--data", "none", "--out"],
        ["augment", "--mlm", "none", "--vectors", "none", "--task", "rte", "--data", "none", "--out"],
        ["pretrain", "--model", "none", "--corpus", "none", "--out"],
        ["distill", "general", "--teacher", "none", "--student", "none", "--corpus", "none", "--out"],
        ["distill", "task", "--teacher", "none", "--student", "none", "--task", "rte", "--data", "none", "--out"],
        ["ablate", "--teacher", "none", "--student", "none", "--task", "rte", "--data", "none", "--out"],
        ["demo", "--out"],
        ["convert", "none"],
    ):
        assert main([*line, str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and f"another run (process {holder.pid} on " in said[0] and f"{tmp_path}/out: " in said[0], said


def test_a_killed_process_has_no_claim(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".out.lock").exists()
    with claimed(tmp_path / "out"):
        assert f"process {os.getpid()} on " in (tmp_path / ".out.lock").read_text()
    assert not list(tmp_path.iterdir())


def test_a_name_is_no_way_around(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    with claimed(tmp_path / "out"), pytest.raises(InputError, match="another run"), claimed(tmp_path / "link"):
        pass


def test_who_waits_goes_on_when_the_other_is_done(tmp_path):
    order = []

    def second():
        with claimed(tmp_path / "out", wait=True):
            order.append("second")

    with claimed(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"] and not list(tmp_path.iterdir())


def test_leftovers_go_but_not_those_of_a_run_below(tmp_path, holder):
    theirs, ours = tmp_path / "out" / ".a.9.partial", tmp_path / "ours" / "deep" / ".a.9.partial"
    for path in (theirs, ours, tmp_path / ".b.9.partial"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with claimed(tmp_path):
        assert theirs.exists() and not ours.exists() and not (tmp_path / ".b.9.partial").exists()


def test_of_a_new_directory_that_was_begun_beside_nothing_stays(tmp_path):
    (tmp_path / ".out.9.partial").mkdir()
    (tmp_path / ".other.9.partial").mkdir()
    with claimed(tmp_path / "out"):
        assert not (tmp_path / "out").exists(), "convert writes to a directory that is not there"
    assert [path.name for path in tmp_path.iterdir()] == [".other.9.partial"]


def test_what_cannot_be_written_to_is_told_at_the_start(tmp_path, capsys):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out"):
        assert main(["finetune", "--model", "none", "--task", "rte", "--data", "none", "--out", str(out)]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and str(tmp_path / "file") in said[0] and "none" not in said[0], said


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_directory_that_takes_no_files(tmp_path, monkeypatch, number):
    (tmp_path / "out").mkdir()
    real = os.mkdir

    def mkdir(path, *rest, **more):
        if "probe" in str(path):
            raise OSError(number, os.strerror(number), path)
        real(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(InputError, match=rf"out: cannot be written \({os.strerror(number)}"), claimed(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_where_nothing_may_be_written_beside_the_lock_is_within(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    real = os.open

    def refuse(path, *rest, **more):
        if str(path) == str(tmp_path / ".out.lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with claimed(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
        with pytest.raises(InputError, match="another run"), claimed(tmp_path / "out"):
            pass
    assert not list((tmp_path / "out").iterdir())


def test_where_there_are_no_locks_a_line_says_so(tmp_path, monkeypatch, capsys):
    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claims.fcntl, "flock", flock)
    monkeypatch.setenv("MINITINYBERT_QUIET", "")
    with claimed(tmp_path / "out"):
        pass
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "no lock can be had there (No locks available)" in said[0]
    assert not list(tmp_path.iterdir())


def test_parents_that_were_made_go_if_they_are_empty(tmp_path):
    with claimed(tmp_path / "a" / "b" / "out"):
        pass
    assert not list(tmp_path.iterdir())
    with claimed(tmp_path / "a" / "b" / "out"):
        (tmp_path / "a" / "b" / "out").mkdir()
    assert (tmp_path / "a" / "b" / "out").is_dir()
