"""NumPy or CuPy: one source for both. The module of an array, moving arrays, and the few operations the two spell differently.

Operations never name a device: `xp = array_module(x)` and go on. Everything that differs between the two libraries is here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import scipy.special

from .errors import InputError

Array = Any  # numpy.ndarray or cupy.ndarray
F = TypeVar("F", bound=Callable[..., Any])


def fused(operation: F) -> F:
    """`operation` as it is written on NumPy's arrays. On CuPy's, where kernels/ has one for it, a kernel of the same signature."""

    @functools.wraps(operation)
    def on_its_device(*arguments: Any, **options: Any) -> Any:
        first = arguments[0] if arguments else next(iter(options.values()))
        function = operation if isinstance(first, np.ndarray) else _kernel(operation)
        return function(*arguments, **options)

    return cast(F, on_its_device)


@functools.cache
def _kernel(operation: Callable[..., Any]) -> Callable[..., Any]:
    from .kernels import TABLE

    return TABLE.get(operation, operation)


def array_module(x: Array) -> Any:
    """numpy or cupy, whichever made `x`."""
    if isinstance(x, (np.ndarray, np.generic)):
        return np
    import cupy

    return cupy


def select(device: str) -> Any:
    """The array module of `device` ("cpu", "cuda" or "cuda:N"); makes device N current. InputError when there is none."""
    if device == "cpu":
        return np
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise InputError(f"--device {device}: choose cpu, cuda or cuda:N")
    try:
        import cupy
    except ImportError:
        raise InputError(f"--device {device}: CuPy is not installed; pip install 'minitinybert[cuda]'") from None
    if not cupy.cuda.is_available():
        raise InputError(f"--device {device}: CuPy finds no CUDA device here; use --device cpu")
    index = int(number or 0)
    if index >= cupy.cuda.runtime.getDeviceCount():
        raise InputError(f"--device {device}: there are only {cupy.cuda.runtime.getDeviceCount()} devices")
    cupy.cuda.Device(index).use()
    return cupy


def to_host(x: Array) -> np.ndarray:
    """`x` as a NumPy array; copies only from a device."""
    return x if isinstance(x, np.ndarray) else np.asarray(x.get() if hasattr(x, "get") else x)


def on_host(value: Any) -> Any:
    """Lists and dicts of arrays, all of them on the host; what is no array stays as it is."""
    if isinstance(value, dict):
        return {name: on_host(part) for name, part in value.items()}
    if isinstance(value, list):
        return [on_host(part) for part in value]
    return to_host(value) if hasattr(value, "get") else value


def erf(x: Array) -> Array:
    """The error function of every element, same shape and dtype."""
    if array_module(x) is np:
        return scipy.special.erf(x)
    from cupyx.scipy.special import erf as cupy_erf

    return cupy_erf(x)


_FEW_ROWS = 1024  # of a table


def add_rows_on_device(table: Array, ids: Array, rows: Array) -> None:
    """`memory.add_rows` on a GPU, every sum in a fixed order, so that a run can be repeated bit for bit (`add.at` has atomics in any).

    A small table, whose ids come again and again, by a GEMM with the ids as unit vectors. Of a large one, whoever holds an id first
    gathers all its rows in their order. (A sort would wait for the device.)
    """
    xp = array_module(table)
    if not len(ids):
        return
    if len(table) <= _FEW_ROWS:
        table += (xp.arange(len(table), dtype=ids.dtype)[:, None] == ids).astype(rows.dtype) @ rows
        return
    follow, gather = _row_kernels()
    after = xp.empty(len(ids), np.int32)
    follow(ids, len(ids), after)
    gather(ids, after, rows, rows.shape[1], table, size=rows.size)


@functools.cache
def _row_kernels() -> tuple[Any, Any]:
    import cupy

    follow = cupy.ElementwiseKernel(  # after: the next place with the same id, or n; negative (−1 − that) where an earlier one has it
        "raw I ids, int32 n",
        "int32 after",
        """
        int earlier = 0, next = i + 1;
        while (earlier < i && ids[earlier] != ids[i]) ++earlier;
        while (next < n && ids[next] != ids[i]) ++next;
        after = earlier < i ? -1 - next : next;
        """,
        "minitinybert_follow",
    )
    gather = cupy.ElementwiseKernel(
        "raw I ids, raw int32 after, raw T rows, int32 d",
        "raw T table",
        """
        const int first = i / d, column = i % d, n = after.size();
        if (after[first] >= 0) {
            T sum = 0;
            for (int t = first; t < n; t = after[t] < 0 ? -1 - after[t] : after[t]) sum += rows[(ptrdiff_t)t * d + column];
            table[(ptrdiff_t)ids[first] * d + column] += sum;
        }
        """,
        "minitinybert_gather",
    )
    return follow, gather
