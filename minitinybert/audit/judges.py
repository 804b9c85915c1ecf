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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from .. import extras
from ..engine.device import Array, on_host, to_host
from ..progress import folded
from .case import Case, Draw, Inputs
from .models import BERT_CASES
from .operations import CASES
from .steps import OPTIMISER_CASES, STEP_CASES

MODEL_CASES = (*BERT_CASES, *STEP_CASES)

TOLERANCES = {"finite differences": 1e-6, "PyTorch": 1e-10, "the page": 1e-10, "stored": 1e-5}
# A gradient smaller than this share of its upstream gradient's norm is judged as if it were that
# large: where mathematics says zero, what is left is the rounding of terms as large as dy, some
# hundred times that where a norm of one number divides by √ε.
FLOORS = {np.dtype(np.float64): 1e-3, np.dtype(np.float32): 1e-1}
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


def _upstream(case: Case, draw: Draw, outputs: dict[str, Array], xp: Any) -> dict[str, Array]:
    """None where there is no way back."""
    return {} if case.backward is None else upstream(draw, outputs, xp)


def check_vjp(case: Case, inputs: Inputs, draw: Draw, norms: dict[str, float], xp: Any = np, apart: bool = True) -> Iterator[Deviation]:
    """⟨dy, J t⟩ against ⟨Jᵀ dy, t⟩, for each differentiable argument by itself; or, not apart, for
    one t of them all. inputs: float64, in `xp`.

    Errors are relative to ‖Jᵀ dy‖, which is what ⟨Jᵀ dy, t⟩ is worth for a random t. `norms` is
    told each argument's ‖Jᵀ dy‖/‖dy‖.
    """
    outputs, cache = case.run(inputs)
    dy = _upstream(case, draw, outputs, xp)
    values = case.values or (lambda **inputs: case.forward(**inputs)[0])
    if case.values is not None:
        yield from (compare(name, outputs.get(name, np.nan), y) for name, y in case.values(**inputs.arrays, **inputs.settings).items())
    upstream_length, gradients = norm(dy.values()), {}
    for name, gradient in case.gradients(inputs, dy, cache).items():
        if gradient.shape == inputs.arrays[name].shape:
            gradients[name] = gradient
            norms[name] = norm([gradient]) / upstream_length
        else:
            yield Deviation(f"d {name}", math.inf, f"shape {gradient.shape}, expected {inputs.arrays[name].shape}")
    for names in [[name] for name in gradients] if apart else [list(gradients)] if gradients else []:
        t, square = {}, 0.0
        for name in names:
            direction = draw.normal(*gradients[name].shape)
            t[name] = xp.asarray(direction / max(np.linalg.norm(direction), 1e-3) / math.sqrt(len(names)))
            square += (max(norms[name], FLOOR) * upstream_length) ** 2 / max(direction.size, 1) / len(names)

        def difference(h: float, t: dict[str, Array] = t) -> float:
            moved = lambda h: inputs.arrays | {name: inputs.arrays[name] + h * t[name] for name in t}
            above, below = (values(**moved(side), **inputs.settings) for side in (h, -h))
            return sum(float((dy[out] * (above[out] - below[out])).sum()) for out in dy) / (2 * h)

        expected, answer = extrapolated(difference), sum(float((gradients[name] * t[name]).sum()) for name in names)
        error = abs(answer - expected) / max(math.sqrt(square), abs(expected))
        what, shape = (names[0], gradients[names[0]].shape) if len(names) == 1 else (f"{len(names)} arguments", "of each")
        yield Deviation(f"⟨d {what}, t⟩", _finite(error), f"shape {shape}: {answer:.9g}, expected {expected:.9g}")


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
    dy = _upstream(case, draw, outputs, xp)
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
    dy = _upstream(case, draw, {name: outputs[name] for name in their_outputs if name in outputs}, xp)
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
        flat, listed = {kind: data[kind] for kind in data.files if kind != "json"}, json.loads(str(data["json"]))
    at, examples = dict.fromkeys(flat, 0), []
    for example in listed:
        parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in ("in", "dout", "out", "grad")}
        for part, tensor, kind, shape in example["arrays"]:
            start, at[kind] = at[kind], at[kind] + math.prod(shape)
            parts[part][tensor] = flat[kind][start : at[kind]].reshape(shape)
        examples.append(Example(Inputs(parts["in"], example["settings"]), parts["dout"], parts["out"], parts["grad"]))
    return examples


def stored_folder() -> Any:
    return importlib.resources.files("minitinybert_reference") / "stored"


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
        cases = (*CASES, *MODEL_CASES, *OPTIMISER_CASES)
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
    draws = case.sources(seed)
    inputs = [case.draw(draw).cast(np.float64, xp) for draw in draws]
    norms: list[dict[str, float]] = [{} for _ in draws]
    found: dict[str, list[Deviation]] = {judge: [] for judge in TOLERANCES}
    reasons = dict.fromkeys(TOLERANCES, "")
    reasons["PyTorch"] = twin[1]
    reasons["the page"] = page[1] or page[0].SILENT.get(case.name, "")  # type: ignore[union-attr]
    if case.backward is None:
        reasons["finite differences"] = f"{case.name}: a step of an optimiser is no function with a gradient"
    for number, (draw, drawn, seen) in enumerate(zip(draws, inputs, norms, strict=True)):
        found["finite differences"] += check_vjp(case, drawn, draw, seen, xp, apart=number < case.apart)
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
    """For a terminal of 80 columns. Two lines a case: what each judge found, and the formula;
    below, what failed and where, and what could not be judged."""
    judges = list(TOLERANCES)
    rows = [[r.name, *(_cell(r.verdicts[judge]) for judge in judges), "ok" if r.passed else "FAILED"] for r in results]
    headers = ["", *(f"{judge.split()[-1]}\n≤ {TOLERANCES[judge]:.0e}" for judge in judges), ""]
    table = tabulate(rows, headers, disable_numparse=True).splitlines()
    lines = table[: -len(rows)] if rows else table
    for row, r in zip(table[len(lines) :], results, strict=True):
        lines += [row.rstrip(), folded(f"    {r.formula}")]
    notes = [f"{r.name}: {judge}: {v.worst}" for r in results for judge, v in r.verdicts.items() if not v.passed]
    notes += dict.fromkeys(v.absent for r in results for v in r.verdicts.values() if v.absent)
    lines += map(folded, notes)
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
