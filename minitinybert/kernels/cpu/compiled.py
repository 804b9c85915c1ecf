"""How passes are compiled, and which arrays they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import event

from ...engine.device import Array
from ...progress import log

# Division by zero gives infinity, as in NumPy: numba's own check of each divisor keeps a loop from
# being vectorised. Sums may be taken in any order, and a product may be added unrounded; nothing
# may be taken for granted about NaN and infinity, which must be seen.
OPTIONS = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
EXACT_ORDER = {"error_model": "numpy", "fastmath": {"contract"}}  # where the order of operations is what makes them accurate
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_OURS: set[Any] = set()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code, which is kept beside this file or in the user's cache. Other
    threads run meanwhile."""
    try:
        dispatcher = numba.njit(nogil=True, cache=True, **OPTIONS)(function)
    except RuntimeError:  # no folder can be written: compiled anew by each process
        dispatcher = numba.njit(nogil=True, **OPTIONS)(function)
    _OURS.add(dispatcher)
    return dispatcher


def fits(dtype: np.dtype, *arrays: tuple[Any, ...]) -> bool:
    """Whether machine code can have these arrays, each given as (array, shape) or (array, shape,
    dtype); None is no array, and fits.

    They must be NumPy's, without gaps, of these shapes, not empty, and float32 or float64 where no
    other dtype is said. A kernel that gets others returns NotImplemented: then the formula answers,
    or says what is wrong.
    """
    return dtype in _FLOATS and all(_fits(array, shape, *(kind or [dtype])) for array, shape, *kind in arrays)


def _fits(array: Array | None, shape: tuple[int, ...], dtype: Any) -> bool:
    if array is None:
        return True
    return type(array) is np.ndarray and array.shape == shape and array.dtype == dtype and array.flags.carray and array.size > 0


class _Announcement(event.Listener):
    """Says once that something is compiled, when it is: it takes seconds."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said and event.data.get("dispatcher") in _OURS:
            self.said = True
            log("compiling the CPU kernels, once for this machine…")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announcement())
