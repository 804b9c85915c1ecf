"""What this process may use of its machine; processes of a pool end with the one that started them, however that ends."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from minitinybert.engine import parallel

POOL = """
import multiprocessing, os, signal, time
from concurrent.futures import ProcessPoolExecutor
from minitinybert.engine.parallel import end_with_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        busy = pool.submit(time.sleep, 600)
        pool.submit(os.getpid).result()
        print(*pool._processes, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_leaves_none_of_its_pool(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    with open(tmp_path / "said", "w") as said:  # not a pipe, which whoever is left would keep open
        done = subprocess.run([sys.executable, tmp_path / "pool.py"], stdout=said, stderr=said, timeout=120)
    assert done.returncode == -signal.SIGKILL, (tmp_path / "said").read_text()
    started = left = [int(process) for process in (tmp_path / "said").read_text().splitlines()[0].split()]
    assert len(left) == 2
    deadline = time.monotonic() + 30
    while left and time.monotonic() < deadline:
        left = [process for process in started if is_alive(process)]
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie that nobody here has to wait for
    except OSError:
        return True


def test_memory_is_what_a_container_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_CONTAINER_S", ())
    whole = parallel.memory_bytes()
    assert 1 << 26 < whole <= 1 << 48
    for text, expected in (("max\n", whole), (f"{1 << 25}\n", 1 << 25), (f"{(1 << 63) - 4096}\n", whole)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(parallel, "_CONTAINER_S", (str(tmp_path / "nowhere"), str(tmp_path / "memory.max")))
        assert parallel.memory_bytes() == expected


def test_a_job_that_is_alone_has_the_other_threads():
    """Its parts cover what there is once, on as many threads as there are and as it is worth; where it is one of several, or nobody's
    job, it has none, and neither has whatever it calls on another thread."""

    def parts(count, least):
        taken = []
        parallel.at_once(lambda first, last: taken.append((first, last, threading.get_ident())), count, least)
        return sorted(taken)

    with parallel.Workers(3) as workers:
        for count, least, expected in ((25, 8, 3), (25, 13, 1), (16, 8, 2), (7, 8, 1), (1, 8, 1)):
            taken = workers.map(lambda _: parts(count, least), [0])[0]  # noqa: B023
            assert [first for first, _, _ in taken] == [0, *(last for _, last, _ in taken[:-1])] and taken[-1][1] == count
            assert len(taken) == len({thread for _, _, thread in taken}) == expected
        assert [len(taken) for taken in workers.map(lambda _: parts(25, 8), [0, 1])] == [1, 1]
        assert len(parts(25, 8)) == 1


def test_the_blas_has_the_threads_that_nobody_else_has():
    """One each while jobs are shared out; all of them in a job that is alone, until that shares itself out: threads of the BLAS that have
    nothing to do spin."""
    from threadpoolctl import threadpool_info

    blas = lambda: {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    before = blas()
    with parallel.Workers(2) as workers:
        seen = [blas(), *workers.map(lambda _: blas(), [0]), *workers.map(lambda _: blas(), [0, 1])]
        seen += workers.map(lambda _: parallel.at_once(lambda first, last: None, 20, 8) or blas(), [0])
        seen += [*workers.map(lambda _: blas(), [0]), blas()]
    assert seen == [{1}, {2}, {1}, {1}, {1}, {2}, {1}] and blas() == before


def test_the_first_item_s_exception_is_raised_when_all_have_ended():
    ended = []

    def work(i):
        time.sleep(0.05 * (2 - i))
        ended.append(i)
        raise KeyError(i)

    with parallel.Workers(2) as workers, pytest.raises(KeyError, match="0"):
        try:
            workers.map(work, [0, 1])
        finally:
            assert ended == [1, 0]


def test_a_part_s_exception_is_raised_when_all_have_ended():
    ended = []

    def part(first, last):
        if first == 0:
            raise KeyError("first")
        time.sleep(0.1)
        ended.append(first)

    with parallel.Workers(2) as workers:
        with pytest.raises(KeyError, match="first"):
            workers.map(lambda _: parallel.at_once(part, 20, 8), [0])
        assert ended == [10]
        with pytest.raises(ZeroDivisionError):
            workers.map(lambda _: parallel.at_once(lambda first, last: 1 // (10 - first), 20, 8), [0])
