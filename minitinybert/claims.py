"""One run writes to a directory at a time.

The claim is a lock (flock) on a file beside the directory, `.NAME.lock`, or within it where nothing
may be written beside. The system lets go of it when the process ends, however it ends: a lock file
that a killed process left is no claim. Whoever claims a directory knows that nobody else writes
there, and sweeps away what killed runs left half-written.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError
from .files import cause, sweep, unwritable
from .progress import log

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_DEPTH = 5  # directories below --out in which commands write: an ablation's out/full/seed-0/intermediate/checkpoint
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # of file systems that have none, such as some NFS mounts
_NOT_HERE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def claimed(directory: Path, option: str = "--out", wait: bool = False) -> Iterator[None]:
    """`directory`, which need not be there yet, for this process alone while the block runs, and
    swept of what killed processes wrote beside.

    InputError at once, before anything is worked out, where it cannot be written to, and where
    another run has claimed it (with `wait`, that one is waited for). Where the file system has no
    locks, a line says so. Directories above that had to be made go away with the block if they are
    empty.
    """
    place = Path(directory).resolve()
    made = _make_parents(place)
    try:
        lock = _locked(place, f"{option} {directory}", wait)
        try:
            _check_writable(place, directory)
            with suppress(OSError):
                sweep(place.parent, place.name)  # what was to become the directory
            _sweep_below(place, _DEPTH)
            yield
        finally:
            if lock is not None:
                with suppress(OSError):
                    lock[0].unlink(missing_ok=True)  # before it is let go: who opened it meanwhile looks whether it is still there
                os.close(lock[1])
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _make_parents(place: Path) -> list[Path]:
    """The directories above, made where they are not there; those that were made, deepest first."""
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(place, error) from None
    return missing


def _check_writable(place: Path, directory: Path) -> None:
    if place.exists() and not place.is_dir():
        raise InputError(f"{directory}: a file, where a directory belongs; name another")
    there = place.is_dir()
    probe = place / f".probe.{os.getpid()}.partial" if there else place
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise unwritable(directory, error) from None


def _locked(place: Path, what: str, wait: bool) -> tuple[Path, int] | None:
    """The lock's file and its descriptor; None where there are no locks."""
    if fcntl is None:
        return None
    beside = place.with_name(f".{place.name}.lock")
    try:
        return _lock(beside, what, wait)
    except OSError as error:
        if error.errno in _NOT_HERE and place.is_dir():
            beside = place / ".lock"
        elif error.errno not in _NO_LOCKS:
            raise unwritable(place, error) from None
    try:
        return _lock(beside, what, wait)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise unwritable(place, error) from None
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        log(f"warning: {what}: no lock can be had there ({cause(error)}); see to it that no other run writes there")
        return None


def _lock(path: Path, what: str, wait: bool) -> tuple[Path, int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor, what, wait)
        if _is_there(path, descriptor):
            with suppress(OSError):  # on a full disk; the lock is had all the same
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
            return path, descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)  # a holder that ended meanwhile has removed its file: this was a lock on nothing
    return _lock(path, what, wait)


def _take(descriptor: int, what: str, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace") or "process unknown"
        if not wait:
            raise InputError(f"{what}: another run ({holder}) writes there; wait for it, or name another directory") from None
        log(f"{what}: another run ({holder}) writes there; waiting for it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def busy_above(place: Path) -> Path | None:
    """The directory above that another run has claimed, and may write from into this one."""
    return next((above for above in Path(place).resolve().parents[:_DEPTH] if above.name and busy(above)), None)


def _sweep_below(place: Path, depth: int) -> None:
    """A directory, and those below in which no other run writes."""
    with suppress(OSError):  # one that cannot be read is none of ours
        sweep(place)
        for path in place.iterdir() if depth else ():
            if path.is_dir() and not path.is_symlink() and not busy(path):
                _sweep_below(path, depth - 1)


def busy(place: Path) -> bool:
    """Whether another run has claimed a directory."""
    if fcntl is None:
        return False
    for lock in (place.with_name(f".{place.name}.lock"), place / ".lock"):
        with suppress(FileNotFoundError):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.unlink()  # a killed process's
            except OSError:
                return True
            finally:
                os.close(descriptor)
    return False
