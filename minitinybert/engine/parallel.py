"""Threads in a process, each with a share of the batch. NumPy's loops and the BLAS release the
interpreter's lock, so shares run at once; the BLAS itself is kept to one thread in each, but for
work that is not shared out."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from .ranks import ALONE, Ranks

A = TypeVar("A")
B = TypeVar("B")

_CONTAINER_S = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of control groups 2 and 1
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # glibc's malloc.h


class Workers:
    """A pool of `threads` (None: one a core), in one of the run's `ranks`. Use as a context: `with
    Workers(2) as workers: …`."""

    def __init__(self, threads: int | None = None, ranks: Ranks = ALONE):
        self.ranks = ranks
        self.threads = threads or max(1, available_cores() // ranks.local)
        self._blas: Any = None  # found once: it takes milliseconds

    def __enter__(self) -> Workers:
        from threadpoolctl import ThreadpoolController  # here, as its import sets a variable of the environment

        keep_freed_memory()
        self._blas = self._blas or ThreadpoolController().select(user_api="blas")
        self._limits = self._blas.limit(limits=1)
        self._hands = [_Hand() for _ in range(self.threads)] if self.threads > 1 else []
        return self

    def __exit__(self, *_: object) -> None:
        for hand in self._hands:
            hand.end()
        self._limits.restore_original_limits()

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """[function(item) …] in the order of the items, at once where there are threads; the first
        exception is raised.

        Item i goes to thread i; what is left goes to whoever is free.
        """
        items = list(items)
        if not self._hands:
            return [function(item) for item in items]
        if len(items) == 1:
            with _lent(self._hands[1:], self._limit_blas):
                return [function(items[0])]
        results: dict[int, B] = {}
        rest = iter(range(self.threads, len(items)))  # next() on it is atomic

        def work(first: int) -> None:
            for i in itertools.chain([first], rest):
                results[i] = function(items[i])

        begun = [hand.begin(work, i) for i, hand in enumerate(self._hands[: len(items)])]
        _raise([done.get() for done in begun])
        return [results[i] for i in range(len(items))]

    def _limit_blas(self, threads: int) -> None:
        for library in self._blas.lib_controllers:  # its `limit` asks each about all it is: half a millisecond
            library.set_num_threads(threads)

    def map_over_ranks(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """As `map`, each item on one rank; every rank gets all the answers."""
        rank, size = self.ranks.rank, self.ranks.size
        parts = self.ranks.gather(self.map(function, list(items)[rank::size]))
        return [answer for answers in itertools.zip_longest(*parts, fillvalue=_NONE) for answer in answers if answer is not _NONE]


class _Hand:
    """A thread that does one thing after another. A pool's futures take a twentieth of a millisecond
    each, as long as a layer of a small model takes of one sentence."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...], _Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def begin(self, function: Callable[..., object], *arguments: Any) -> _Done:
        """What is returned gets the error, or None, when it is done."""
        done: _Done = SimpleQueue()
        self._jobs.put((function, arguments, done))
        return done

    def end(self) -> None:
        """Waits for what was begun."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, arguments, done = job
            error = None
            try:
                function(*arguments)
            except BaseException as raised:
                error = raised
            done.put(error)
            del job, function, arguments, done, error  # nothing is kept alive until the next one comes


_Done = SimpleQueue[BaseException | None]


def _raise(errors: Sequence[BaseException | None]) -> None:
    """The first."""
    for error in errors:
        if error is not None:
            raise error


_NONE: Any = object()
_IDLE = threading.local()  # .lent: the hands that nobody else has, of the job that this thread does, and what limits the BLAS's threads

_NO_HANDS: tuple[Sequence[_Hand], None] = [], None


@contextmanager
def _lent(hands: Sequence[_Hand], limit_blas: Callable[[int], None]) -> Iterator[None]:
    """A job that has as many threads more: the BLAS's own, or by `at_once` the hands."""
    before, _IDLE.lent = getattr(_IDLE, "lent", _NO_HANDS), (hands, limit_blas)
    limit_blas(len(hands) + 1)
    try:
        yield
    finally:
        _IDLE.lent = before
        limit_blas(1)


def at_once(function: Callable[[int, int], object], count: int, least: int) -> None:
    """function(first, last) of 0 … count − 1 in parts of `least` or more: one here, and one on each
    thread of the Workers whose only job this is. Elsewhere than in such a job, all in one."""
    hands, limit_blas = getattr(_IDLE, "lent", _NO_HANDS)
    if limit_blas is not None:  # the BLAS's threads wait for more work by spinning, on the cores that are needed here
        limit_blas(1)
        _IDLE.lent = hands, None
    parts = min(len(hands) + 1, count // least)
    if parts <= 1:
        function(0, count)
        return
    bounds = [count * i // parts for i in range(parts + 1)]
    begun = [hand.begin(function, *part) for hand, part in zip(hands, itertools.pairwise(bounds[1:]), strict=False)]
    try:
        function(0, bounds[1])
    finally:
        errors = [done.get() for done in begun]
    _raise(errors)


def blas_threads(limit: int | None) -> Any:
    """A context in which the BLAS has at most so many threads; None: its own number."""
    from threadpoolctl import threadpool_limits  # here, as its import sets a variable of the environment

    return threadpool_limits(limit, user_api="blas")


def memory_bytes() -> int:
    """This machine's memory, or what a container may have of it; where the system does not say,
    more than any has."""
    known = [1 << 48]
    with suppress(AttributeError, OSError, ValueError):  # Windows, and systems without these names
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in _CONTAINER_S:
        with suppress(OSError, ValueError):  # not there, or "max"
            known.append(int(Path(limit).read_text()))
    return min(known)


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """For a process of a pool: it ends when the one that started it does. One that is killed tells
    nobody, and those it started would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of handing them back to the system: a step allocates
    what the last one freed, and the page faults of fresh memory cost about as much as the
    arithmetic on it. Elsewhere than on glibc, nothing happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    # An older glibc refuses more than 32 MB. Where neither is taken, its own moving threshold serves better than a fixed small one.
    if mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 1 << 25):
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
