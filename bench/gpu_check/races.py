"""Every kernel and a distillation step, each array an allocation of its own: in a memory pool, a write past one array hits another.

Without a sanitizer: whether the numbers are NumPy's, and whether the same call says the same bits twenty times (a race, or memory nobody
wrote, does not). `--small`, for compute-sanitizer: sizes at which its tools come to an end, once. No PyTorch: under a sanitizer imports
are slow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests")]
from gpu import test_kernels as kernels  # noqa: E402

from minitinybert import machine  # noqa: E402
from minitinybert.audit import assert_close  # noqa: E402
from minitinybert.distillation.distill import Intermediate, Prediction  # noqa: E402
from minitinybert.engine.batch import packed  # noqa: E402
from minitinybert.engine.parallel import Workers  # noqa: E402
from minitinybert.model.bert import Bert  # noqa: E402
from minitinybert.model.config import Config  # noqa: E402
from minitinybert.training.shares import Learner  # noqa: E402
from minitinybert.training.teacher import Running  # noqa: E402

cupy = machine.select("cuda")  # and its kernels

# A case of tests/gpu/test_kernels.py, and the answers to what it draws, in its order. Between them every operation that has a kernel.
SMALL: dict[str, tuple[Any, ...]] = {
    "rows for the groups": (kernels._norm, 33, 5, 0.1, True),
    "rows for the blocks": (kernels._norm, 7, 1030, 0.1, True),
    "rows for the parts of gelu": (kernels._gelu, 130, 5, "none"),
    "gelu by tanh": (kernels._gelu, 33, 31, "tanh"),
    "linear": (kernels._linear, (33,), 5, 31, True, False),
    "a layer": (kernels._layer, (3, 5), 7, 1, 0.1, 0.1, [5, 5, 33, 17], True, False, True, "gelu", True),
    "a layer of first tokens": (kernels._layer, (1, 26), 8, 0, 0.1, 0.1, [33, 33, 70], False, True, True, "gelu_new", True),
    "comparison, padding counted": (kernels._compare, [70, 70, 31], False, (3, 3), True, (7.0, 1.0), np.float16),
    "comparison, all": (kernels._compare, [31, 31, 5], True, (3, 3), False, (333.0, 0.3), np.float32),
    "classes for the registers": (kernels._entropies, 3, 1200, None, np.int32, 2.5),
    "parts for a block": (kernels._optimiser, [5000, 7], 50.0, 1.0, 70, "bert-adam", 1),
    "tables": (kernels._tables, 1025, 257, 31, np.int32, 3),
    "embed": (kernels._embed, 33, 312, 0.1, np.int32, np.int64, np.int32, True),
    "dropout": (kernels._dropout, 33, 31, 0.1),
    "keys": (kernels._keys, 33, 7, 5),
    "mse": (kernels._mse, [3, 17, 65], True, 65, 33.5, -0.3),
    "added": (kernels._added, (7, 312), 3),
}
LARGE = {"a layer of long sentences": (kernels._layer, (2, 64), 130, 0, 0.1, 0.1, [300], False, False, True, "gelu", True), **kernels.LARGE}
Results = Callable[[], dict[str, Any]]  # arrays on the device, by name


def a_case(case: Callable, *answers: Any) -> Results:
    """A case's results on the device, in float32; they are first held against NumPy's."""
    asked = []

    def draw(strategy: Any) -> Any:
        asked.append(strategy)
        return answers[len(asked) - 1] if len(asked) <= len(answers) else None

    results = case(draw, np.random.default_rng(7))
    if len(asked) != len(answers):
        raise ValueError(f"tests/gpu/test_kernels.py draws {len(asked)} answers, here are {len(answers)}; it asks for {asked}")
    kernels.compare(cupy, results, np.float32)
    up = lambda a: cupy.asarray(a.astype(np.float32) if a.dtype.kind == "f" else a)
    return lambda: results(up)


def a_step(make: Callable) -> Results:
    """Losses and gradients of a student's step on the device; they are first held against NumPy's."""
    student = Config(300, 24, 2, 2, 40, max_position_embeddings=64, head="classifier")
    teacher = replace(student, hidden_size=32, num_hidden_layers=4, intermediate_size=48)
    lengths, rng = (5, 33, 7, 5, 40), np.random.default_rng(3)
    ids = [rng.integers(5, 300, n) for n in lengths]
    batch = packed(ids, [0 * i for i in ids], None, np.arange(len(ids)) % 2)

    def results(xp: Any = cupy) -> dict[str, Any]:
        with Workers(1) as workers:
            models = Bert.new(student, 1).to(xp), Bert.new(teacher, 2).to(xp)
            losses, gradients = Learner(models[0], make(student, teacher), workers, Running(models[1]), seed=3).gradients(batch, 0)
            return {**losses, "gradient": gradients.flat}

    here, there = results(np), results()
    for name in here:
        assert_close(name, there[name], here[name], 1e-4)
    return results


def other_bits(results: Results, times: int) -> list[str]:
    """Names of what says other bits at one of so many times."""
    bits = lambda: {name: cupy.asarray(a).get().tobytes() for name, a in results().items()}
    first = bits()
    return sorted({name for _ in range(times - 1) for name, other in bits().items() if other != first[name]})


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--small", action="store_true")
    p.add_argument("--quick", action="store_true", help="three times, and only what is small")
    args = p.parse_args()
    cupy.cuda.set_allocator(None)  # cudaMalloc each
    untried = kernels.CASES.keys() - {case for case, *_ in SMALL.values()}
    assert not untried, f"SMALL lacks {untried}, which tests/gpu/test_kernels.py has"
    cases = {**SMALL, **({} if args.small or args.quick else LARGE)}
    made = {name: lambda answers=answers: a_case(*answers) for name, answers in cases.items()}
    made["a step, intermediate"] = lambda: a_step(Intermediate)
    made["a step, prediction"] = lambda: a_step(lambda student, teacher: Prediction())
    failed, times = [], 3 if args.quick else 20
    for name, make in made.items():
        try:
            results = make()
            wrong = [] if args.small else other_bits(results, times)
            if wrong:
                raise AssertionError(f"other bits the next time: {wrong}")
        except Exception as error:  # whatever it is, the other cases are to be known too
            failed.append(name)
            print(f"{name}: FAILED: {type(error).__name__}: {str(error)[:400]}", flush=True)
        else:
            print(f"{name}: ok", flush=True)
    said = "" if args.small else f", the same bits {times} times"
    print(f"{len(made) - len(failed)} of {len(made)} passed{said}; failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
