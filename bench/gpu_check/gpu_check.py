"""What is to be known of the CUDA path on a real device, in one run of some seven minutes: stages with limits, the most telling first.

    bash bench/gpu_check/gpu_check.sh            on a machine with a GPU; results and logs under $OUT
    bash bench/gpu_check/gpu_check.sh --quick    whether it runs: tiny shapes, long limits

1 versions. 2 smoke: kernels, a step's gradients, a resumed run. 3 at once, for what is right: the tests, the same bits twenty times,
compute-sanitizer, the audit, a real training. 4 alone on the device, for what is fast: profile_step.py and gpu.py.

$OUT/summary.json has a row a stage from when it starts, $OUT/log.txt every line as it comes, with its stage's name before it: whatever ends
the run, they are there. The exit status is the number of stages that failed, those stopped at their limits among them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = [sys.executable]
PYTEST = [*PYTHON, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-rf", "--tb=short"]
SMOKE = ["tests/gpu/test_kernels.py::test_loops_that_go_round", "tests/gpu/test_training.py"]
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
NO_DEVICE = 3  # exit status of the first stage
HEAD, TAIL = 300_000, 100_000  # characters of a stage that log.txt has: the files of such a machine may be limited to 16 MB
SANITIZER = "compute-sanitizer"


class Check:
    """Runs stages and keeps what they say."""

    def __init__(self, out: Path, seconds: float):
        self.out, self.seconds, self.begun = out, seconds, time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.running: set[subprocess.Popen] = set()
        self.ended = ""  # why no further stage starts
        self.lock = threading.RLock()
        (out / "log.txt").write_text("", encoding="utf-8")
        self._write()

    def left(self, share: float) -> float:
        """Seconds: this share of what is left."""
        return max(20.0, share * (self.seconds - (time.monotonic() - self.begun)))

    def stage(self, name: str, command: Sequence[object], limit: float, shows: str = "") -> int | None:
        """Runs a command; its exit status, None where it was stopped or did not start. It has failed too where its last line lacks
        `shows`: pytest is content with nothing but skipped tests."""
        if self.ended:
            self.leave_out(name, self.ended, failed=True)
            return None
        started, row = time.monotonic(), self._row(name, "running")
        words = [str(word) for word in command]
        self._log(name, " ".join(words))
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT, start_new_session=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        self.running.add(process)
        late = threading.Event()
        timer = threading.Timer(limit, lambda: (late.set(), stop(process)))
        timer.daemon = True
        timer.start()
        last = self._listen(name, process)
        status = process.wait()
        timer.cancel()
        self.running.discard(process)
        said = "passed" if status == 0 else f"failed, exit status {status}"
        if status == 0 and shows not in last:
            said = f"failed, nothing {shows}"
        if late.is_set() or self.ended:
            said = f"stopped at its limit of {limit:.0f} s" if late.is_set() else f"stopped: {self.ended}"
        self._done(row, said, said != "passed", time.monotonic() - started, last)
        return None if late.is_set() or self.ended else status

    def leave_out(self, name: str, why: str, failed: bool = False) -> None:
        """A row for a stage that cannot run here."""
        self._log(name, f"left out: {why}")
        self._done(self._row(name, ""), "left out", failed, 0.0, why)

    def stop_all(self, why: str) -> None:
        self.ended = why
        for process in list(self.running):
            stop(process)

    def table(self) -> str:
        width, wide = (max(len(row[column]) for row in self.rows) for column in ("stage", "status"))
        lines = [f"{row['stage']:{width}}  {row['status']:{wide}}  {row['seconds']:6.1f} s  {row['says']}" for row in self.rows]
        out = sum(row["status"] == "left out" for row in self.rows)
        return "\n".join([*lines, f"{len(self.rows)} stages: {self.failed()} failed, {out} left out"])

    def said(self, name: str) -> str:
        """What log.txt has of a stage."""
        lines = (self.out / "log.txt").read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if line.partition("]")[0].endswith(f" s {name}"))

    def failed(self) -> int:
        return sum(row["failed"] for row in self.rows)

    def _listen(self, name: str, process: subprocess.Popen) -> str:
        """Logs what a process says, its middle left out where it says much; returns its last line."""
        size, at_end, dropped, last = 0, 0, 0, ""
        end: deque[str] = deque()
        for line in process.stdout or ():
            line = line.rstrip()[:4000]
            last = line or last
            size += len(line) + 1
            if size <= HEAD:
                self._log(name, line)
                continue
            end.append(line)
            at_end += len(line) + 1
            while at_end > TAIL:
                at_end -= len(end.popleft()) + 1
                dropped += 1
        if dropped:
            self._log(name, f"[{dropped} lines left out]")
        for line in end:
            self._log(name, line)
        return last

    def _log(self, name: str, line: str) -> None:
        with self.lock, open(self.out / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"[{time.monotonic() - self.begun:5.0f} s {name}] {line}\n")

    def _row(self, name: str, status: str) -> dict[str, Any]:
        row = {"stage": name, "status": status, "failed": False, "seconds": 0.0, "says": ""}
        with self.lock:
            self.rows.append(row)
            self._write()
        return row

    def _done(self, row: dict[str, Any], status: str, failed: bool, seconds: float, says: str) -> None:
        with self.lock:
            row |= {"status": status, "failed": failed, "seconds": round(seconds, 1), "says": says[:160]}
            print(f"[{time.monotonic() - self.begun:5.0f} s] {row['stage']}: {status}, {seconds:.1f} s: {row['says']}", flush=True)
            self._write()

    def _write(self) -> None:
        beside = self.out / "summary.partial"
        beside.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")
        os.replace(beside, self.out / "summary.json")


def stop(process: subprocess.Popen, patience: float = 5.0) -> None:
    """A stage and what it has started: asked, then ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        threading.Timer(patience, lambda: _end(process)).start()


def _end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------------------------- stages


def versions() -> int:
    """Prints what is here; 1 where a module is missing that the project cannot do without."""
    print("Python", sys.version.split()[0])
    missing = []
    needed = (
        "numpy",
        "scipy",
        "tokenizers",
        "gensim",
        "safetensors",
        "pyarrow",
        "matplotlib",
        "tqdm",
        "tabulate",
        "threadpoolctl",
    )
    beside = ("torch", "transformers", "sklearn", "ml_dtypes", "mpi4py", "xdist", "cupy")
    for name in (*needed, "platformdirs", "pytest", "hypothesis", *beside):
        try:
            module = importlib.import_module(name)
        except Exception as error:  # what is missing, or broken, is what is to be known
            print(f"{name} MISSING: {type(error).__name__}: {error}")
            missing += [name] if name in (*needed, "platformdirs", "pytest", "hypothesis") else []
        else:
            print(name, getattr(module, "__version__", ""))
    try:
        print(_device())
    except Exception as error:  # whatever it is that keeps CuPy from its device
        print(f"no CUDA device: {type(error).__name__}: {error}")
        return NO_DEVICE
    if missing:
        print(f"missing, bring wheels of them: {', '.join(missing)}")
    return bool(missing)


def _device() -> str:
    import cupy
    from cupy import _environment
    from cupy.cuda import nccl, nvrtc

    runtime = cupy.cuda.runtime
    about = runtime.getDeviceProperties(0)
    return (
        f"{about['name'].decode()}, sm_{about['major']}{about['minor']}, {about['multiProcessorCount']} multiprocessors, driver "
        f"{runtime.driverGetVersion()}, runtime {runtime.runtimeGetVersion()}, NVRTC {nvrtc.getVersion()}, NCCL "
        f"{nccl.get_version() if nccl.available else 'absent'}, CUDA's headers {_environment.get_cuda_path()}"
    )


def audit(quick: bool) -> int:
    """`minitinybert audit --device cuda`; quick: of the first operations, for all are minutes on a device that is simulated."""
    from minitinybert import audit
    from minitinybert.machine import select

    results = []
    for case in audit.CASES[:3] if quick else (*audit.CASES, *audit.MODEL_CASES, *audit.OPTIMISER_CASES):
        results += audit.run(select("cuda"), cases=[case])
        print(f"{case.name}: {'ok' if results[-1].passed else 'FAILED'}", flush=True)
    print(audit.format_table(results))
    return not all(result.passed for result in results)


def right(check: Check, quick: bool) -> None:
    """At once, or where there are few cores by and by: none of these is timed."""
    ends = time.monotonic() + check.left(0.55)
    cores = len(os.sched_getaffinity(0))
    spread = ["-n", min(8, cores // 2)] if cores > 3 and importlib.util.find_spec("xdist") else []
    files = ["tests/gpu/test_kernels.py", "tests/gpu/test_arrays.py"] if quick else ["tests/gpu"]
    small = ["--quick"] if quick else []
    jobs: list[tuple[str, list[Any]]] = [("tests", [*PYTEST, "-vv", *spread, *files, *(f"--deselect={test}" for test in SMOKE)])]
    jobs.append(("a real training", [*PYTHON, HERE / "real_training.py", *small]))
    jobs.append(("same bits", [*PYTHON, HERE / "races.py", *small]))
    jobs.append(("audit", [*PYTHON, __file__, "audit", *small]))
    sanitizer = _sanitizer()
    for tool in TOOLS:
        if sanitizer is None:
            check.leave_out(tool, f"{SANITIZER}, of NVIDIA's CUDA toolkit, is not on PATH, in $CUDA_HOME/bin or /usr/local/cuda/bin")
        else:
            checked = [sanitizer, "--tool", tool, "--error-exitcode", 9, "--print-limit", 20]
            jobs.append((tool, [*checked, *PYTHON, HERE / "races.py", "--small", *small]))
    with ThreadPoolExecutor(min(len(jobs), max(2, cores // 2))) as pool:
        run = lambda name, command: check.stage(
            name, command, max(20.0, ends - time.monotonic()), shows="passed" if name == "tests" else ""
        )
        for future in [pool.submit(run, *job) for job in jobs]:
            future.result()


def _sanitizer() -> str | None:
    folders = [os.environ.get("PATH", ""), *(f"{os.environ[home]}/bin" for home in ("CUDA_HOME", "CUDA_PATH") if home in os.environ)]
    return shutil.which(SANITIZER, path=os.pathsep.join([*folders, "/usr/local/cuda/bin"]))


def fast(check: Check, quick: bool) -> None:
    """Alone on the device, one after the other; what compiles, last."""
    fit = ["--tf32", "--teacher-dtype", "float16"]
    bench = [*PYTHON, ROOT / "bench" / "gpu.py", "--pairs", 5]
    profile = [*PYTHON, HERE / "profile_step.py"]
    out = lambda name: ["--out", check.out / name]
    if quick:
        tiny = ["--teacher", "2L-16D-2H-32F", "--student", "1L-8D-2H-16F", "--batch-size", 4, "--length", 8, "--quick", "--cases", "train"]
        jobs = [("profile", [*profile, "--quick", *fit]), ("bench", [*bench, *tiny, *out("bench"), *fit])]
    else:
        jobs = [("profile float32", profile), ("profile tf32, float16", [*profile, *fit])]
        jobs += [
            ("bench tf32, float16", [*bench, *fit, "--no-compile", *out("tf32")]),
            ("bench float32", [*bench, "--no-compile", *out("float32")]),
        ]
        jobs.append(("bench compiled", [*bench, *fit, "--cases", "full", "--compile", *out("compiled")]))
    for number, (name, command) in enumerate(jobs):
        check.stage(name, command, check.left(1 / (len(jobs) - number)))
        for picture in check.out.glob("*/*.png"):  # few files come back from such a machine, and gpu.py makes a page of the JSON
            picture.unlink()


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("part", nargs="?", choices=("all", "versions", "audit"), default="all")
    p.add_argument("--quick", action="store_true", help="whether it runs: tiny shapes, long limits")
    p.add_argument("--seconds", type=float, help="for everything; 400, with --quick 900")
    args = p.parse_args()
    if args.part != "all":
        return versions() if args.part == "versions" else audit(args.quick)
    out = Path(os.environ.get("OUT", "gpu_check_out")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    check = Check(out, args.seconds or (900.0 if args.quick else 400.0))
    signal.signal(signal.SIGTERM, lambda *_: check.stop_all("the whole run was stopped"))
    if check.stage("versions", [*PYTHON, __file__, "versions"], 90) != NO_DEVICE:
        check.stage("smoke", [*PYTEST, "-x", *SMOKE], check.left(0.25), shows="passed")
        right(check, args.quick)
        fast(check, args.quick)
    (out / "table.txt").write_text(check.table() + "\n", encoding="utf-8")
    for row in check.rows:
        if row["failed"] or (row["stage"].startswith("profile") and not args.quick):
            print(f"\n{check.said(row['stage'])[-4000:]}")
    print(f"\n{check.table()}")
    return check.failed()


if __name__ == "__main__":
    sys.exit(main())
