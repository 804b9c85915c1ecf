"""Kills and errors at the file operations of every command that writes; the run that goes on must come to the bits of one that was
not disturbed.

    python -m tests.faults.kills --count 500                     # kills and errors
    python -m tests.faults.kills --count 100 --only full-disks   # on a file system of its own, where one can be mounted

Each trial is a process, forked from one in which no thread was ever started, in an empty directory. A fault is one of

    kill i             SIGKILL before the i-th file operation: open for writing, mkdir, rename, remove, chmod, fsync, reservation …
    kill i, j          and the run that goes on is killed before its j-th
    cut b              the process dies when a file grows beyond b bytes (RLIMIT_FSIZE): in the midst of a library's write
    ENOSPC i, EIO i …  the i-th file operation fails
    EFBIG b            no file may grow beyond b bytes: whatever library writes has to report it
    full b             the disk has b bytes left; the run that goes on has room again

Python's audit events show what Python opens, renames and removes, whatever it is called through; the two limits are the system's
own and hold for libraries in C and Rust too. Then the same command, with --resume, must end well and leave the very tree, to the
byte, of an undisturbed run: no file more, none less. A command that met an error exits 2 with one line, or did well without the
operation.
"""

import argparse
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.update(MINITINYBERT_NUMBA="0", MINITINYBERT_QUIET="1", TOKENIZERS_PARALLELISM="false")

from .commands import COMMANDS, differences, make_inputs, tree  # noqa: E402  (after the thread counts, which are read at import)

ERRORS = [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT]
_SECONDS = 120  # after which a trial counts as hung
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link", "os.symlink")
_CALLS = ("fsync", "posix_fallocate", "ftruncate")  # no audit events


class Fault(NamedTuple):
    """What befalls the first run, and for `kill` perhaps the second too."""

    kind: str  # kill, cut, or the name of an error
    at: int  # the operation, or the bytes
    again: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.at}" + ("" if self.again is None else f", {self.again}")


class Ended(NamedTuple):
    status: int  # the exit status, or minus the signal
    said: list[str]  # the lines on standard error
    operations: int


def forked(work: Callable[[Callable[[int], None]], int]) -> Ended:
    """`work(note)` in a process of its own, until it ends; note(n) says how many operations there were."""
    readable, writable = os.pipe()
    counted, count = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            os.close(readable)
            os.dup2(writable, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            signal.alarm(_SECONDS)
            status = work(lambda n: os.write(count, f"{n}\n".encode()) and None)
            sys.stderr.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 99
        os._exit(status)
    os.close(writable)
    os.close(count)
    with open(readable, encoding="utf-8", errors="replace") as said, open(counted) as numbers:
        lines = said.read().splitlines()
        noted = numbers.read().split()
    _, code = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(code), lines, int(noted[-1]) if noted else 0)


def watch(act: Callable[[int, str], None]) -> Callable[[], int]:
    """From now on, in this process, act(i, path) before its i-th file operation; the function returned says how many there were."""
    seen = 0

    def operation(path: object) -> None:
        nonlocal seen
        seen += 1
        act(seen - 1, str(path))

    def audit(event: str, arguments: tuple) -> None:
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES and str(arguments[0]) != os.devnull
        if opens or event in _EVENTS:
            operation(arguments[0])

    def before(call: Callable) -> Callable:
        def wrapped(*arguments: object) -> object:
            operation(f"file {arguments[0]}")
            return call(*arguments)

        return wrapped

    for name in _CALLS:
        if hasattr(os, name):
            setattr(os, name, before(getattr(os, name)))
    sys.addaudithook(audit)
    return lambda: seen


def run(argv: list[str], place: Path, fault: Fault | None = None) -> Ended:
    """A command in directory `place`, with a fault."""

    def act(i: int, path: str) -> None:
        if fault is None or i != fault.at:
            return
        if fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind in errno.errorcode.values():
            number = getattr(errno, fault.kind)
            raise OSError(number, os.strerror(number), path)

    def work(note: Callable[[int], None]) -> int:
        from minitinybert.commands.cli import main

        os.chdir(place)
        bytes_ = fault is not None and fault.kind in ("cut", "EFBIG")
        if bytes_:
            assert fault is not None
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault.kind == "cut" else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, fault.at))
        seen = watch(lambda i, path: None if bytes_ else act(i, path))
        try:
            return main(argv)
        finally:
            note(seen())

    return forked(work)


@contextmanager
def ballast(disk: Path, fault: Fault) -> Iterator[None]:
    """A file that leaves as many bytes as the fault says."""
    file = disk / "ballast"
    if fault.kind == "full":
        status = os.statvfs(disk)
        with file.open("wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, max(1, status.f_bavail * status.f_frsize - fault.at))
    yield
    file.unlink(missing_ok=True)


def mounted(command: list[str]) -> tuple[int, str]:
    """`command` and a directory, an empty file system of 16 MB that this command alone sees: its exit status; or why none can be
    mounted here."""
    with tempfile.TemporaryDirectory() as directory:
        mount = f"mount -t tmpfs -o size=16m tmpfs {directory} && "
        for namespaces in (["--mount"], ["--user", "--map-root-user", "--mount"]):
            try:
                tried = subprocess.run(["unshare", *namespaces, "sh", "-c", mount + "true"], capture_output=True, text=True)
            except OSError as error:
                return 0, f"unshare: {error.strerror}"
            if not tried.returncode:
                return subprocess.run(["unshare", *namespaces, "sh", "-c", f'{mount} exec "$@"', "sh", *command, directory]).returncode, ""
    return 0, tried.stderr.strip().splitlines()[-1]


class Campaign:
    """Undisturbed runs of all commands, to compare with. Inputs lie in `directory`, trials on `disk`."""

    def __init__(self, directory: Path, disk: Path, names: list[str]):
        self.disk, self.inputs = disk, directory / "inputs"
        self.ended = 0  # runs by their faults; the others did without the operation, or had room enough
        made = forked(lambda note: make_inputs(self.inputs) or 0)
        assert made.status == 0, made
        self.trees, self.operations, self.largest, self.bytes = {}, {}, {}, {}
        for name in names:
            place = self._empty()
            whole = run(COMMANDS[name].line(self.inputs), place)
            assert (whole.status, whole.said) == (0, []), (name, whole)
            self.trees[name], self.operations[name] = tree(place), whole.operations
            sizes = [len(content or b"") for content in self.trees[name].values()]
            self.largest[name], self.bytes[name] = max(sizes), sum(sizes)
            assert whole.operations, name

    def _empty(self) -> Path:
        place = self.disk / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def faults(self, kills: bool, errors: bool) -> Iterator[tuple[str, Fault]]:
        """All that befall one run, the errors in turn."""
        turn = 0
        for name, operations in self.operations.items():
            for i in range(operations):
                if kills:
                    yield name, Fault("kill", i)
                if errors:
                    yield name, Fault(errno.errorcode[ERRORS[turn % len(ERRORS)]], i)
                    turn += 1
            for kind in ["cut"] * kills + ["EFBIG"] * errors:
                for part in range(8):
                    yield name, Fault(kind, self.largest[name] * part // 8)

    def drawn(self, rng: random.Random, kills: bool, errors: bool) -> tuple[str, Fault]:
        """One more: two kills, a cut or an error at any place."""
        name = rng.choice(list(self.operations))
        i, j = (rng.randrange(self.operations[name]) for _ in range(2))
        kind = rng.choice(["kill", "cut"] * kills + [errno.errorcode[rng.choice(ERRORS)], "EFBIG"] * errors)
        if kind == "kill":
            return name, Fault(kind, i, j)
        return name, Fault(kind, rng.randrange(self.largest[name]) if kind in ("cut", "EFBIG") else i)

    def full(self, rng: random.Random) -> tuple[str, Fault]:
        """A disk with room for something between nothing and all that a command writes, a checkpoint's successor too."""
        name = rng.choice(list(self.operations))
        return name, Fault("full", rng.randrange(self.bytes[name] * 3 // 2))

    def wrong(self, name: str, fault: Fault) -> list[str]:
        """What a trial showed to be wrong; empty where nothing is."""
        place, command = self._empty(), COMMANDS[name]
        with ballast(self.disk, fault):
            first = run(command.line(self.inputs), place, fault)
        self.ended += first.status != 0
        found = self._wrong_end(fault, first)
        if fault.again is not None:
            found += self._wrong_end(fault, run(command.line(self.inputs, again=True), place, Fault(fault.kind, fault.again)))
        last = run(command.line(self.inputs, again=True), place)
        if (last.status, last.said) != (0, []):
            found += [f"the run that goes on: status {last.status}, {last.said}"]
        return found + differences(self.trees[name], tree(place), command.spared)

    def _wrong_end(self, fault: Fault, ended: Ended) -> list[str]:
        if fault.kind in ("kill", "cut"):
            deaths = {"kill": -signal.SIGKILL, "cut": -signal.SIGXFSZ}
            reached = fault.kind == "cut" or fault.again is None
            good = ended.status == deaths[fault.kind] or (ended.status == 0 and not ended.said and not (reached and fault.kind == "kill"))
        else:
            good = (ended.status == 2 and len(ended.said) == 1) or (ended.status == 0 and not ended.said)
        return [] if good else [f"status {ended.status}, {ended.said}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description="kills and errors at every file operation")
    parser.add_argument("--count", type=int, default=100, help="how many; all that befall one run come first, then draws")
    parser.add_argument("--seed", type=int, default=0, help="of which ones, and of the draws")
    parser.add_argument("--only", choices=("kills", "errors", "full-disks"), help="without it: kills and errors")
    parser.add_argument("--disk", type=Path, help=argparse.SUPPRESS)  # the file system that was mounted
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    args = parser.parse_args()
    if args.only == "full-disks" and args.disk is None:
        status, why_not = mounted([sys.executable, "-m", "tests.faults.kills", *sys.argv[1:], "--disk"])
        if why_not:
            print(f"skipped: no file system can be mounted here ({why_not})")
        return status
    # What the commands import late, once for all trials; none of it starts a thread.
    import gensim.models  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import PIL.PngImagePlugin  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from minitinybert.augmentation import files  # noqa: F401
    from minitinybert.commands import answer, cli, corpus, plots, task  # noqa: F401
    from minitinybert.commands.ablation import study  # noqa: F401
    from minitinybert.weights import convert  # noqa: F401

    kills, errors = args.only != "errors", args.only != "kills"
    started = time.monotonic()
    tally: Counter[tuple[str, str]] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as directory:
        campaign = Campaign(Path(directory), args.disk or Path(directory), args.commands)
        rng = random.Random(args.seed)
        trials = [] if args.disk else list(campaign.faults(kills, errors))
        everything = len(trials)
        if args.count < everything:
            trials = rng.sample(trials, args.count)
        draw = (lambda: campaign.full(rng)) if args.disk else (lambda: campaign.drawn(rng, kills, errors))
        trials += [draw() for _ in range(args.count - len(trials))]
        for name, fault in trials:
            tally[name, {"kill": "kills", "cut": "cuts", "full": "full disks"}.get(fault.kind, "errors")] += 1
            for line in campaign.wrong(name, fault):
                bad += 1
                print(f"{name}, {fault}: {line}", flush=True)
    every = f" (there are {everything} that befall one run)" if everything else ""
    print(f"{len(trials)} faults{every}, {campaign.ended} ended a run, {bad} things wrong, {time.monotonic() - started:.0f} s")
    for name, operations in campaign.operations.items():
        row = ", ".join(f"{count} {kind}" for (command, kind), count in sorted(tally.items()) if command == name)
        print(f"  {name}: {operations} file operations; {row or 'none'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
