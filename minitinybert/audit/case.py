"""What an audited case is: where its inputs come from, and how it is called. (The judges:
judges.py.)"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..engine.device import Array, array_module
from ..engine.random import generator


class Draw:
    """Where the drawn inputs come from. A test overrides `integer` to let Hypothesis choose (and
    shrink) the shapes.

    large: sizes from the upper half of their range, every option taken: a draw in which no gradient
    is zero for want of size. row: what options are, by name, instead of chance's choice.
    """

    def __init__(self, rng: np.random.Generator, large: bool = False, row: Mapping[str, Any] | None = None):
        self.rng, self.large, self.row = rng, large, row or {}

    def integer(self, low: int, high: int) -> int:
        """low … high, both included."""
        return int(self.rng.integers((low + high + 1) // 2 if self.large else low, high + 1))

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def option(self, name: str, options: Sequence[Any], whole: bool = False) -> Any:
        """One of a few ways to go, under a name: of these the audit leaves none to chance
        (`matrix`). whole: every combination with the other such options occurs, not only every
        pair."""
        return self.row[name] if name in self.row else self.choice(options)

    def yes(self) -> bool:
        return self.integer(0, 1) == 1

    def rows(self) -> tuple[int, ...]:
        """The leading axes of an array of rows: packed (T,), padded (B, L), or one more."""
        return tuple(self.integer(1, 4) for _ in range(self.integer(1, 3)))

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return np.asarray(scale * self.rng.standard_normal(shape))

    def ids(self, below: int, *shape: int) -> np.ndarray:
        return self.rng.integers(0, below, shape)

    def mask(self, *shape: int) -> np.ndarray:
        """bool with holes, and a True in every row."""
        mask = self.rng.random(shape) < 0.6
        mask[..., self.integer(0, shape[-1] - 1)] = True
        return mask

    def keys(self, *shape: int) -> np.ndarray:
        return self.rng.integers(0, 2**64, shape, np.uint64)


class Inputs(NamedTuple):
    arrays: dict[str, Array]
    settings: dict[str, Any]  # numbers, strings, lists: what JSON can hold

    def cast(self, dtype: Any, xp: Any = np) -> Inputs:
        """Floating arrays in `dtype`, all arrays in `xp`."""
        cast = lambda a: a.astype(dtype) if a.dtype.kind == "f" else a
        return Inputs({name: xp.asarray(cast(a)) for name, a in self.arrays.items()}, self.settings)

    @property
    def shapes(self) -> str:
        floats = [f"{name} {a.shape}" for name, a in self.arrays.items() if a.dtype.kind == "f"]
        return ", ".join(floats[:3]) + (f" and {len(floats) - 3} more" if len(floats) > 3 else "")


@dataclass(frozen=True)
class Case:
    """One operation, loss or model: how to draw its inputs and how to call it.

    forward(**arrays, **settings) -> outputs by name, cache         backward(doutputs by name, cache) -> gradients by input's name
    given(cache) -> what chance decided, for the twin (dropout's masks) and how a batch lies
    declared(inputs) -> the names of the inputs that have a gradient; None: those that the backward gives
    """

    name: str
    formula: str
    draw: Callable[[Draw], Inputs]
    forward: Callable[..., tuple[dict[str, Array], Any]]
    backward: Callable[[dict[str, Array], Any], Mapping[str, Array | None]] | None  # None: there is nothing to go back through
    given: Callable[[Any], dict[str, Any]] = lambda cache: {}
    draws: int = 12  # at least; as many as the matrix has rows
    zero: tuple[str, ...] = ()  # endings of the names of arguments whose gradient is zero by mathematics
    declared: Callable[[Inputs], Sequence[str]] | None = None
    values: Callable[..., dict[str, Array]] | None = None  # the forward's outputs by a shorter way, for difference quotients
    apart: int = 1000  # in how many draws finite differences ask for each argument by itself; in the rest for all of them at once

    def run(self, inputs: Inputs) -> tuple[dict[str, Array], Any]:
        return self.forward(**inputs.arrays, **inputs.settings)

    def gradients(self, inputs: Inputs, doutputs: dict[str, Array], cache: Any) -> dict[str, Array]:
        """The backward's answer for those of its arguments that were given. One that is declared
        and does not come is not a number: no judge passes over it."""
        found = {} if self.backward is None else self.backward(doutputs, cache)
        names = [name for name in found if found[name] is not None] if self.declared is None else self.declared(inputs)
        given = {name: inputs.arrays[name] for name in names if name in inputs.arrays}
        nothing = lambda x: array_module(x).full_like(x, math.nan)
        return {name: nothing(x) if (g := found.get(name)) is None else g for name, x in given.items()}

    def sources(self, seed: int) -> list[Draw]:
        """Where the audit's draws come from: a row of the matrix each, the first one large."""
        rows = matrix(self)
        rows = [rows[i % len(rows)] for i in range(max(self.draws, len(rows)))]
        return [Draw(generator(seed, *self.name.encode(), i), large=i == 0, row=row) for i, row in enumerate(rows)]


class _Asked(Draw):
    """Notes the options that a case asks for, which no choice may keep it from."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(0), large=True)
        self.whole: dict[str, Sequence[Any]] = {}
        self.others: dict[str, Sequence[Any]] = {}

    def option(self, name: str, options: Sequence[Any], whole: bool = False) -> Any:
        (self.whole if whole else self.others)[name] = options
        return options[0]


def matrix(case: Case) -> list[dict[str, Any]]:
    """The rows that a case's options make: every combination of those that are `whole`, and every
    pair of values of any two options. The first row has the first value of each."""
    asked = _Asked()
    case.draw(asked)
    every = asked.whole | asked.others
    whole = asked.whole if len(every) > 1 else every
    pairs = [((a, i), (b, j)) for a, b in itertools.combinations(every, 2) for i in range(len(every[a])) for j in range(len(every[b]))]
    missing = dict.fromkeys(map(frozenset, pairs))
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, int]) -> None:
        """Each option that is open takes the value that makes most of the missing pairs; of equal
        ones the next in turn."""
        for name in every:
            if name not in row:
                turn = len(rows) % len(every[name])
                values = [(turn + i) % len(every[name]) for i in range(len(every[name]))]
                row[name] = max(values, key=lambda v, n=name: sum(frozenset(((n, v), other)) in missing for other in row.items()))  # type: ignore[misc]
        for pair in itertools.combinations(row.items(), 2):
            missing.pop(frozenset(pair), None)
        rows.append({name: every[name][i] for name, i in row.items()})

    for combination in itertools.product(*(range(len(options)) for options in whole.values())):
        add(dict(zip(whole, combination, strict=True)) | ({} if rows else dict.fromkeys(set(every) - set(whole), 0)))
    while missing:
        add(dict(next(iter(missing))))  # type: ignore[arg-type]
    return rows
