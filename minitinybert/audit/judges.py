"""The gradient audit: every backward against four judges that know nothing of it.

    finite differences   ⟨dy, J t⟩ = ⟨Jᵀ dy, t⟩ in float64: J t from the forward alone, Jᵀ dy the backward's answer
    PyTorch              the twin in `minitinybert_reference`, differentiated by autograd, in float64
    the page             the whole method by hand in `minitinybert_reference.tinybert`, in float64; it has no dropout, no tanh GELU
    stored               float32 answers against outputs and gradients of the twin, kept in `minitinybert_reference/stored`

Upstream gradients dy, directions t and parameters are random: with ones for dy, softmax's gradient
is zero and most wrong layer-norm backwards pass. A gradient that is zero where it need not be
proves nothing, and fails.
"""

from __future__ import annotations

import importlib
import importlib.resources
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from .. import extras
from ..engine.device import Array, on_host, to_host
from ..engine.random import generator
from .case import Case, Draw, Inputs
from .models import MODEL_CASES
from .operations import CASES

TOLERANCES = {"finite differences": 1e-6, "PyTorch": 1e-10, "the page": 1e-10, "stored": 1e-5}
# A gradient smaller than this share of its upstream gradient's norm is judged as if it were that
# large: where mathematics says zero, what is left is the rounding of terms as large as dy.
FLOORS = {np.dtype(np.float64): 1e-4, np.dtype(np.float32): 1e-1}
FLOOR = FLOORS[np.dtype(np.float64)]
EMPTY = 1e-6  # smaller than this share, it counts as zero


class Deviation(NamedTuple):
    """How far one array is from what it should be, and where most."""

    name: str
    error: float  # ‖ours − theirs‖ / max(‖theirs‖, floor); infinite where that is not a number, or shapes differ
    where: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.where or 'equal'} (relative error {self.error:.2e})"


def compare(name: str, ours: Array, theirs: Array, floor: float = 0.0) -> Deviation:
    ours, theirs = np.asarray(to_host(ours), np.float64), np.asarray(to_host(theirs), np.float64)
    if ours.shape != theirs.shape:
        return Deviation(name, math.inf, f"shape {ours.shape}, expected {theirs.shape}")
    if not ours.size:
        return Deviation(name, 0.0)
    difference = np.abs(ours - theirs)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(difference), ours.shape))
    scale = max(np.linalg.norm(theirs), floor, np.finfo(np.float64).tiny)
    where = f"shape {ours.shape}, worst at {list(index)}: {ours[index]:.9g}, expected {theirs[index]:.9g}"
    return Deviation(name, _finite(np.linalg.norm(difference) / scale), where)


def _finite(error: float) -> float:
    return float(error) if math.isfinite(error) else math.inf


def assert_close(name: str, ours: Array, theirs: Array, rtol: float, floor: float = 0.0, seed: Any = None) -> None:
    """AssertionError naming tensor, shape, seed, worst index and both values, unless the relative
    error is within rtol."""
    deviation = compare(name, ours, theirs, floor)
    assert deviation.error <= rtol, f"{deviation} (tolerance {rtol:.0e}, seed {seed})"


# ---------------------------------------------------------------------------------------------------------------- one draw, judged


def upstream(draw: Draw, outputs: dict[str, Array], xp: Any = np) -> dict[str, Array]:
    """A random gradient for the outputs; of several outputs, some have none."""
    kept = [name for name in outputs if draw.integer(0, 3)] or list(outputs)
    return {name: xp.asarray(draw.normal(*outputs[name].shape)) for name in kept}


def check_vjp(case: Case, inputs: Inputs, draw: Draw, norms: dict[str, float], xp: Any = np) -> Iterator[Deviation]:
    """⟨dy, J t⟩ against ⟨Jᵀ dy, t⟩, for each differentiable argument by itself. inputs: float64, in
    `xp`.

    Errors are relative to ‖Jᵀ dy‖, which is what ⟨Jᵀ dy, t⟩ is worth for a random t. `norms` is
    told each argument's ‖Jᵀ dy‖/‖dy‖.
    """
    outputs, cache = case.run(inputs)
    dy = upstream(draw, outputs, xp)
    for name, gradient in case.gradients(inputs, dy, cache).items():
        x = inputs.arrays[name]
        if gradient.shape != x.shape:
            yield Deviation(f"d {name}", math.inf, f"shape {gradient.shape}, expected {x.shape}")
            continue
        direction = draw.normal(*x.shape)
        t = xp.asarray(direction / max(np.linalg.norm(direction), 1e-3))

        def difference(h: float, name: str = name, x: Array = x, t: Array = t) -> float:
            above, _ = case.run(Inputs({**inputs.arrays, name: x + h * t}, inputs.settings))
            below, _ = case.run(Inputs({**inputs.arrays, name: x - h * t}, inputs.settings))
            return sum(float((dy[out] * (above[out] - below[out])).sum()) for out in dy) / (2 * h)

        expected, answer = extrapolated(difference), float((gradient * t).sum())
        length, upstream_length = norm([gradient]), norm(dy.values())
        scale = max(length, FLOOR * upstream_length) / math.sqrt(max(x.size, 1))
        error = abs(answer - expected) / max(abs(expected), scale)
        norms[name] = length / upstream_length
        yield Deviation(f"⟨d {name}, t⟩", _finite(error), f"shape {x.shape}: {answer:.9g}, expected {expected:.9g}")


def unproven(case: Case, norms: dict[str, float]) -> list[Deviation]:
    """The guard against emptiness: arguments whose gradient was zero in a large draw, though
    mathematics does not say so."""
    empty = [name for name, relative in norms.items() if relative < EMPTY and not name.endswith(case.zero or ("\0",))]
    return [Deviation(f"d {name}", math.inf, "zero, so nothing is proven") for name in empty]


def extrapolated(difference: Callable[[float], float], h: float = 2.0**-6, levels: int = 5) -> float:
    """lim h→0 of a central difference, by Richardson's extrapolation over h, h/2, h/4 …; of the
    tableau, the entry that differs least from its two parents (Ridders' method): each column takes
    away one more even power of h, until rounding takes over."""
    best, smallest, above = math.nan, math.inf, [difference(h)]
    for level in range(1, levels):
        row = [difference(h / 2**level)]
        for j, older in enumerate(above):
            row.append(row[j] + (row[j] - older) / (4 ** (j + 1) - 1))
            doubt = max(abs(row[j + 1] - row[j]), abs(row[j + 1] - older))
            if doubt < smallest:
                best, smallest = row[j + 1], doubt
        above = row
    return best


def check_twin(case: Case, inputs: Inputs, draw: Draw, judge: Any, xp: Any = np) -> list[Deviation]:
    """Outputs and gradients against PyTorch's, in the inputs' dtype."""
    outputs, cache = case.run(inputs)
    dy = upstream(draw, outputs, xp)
    gradients = case.gradients(inputs, dy, cache)
    host, given, dy_host = on_host(inputs.arrays), on_host(case.given(cache)), on_host(dy)
    their_outputs, theirs = judge.differentiate(case.name, host, inputs.settings, given, dy_host, list(gradients))
    return compare_all(outputs, their_outputs, gradients, theirs, dy)


def check_page(case: Case, inputs: Inputs, draw: Draw, judge: Any, xp: Any = np) -> list[Deviation]:
    """Outputs and gradients against the page's, in the inputs' dtype and without what the page does
    not know (`judge.taken`)."""
    inputs = Inputs(*judge.taken(*inputs))
    outputs, cache = case.run(inputs)
    their_outputs, backward = judge.page(case.name, on_host(inputs.arrays), inputs.settings)
    dy = upstream(draw, {name: outputs[name] for name in their_outputs if name in outputs}, xp)
    gradients, theirs = case.gradients(inputs, dy, cache), backward(on_host(dy))
    return compare_all(outputs, their_outputs, gradients, {name: theirs.get(name, np.nan) for name in gradients}, dy)


def check_stored(case: Case, example: Example, xp: Any = np) -> list[Deviation]:
    """float32 inputs from the store, outputs and gradients against what PyTorch made of them."""
    inputs = example.inputs.cast(np.float32, xp)
    dy = {name: xp.asarray(a) for name, a in example.doutputs.items()}
    outputs, cache = case.run(inputs)
    gradients = case.gradients(inputs, dy, cache)
    return compare_all(outputs, example.outputs, gradients, example.gradients, dy)


def compare_all(outputs, their_outputs, gradients, their_gradients, dy) -> list[Deviation]:
    """Each output and each gradient, by name; `dy` are the upstream gradients."""
    smallest = FLOORS[np.dtype(next(iter(outputs.values())).dtype)]
    found = [compare(name, outputs.get(name, np.nan), theirs, smallest) for name, theirs in their_outputs.items()]
    floor = smallest * norm(dy.values())
    return found + [compare(f"d {name}", gradients.get(name, np.nan), theirs, floor) for name, theirs in their_gradients.items()]


def norm(arrays: Iterable[Array]) -> float:
    return math.sqrt(sum(float((a * a).sum()) for a in arrays))


# ---------------------------------------------------------------------------------------------------------------- the stored answers


class Example(NamedTuple):
    inputs: Inputs
    doutputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def stored(name: str) -> list[Example]:
    """The examples of one case in `minitinybert_reference/stored`; FileNotFoundError,
    ModuleNotFoundError where there are none."""
    with (stored_folder() / f"{name}.npz").open("rb") as file, np.load(file) as data:
        groups: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        for entry in data.files:
            number, kind, tensor = entry.split("/", 2)
            groups.setdefault(number, {}).setdefault(kind, {})[tensor] = data[entry]
    return [_example(groups[number]) for number in sorted(groups)]


def stored_folder() -> Any:
    return importlib.resources.files("minitinybert_reference") / "stored"


def _example(group: dict[str, dict[str, np.ndarray]]) -> Example:
    settings = json.loads(str(group["settings"]["json"]))
    return Example(Inputs(group["in"], settings), group["dout"], group["out"], group["grad"])


# ---------------------------------------------------------------------------------------------------------------- the whole audit


@dataclass(frozen=True)
class Verdict:
    """What one judge found for one case: its largest error, where that was, or why it could not
    judge."""

    tolerance: float
    error: float | None = None
    worst: str = ""
    absent: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.absent) or (self.error is not None and self.error <= self.tolerance)


@dataclass(frozen=True)
class Result:
    name: str
    formula: str
    shapes: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts.values())


def run(xp: Any = np, seed: int = 0, cases: Iterable[Case] | None = None) -> list[Result]:
    """The audit on one device, `xp` numpy or cupy: a Result for each case, whose verdicts are by
    judge."""
    if cases is None:
        cases = (*CASES, *MODEL_CASES)
    judges = reference_twin(), reference_page()
    return [_audit(case, xp, seed, *judges) for case in cases]


Judge = tuple[ModuleType | None, str]  # `minitinybert_reference.judge`, or None and why not


def reference_twin() -> Judge:
    """The judge where it has PyTorch."""
    judge, absent = reference_page()
    try:
        if judge is not None:
            judge.twins()
    except ImportError as error:
        absent = f"PyTorch comparison left out ({error}); {extras.hint('torch')} brings it"
    return (None, absent) if absent else (judge, "")


def reference_page() -> Judge:
    """The judge, whose page needs no more than the package."""
    try:
        return importlib.import_module("minitinybert_reference.judge"), ""
    except ImportError as error:
        return None, f"the page left out ({error})"


def _audit(case: Case, xp: Any, seed: int, twin: Judge, page: Judge) -> Result:
    draws = [Draw(generator(seed, *case.name.encode(), number), large=number == 0) for number in range(case.draws)]
    inputs = [case.draw(draw).cast(np.float64, xp) for draw in draws]
    norms: list[dict[str, float]] = [{} for _ in draws]
    found: dict[str, list[Deviation]] = {judge: [] for judge in TOLERANCES}
    reasons = dict.fromkeys(TOLERANCES, "")
    reasons["PyTorch"] = twin[1]
    reasons["the page"] = page[1] or page[0].SILENT.get(case.name, "")  # type: ignore[union-attr]
    for draw, drawn, seen in zip(draws, inputs, norms, strict=True):
        found["finite differences"] += check_vjp(case, drawn, draw, seen, xp)
        found["PyTorch"] += [] if reasons["PyTorch"] else check_twin(case, drawn, draw, twin[0], xp)
        found["the page"] += [] if reasons["the page"] else check_page(case, drawn, draw, page[0], xp)
    found["finite differences"] += unproven(case, norms[0])
    try:
        found["stored"] = [deviation for example in stored(case.name) for deviation in check_stored(case, example, xp)]
    except ModuleNotFoundError as error:
        reasons["stored"] = f"stored outputs left out ({error})"
    except FileNotFoundError as error:
        found["stored"] = [Deviation(case.name, math.inf, f"no stored outputs, {error.filename}")]
    verdicts = {judge: _verdict(found[judge], TOLERANCES[judge], reasons[judge]) for judge in found}
    return Result(case.name, case.formula, inputs[0].shapes, verdicts)


def _verdict(found: Sequence[Deviation], tolerance: float, absent: str) -> Verdict:
    if absent:
        return Verdict(tolerance, absent=absent)
    worst = max(found, key=lambda deviation: deviation.error, default=Deviation("nothing", math.inf, "not compared"))
    return Verdict(tolerance, worst.error, str(worst))


def format_table(results: Sequence[Result]) -> str:
    """A line for each case; below, what failed and where, and what could not be judged."""
    judges = list(TOLERANCES)
    rows = [
        [
            r.name,
            r.formula,
            textwrap.shorten(r.shapes, 44, placeholder=" …"),
            *(_cell(r.verdicts[judge]) for judge in judges),
            "ok" if r.passed else "FAILED",
        ]
        for r in results
    ]
    headers = ["", "formula", "shapes, such as", *(f"{judge}\n≤ {TOLERANCES[judge]:.0e}" for judge in judges), ""]
    lines = [tabulate(rows, headers, disable_numparse=True)]
    lines += [f"{r.name}: {judge}: {v.worst}" for r in results for judge, v in r.verdicts.items() if not v.passed]
    lines += dict.fromkeys(v.absent for r in results for v in r.verdicts.values() if v.absent)
    failed = sum(not r.passed for r in results)
    lines.append(f"{len(results)} audited, {failed} failed" if failed else f"{len(results)} audited, every gradient holds")
    return "\n".join(lines)


def _cell(verdict: Verdict) -> str:
    return "–" if verdict.error is None else f"{verdict.error:.1e}"


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """For `--json`: numbers as they are, an infinite error as null with the reason in `worst`."""
    finite = lambda v: {**asdict(v), "error": v.error if v.error is not None and math.isfinite(v.error) else None}
    return {
        "passed": all(r.passed for r in results),
        "results": [
            {
                "name": r.name,
                "formula": r.formula,
                "shapes": r.shapes,
                "passed": r.passed,
                "checks": {judge: {**finite(v), "passed": v.passed} for judge, v in r.verdicts.items()},
            }
            for r in results
        ],
    }
