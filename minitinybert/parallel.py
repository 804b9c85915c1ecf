"""Threads in a process, each with a share of the batch. NumPy's loops and the BLAS release the interpreter's lock, so shares run
at once; the BLAS itself is kept to one thread in each."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

A = TypeVar("A")
B = TypeVar("B")

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # glibc's malloc.h


class Workers:
    """A pool of `threads` (None: one a core). Use as a context: `with Workers(2) as workers: workers.map(f, shares)`."""

    def __init__(self, threads: int | None = None):
        self.threads = threads or available_cores()

    def __enter__(self) -> Workers:
        keep_freed_memory()
        self._limits = threadpool_limits(1, user_api="blas")
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._limits.restore_original_limits()

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """[function(item) …] in the order of the items, at once where there are threads; the first exception is raised."""
        return list(self._pool.map(function, items)) if self._pool is not None else [function(item) for item in items]


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of handing them back to the system: a step allocates what the last one freed, and
    the page faults of fresh memory cost about as much as the arithmetic on it. Elsewhere than on glibc, nothing happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
