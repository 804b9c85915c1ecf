"""Mutated files by the thousand, each in a guarded process: it works, or is refused in one line.

    python -m tests.faults.campaign --count 3000 [--seed 1] [--loader csv …] [--jobs 2] [--keep DIR] [--state FILE]

prints a line a loader: how many files worked, how many were refused, and every other end by its kind; exit status 1 where there is
one. File number n of a loader is a function of (seed, loader, n). A worker has SECONDS of processor time a file and MEMORY bytes more
than it has at its start; one that dies or is silent is itself what is looked for, and another goes on with the next file. --state: what
is done is noted there, and not done again. --keep: the files that ended otherwise, as LOADER.N.NAME.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import mutators

ROOT = Path(__file__).parents[2]
SECONDS = 5.0
MEMORY = 1 << 30
_SILENCE = 600.0  # seconds: what never comes back to Python cannot be stopped from within; a busy machine may take long
_LONGEST = 1100  # characters of a line
_BATCH = 100


class TooSlow(BaseException):
    """Not an Exception: no loader takes it for a damaged file."""


# -------------------------------------------------------------------------------------------------------------- in the worker


class Bench:
    """A loader with its good files in memory and a directory to put the mutants in."""

    def __init__(self, name: str, place: Path):
        from .loaders import LOADERS

        self.name, self.loader, self.place = name, LOADERS[name], place
        place.mkdir()
        self.loader.make(place)
        files = [path for path in sorted(place.rglob("*")) if path.is_file()]
        self.good = {path.relative_to(place): path.read_bytes() for path in files}
        self.times = {path.relative_to(place): path.stat().st_mtime_ns for path in files}  # corpora are told apart by them
        self.lay_out("", b"")
        self.loader.use(place)

    def mutant(self, seed: int, number: int) -> tuple[str, bytes]:
        """Which file is changed, and what it is then."""
        draw = random.Random(f"{seed}/{self.name}/{number}")
        file, kind = draw.choice(sorted(self.loader.mutated.items()))
        return file, mutators.mutate(kind, self.good[Path(file)], draw)

    def lay_out(self, file: str, data: bytes) -> None:
        shutil.rmtree(self.place)
        self.place.mkdir()
        for path, content in self.good.items():
            (self.place / path).parent.mkdir(parents=True, exist_ok=True)
            (self.place / path).write_bytes(data if path == Path(file) else content)
            os.utime(self.place / path, ns=(self.times[path], self.times[path]))

    def verdict(self, seed: int, number: int) -> str:
        """ "works", "refused", or what went wrong."""
        self.lay_out(*self.mutant(seed, number))
        from minitinybert.errors import InputError

        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            self.loader.use(self.place)
        except InputError as error:
            line = str(error)
            if not line.strip() or len(line.splitlines()) > 1 or len(line) > _LONGEST or not line.isprintable():
                return f"a line that is none: {line[:80]!r}"
            return "refused" if time.process_time() - started < SECONDS else "slow, then refused"
        except TooSlow as error:
            return f"slow{_where(error)}"
        except BaseException as error:
            return f"{type(error).__name__}{_where(error)}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return "works" if time.process_time() - started < SECONDS else "slow, then works"


def _where(error: BaseException) -> str:
    """The last line of the package that was on the way."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "minitinybert" in Path(frame.filename).parts] or frames
    return f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _too_slow(*_: object) -> None:
    raise TooSlow


def work() -> None:
    """Requests [loader, seed, first, last] on standard input, a line [number, verdict] each on what was standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _too_slow)
    benches: dict[str, Bench] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for request in sys.stdin:
            name, seed, first, last = json.loads(request)
            if name not in benches:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
                benches[name] = Bench(name, Path(temporary) / name)
                if (now := Path("/proc/self/statm")).exists():
                    pages = int(now.read_text().split()[0])
                    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
            for number in range(first, last):
                answers.write(json.dumps([number, benches[name].verdict(seed, number)]) + "\n")


# -------------------------------------------------------------------------------------------------------------- in the parent


class Worker:
    """A process that judges mutants; begun anew where one ends it."""

    _QUIET = {
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "MALLOC_ARENA_MAX", "MINITINYBERT_QUIET"), "1"),
        "MINITINYBERT_NUMBA": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def judge(self, loader: str, seed: int, first: int, last: int) -> Iterator[tuple[int, str]]:
        """(number, verdict) of the mutants first … last − 1."""
        while first < last:
            process = self._process()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps([loader, seed, first, last]).encode() + b"\n")
            process.stdin.flush()
            while first < last:
                ready, _, _ = select.select([process.stdout], [], [], _SILENCE)
                line = process.stdout.readline() if ready else b""
                if not line:
                    yield first, self._ended(silent=not ready)
                    first += 1
                    break
                number, verdict = json.loads(line)
                assert number == first
                yield number, verdict
                first += 1

    def _process(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            command = [sys.executable, "-c", "from tests.faults.campaign import work; work()"]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            # unbuffered: a line that was read ahead would not be seen by select
            self.process = subprocess.Popen(command, **pipes, cwd=ROOT, env={**os.environ, **self._QUIET}, bufsize=0)
        return self.process

    def _ended(self, silent: bool) -> str:
        assert self.process is not None
        if silent:
            self.process.kill()
        _, said = self.process.communicate()
        status, self.process = self.process.returncode, None
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        return "silent for ever" if silent else f"the process died (status {status}) {' '.join(last)}"

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()
            self.process = None


def good(verdict: str) -> bool:
    return verdict in ("works", "refused")


# ---------------------------------------------------------------------------------------------------------------- by hand


def main() -> int:
    from .loaders import LOADERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="files a loader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loader", nargs="+", choices=sorted(LOADERS), default=list(LOADERS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--state", type=Path)
    args = parser.parse_args()
    state: dict[str, Any] = json.loads(args.state.read_text()) if args.state and args.state.exists() else {"seed": args.seed, "ends": {}}
    if state["seed"] != args.seed:
        parser.error(f"{args.state} is of --seed {state['seed']}")

    noting = threading.Lock()

    def campaign(loader: str) -> tuple[str, Counter[str]]:
        ends = Counter(state["ends"].get(loader, {}))
        worker = Worker()
        while (first := ends.total()) < args.count:
            for number, verdict in worker.judge(loader, args.seed, first, min(first + _BATCH, args.count)):
                ends[verdict] += 1
                if not good(verdict):
                    print(f"{loader} {number}: {verdict}", flush=True)
                    if args.keep:
                        _keep(args.keep, loader, args.seed, number)
            with noting:
                state["ends"][loader] = dict(ends)
                if args.state:
                    beside = args.state.with_suffix(".partial")
                    beside.write_text(json.dumps(state, indent=1))
                    beside.replace(args.state)
        worker.close()
        return loader, ends

    with ThreadPoolExecutor(args.jobs) as pool:
        return _table(dict(pool.map(campaign, args.loader)))


def _keep(directory: Path, loader: str, seed: int, number: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        file, data = Bench(loader, Path(temporary) / loader).mutant(seed, number)
    (directory / f"{loader}.{number}.{Path(file).name}").write_bytes(data)


def _table(ends: dict[str, Counter[str]]) -> int:
    total = sum(ends.values(), Counter())
    print(f"{'loader':16} {'files':>8} {'work':>8} {'refused':>8}  otherwise")
    for loader, counts in {**ends, "all": total}.items():
        others = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if not good(verdict))
        print(f"{loader:16} {counts.total():8} {counts['works']:8} {counts['refused']:8}  {others}")
    return int(total.total() != total["works"] + total["refused"])


if __name__ == "__main__":
    sys.exit(main())
