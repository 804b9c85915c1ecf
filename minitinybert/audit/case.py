"""What an audited case is: where its inputs come from, and how it is called. (The judges:
judges.py.)"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..engine.device import Array


class Draw:
    """Where the drawn inputs come from. A test overrides `integer` to let Hypothesis choose (and
    shrink) the shapes.

    large: sizes from the upper half of their range, every option taken: a draw in which no gradient
    is zero for want of size.
    """

    def __init__(self, rng: np.random.Generator, large: bool = False):
        self.rng, self.large = rng, large

    def integer(self, low: int, high: int) -> int:
        """low … high, both included."""
        return int(self.rng.integers((low + high + 1) // 2 if self.large else low, high + 1))

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

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
    """

    name: str
    formula: str
    draw: Callable[[Draw], Inputs]
    forward: Callable[..., tuple[dict[str, Array], Any]]
    backward: Callable[[dict[str, Array], Any], Mapping[str, Array]]
    given: Callable[[Any], dict[str, Any]] = lambda cache: {}
    draws: int = 12
    zero: tuple[str, ...] = ()  # endings of the names of arguments whose gradient is zero by mathematics

    def run(self, inputs: Inputs) -> tuple[dict[str, Array], Any]:
        return self.forward(**inputs.arrays, **inputs.settings)

    def gradients(self, inputs: Inputs, doutputs: dict[str, Array], cache: Any) -> dict[str, Array]:
        """The backward's answer for those of its arguments that were given."""
        return {name: g for name, g in self.backward(doutputs, cache).items() if name in inputs.arrays and g is not None}
