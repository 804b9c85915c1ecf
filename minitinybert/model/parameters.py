"""All parameters in one flat array, with a view for each by its Hugging Face name.

Weights, gradients and the optimiser's moments share one layout, so a step of the optimiser, a norm
or an all-reduce is one call on one array. Tensors with weight decay come first ("no decay for
biases and LayerNorm" is a slice), each starts on 64 elements (256 bytes in float32), and query, key
and value are adjacent, so that one view of all three exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..engine.device import Array, array_module
from ..errors import InputError

ALIGN = 64

Made = TypeVar("Made")


class Slot(NamedTuple):
    """One stretch of the flat array: a tensor, or several stacked along the first axis under one
    more name."""

    name: str
    shape: tuple[int, ...]
    members: tuple[str, ...] = ()  # names of equal parts along axis 0; empty: the slot is its own tensor

    @property
    def decays(self) -> bool:
        """Weight decay applies: not to biases, not to LayerNorm (BERT)."""
        return not (self.name.endswith("bias") or "LayerNorm" in self.name)


class Layout:
    """Where each slot lies. Names are listed in the order of `slots`."""

    def __init__(self, slots: Iterable[Slot]):
        self.slots = tuple(slots)
        self.offsets: dict[str, int] = {}
        end = 0
        for decays in (True, False):
            for slot in self.slots:
                if slot.decays is decays:
                    self.offsets[slot.name] = end
                    end += -(-math.prod(slot.shape) // ALIGN) * ALIGN
            if decays:
                self.decay_end = end  # flat[:decay_end] decays
        self.size = end
        self.names = tuple(name for slot in self.slots for name in (slot.members or (slot.name,)))
        self.bounds = tuple(bounds for slot in self.slots for bounds in self._of_members(slot))  # (start, stop) of each name
        self.count = sum(math.prod(slot.shape) for slot in self.slots)  # without the padding between

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each tensor, by name."""
        of_slot = lambda slot: (slot.shape[0] // max(len(slot.members), 1), *slot.shape[1:])
        return {name: of_slot(slot) for slot in self.slots for name in (slot.members or (slot.name,))}

    def _of_members(self, slot: Slot) -> list[tuple[int, int]]:
        parts = max(len(slot.members), 1)
        size = math.prod(slot.shape) // parts
        return [(start := self.offsets[slot.name] + i * size, start + size) for i in range(parts)]


class Parameters(Mapping[str, Array]):
    """A flat array (size,) and its views: `parameters["bert.encoder.layer.0.output.dense.weight"]`,
    with `bert.` or without."""

    def __init__(self, layout: Layout, flat: Array):
        self.layout, self.flat, self.by_columns = layout, flat, False
        self._views: dict[str, Array] = {}
        self._kept: dict[Hashable, Any] = {}
        for slot in layout.slots:
            start = layout.offsets[slot.name]
            self._hold(slot, flat[start : start + math.prod(slot.shape)].reshape(slot.shape))

    @classmethod
    def zeros(cls, layout: Layout, dtype: Any = np.float32, xp: Any = np) -> Parameters:
        return cls(layout, xp.zeros(layout.size, dtype))

    def zeros_like(self) -> Parameters:
        return Parameters(self.layout, array_module(self.flat).zeros_like(self.flat))

    def to(self, xp: Any) -> Parameters:
        """The same values in `xp` (numpy or cupy), a copy. Not of a copy for reading."""
        self._check_rows()
        flat = self.flat.get() if hasattr(self.flat, "get") else self.flat
        return Parameters(self.layout, xp.array(flat))

    def astype(self, dtype: Any) -> Parameters:
        """The same values in `dtype`, a copy. Not of a copy for reading."""
        self._check_rows()
        return Parameters(self.layout, self.flat.astype(dtype))

    def _check_rows(self) -> None:
        if self.by_columns:  # its numbers lie in another order than a layout's
            raise TypeError("a copy for reading is only read: convert the parameters that it was made of")

    def for_reading(self) -> Parameters:
        """A copy whose matrices, all but the tables, lie column by column. x Wᵀ then reads W row
        after row, which a GEMM with few rows of x does up to twice as fast. For forward passes
        alone: its `flat` is no other's. On a GPU, and of such a copy, the same object."""
        if array_module(self.flat) is not np or self.by_columns:
            return self
        copy = Parameters(self.layout, self.flat.copy())
        copy.by_columns = True
        for slot in self.layout.slots:
            if len(slot.shape) == 2 and "embeddings" not in slot.name:
                start = self.layout.offsets[slot.name]
                view = copy.flat[start : start + math.prod(slot.shape)].reshape(slot.shape[::-1]).T
                view[...] = self._views[slot.name]
                copy._hold(slot, view)
        return copy

    def check_finite(self, what: str) -> None:
        """InputError names the first tensor that holds NaN or an infinity."""
        xp = array_module(self.flat)
        if not xp.isfinite(self.flat).all():
            name = next((name for name in self if not xp.isfinite(self[name]).all()), "between the tensors")
            raise InputError(f"{what}: tensor {name} has numbers that are not finite (NaN, infinity); train with a smaller learning rate")

    def _hold(self, slot: Slot, view: Array) -> None:
        self._views[slot.name] = view
        rows = slot.shape[0] // max(len(slot.members), 1)
        for i, member in enumerate(slot.members):
            self._views[member] = view[i * rows : (i + 1) * rows]

    def __getitem__(self, name: str) -> Array:
        for spelling in _spellings(name):
            if spelling in self._views:
                return self._views[spelling]
        raise KeyError(name)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, kept under `key`: views that are asked for at every step."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: Made = self._kept[key]
        return kept

    def __contains__(self, name: object) -> bool:
        return any(spelling in self._views for spelling in _spellings(str(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.names)

    def __len__(self) -> int:
        return len(self.layout.names)

    def __repr__(self) -> str:
        return f"Parameters({len(self)} tensors, {sum(self[name].size for name in self):,} numbers, {self.flat.dtype})"


def _spellings(name: str) -> tuple[str, ...]:
    """A bare encoder's files say `encoder.…`, those of a model with a head `bert.encoder.…`: either
    finds the tensor."""
    return (name, name[5:] if name.startswith("bert.") else "bert." + name)
