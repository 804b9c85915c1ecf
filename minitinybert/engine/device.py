"""NumPy or CuPy: one source for both. The module of an array, moving arrays, and the few operations
the two spell differently.

Operations never name a device: `xp = array_module(x)` and go on. Almost all that differs
between the two libraries is here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from ..errors import InputError

Array = Any  # numpy.ndarray or cupy.ndarray
F = TypeVar("F", bound=Callable[..., Any])

# By device, by the operation that each replaces there: machine.py brings them.
KERNELS: dict[str, dict[Callable[..., Any], Callable[..., Any]]] = {"cpu": {}, "cuda": {}}


def fused(operation: F) -> F:
    """`operation` as it is written; where KERNELS has one for it on the device of its first array,
    a kernel of the same signature. A kernel that does not take such arrays returns NotImplemented,
    and the operation answers as it is written."""

    @functools.wraps(operation)
    def on_its_device(*arguments: Any, **options: Any) -> Any:
        kernel = _kernel(operation, "cuda" if _on_host((*arguments, *options.values())) is False else "cpu")
        answer = kernel(*arguments, **options)
        return operation(*arguments, **options) if answer is NotImplemented else answer

    return cast(F, on_its_device)


def _on_host(arguments: tuple[Any, ...]) -> bool | None:
    """Where the first array lies, of an operation's arguments or of a cache among them; None: there
    is none."""
    for a in arguments:
        if isinstance(a, np.ndarray):
            return True
        if isinstance(a, tuple):
            found = _on_host(a)
            if found is not None:
                return found
        elif hasattr(a, "dtype") and not isinstance(a, np.generic):
            return False
    return None


def _kernel(operation: Callable[..., Any], device: str) -> Callable[..., Any]:
    if device == "cuda" and not KERNELS[device]:
        raise InputError("the kernels of CuPy's arrays are not there yet: take CuPy from minitinybert.machine.select")
    return KERNELS[device].get(operation, operation)


def array_module(x: Array) -> Any:
    """numpy or cupy, whichever made `x`."""
    if isinstance(x, (np.ndarray, np.generic)):
        return np
    import cupy

    return cupy


def to_host(x: Array) -> np.ndarray:
    """`x` as a NumPy array; copies only from a device."""
    return x if isinstance(x, np.ndarray) else np.asarray(x.get() if hasattr(x, "get") else x)


def move(arrays: Sequence[Array | None], xp: Any) -> list[Array | None]:
    """The arrays in `xp` (numpy or cupy), each None as it is. What lies on the host goes to a
    device in one copy: a copy costs the host as much as ten launches, however little it copies."""
    if xp is np:
        return [None if a is None else to_host(a) for a in arrays]
    offsets, size = [], 0
    for a in arrays:
        offsets.append(size)
        size += -(-a.nbytes // 256) * 256 if isinstance(a, np.ndarray) else 0  # each as an allocation of its own would begin
    packed = np.empty(size, np.uint8)
    for a, offset in zip(arrays, offsets, strict=True):
        if isinstance(a, np.ndarray):
            packed[offset : offset + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    there = xp.asarray(packed).data
    at = lambda a, offset: xp.ndarray(a.shape, a.dtype, there + offset) if isinstance(a, np.ndarray) else a
    return [at(a, offset) for a, offset in zip(arrays, offsets, strict=True)]


def on_host(value: Any) -> Any:
    """Lists and dicts of arrays, all of them on the host; what is no array stays as it is."""
    if isinstance(value, dict):
        return {name: on_host(part) for name, part in value.items()}
    if isinstance(value, list):
        return [on_host(part) for part in value]
    return to_host(value) if hasattr(value, "get") else value


def add_product(a: Array, b: Array, out: Array) -> None:
    """out += a b, of matrices."""
    if array_module(a) is np:
        out += a @ b
        return
    from cupy.cublas import gemm

    gemm("N", "N", a, b, out=out, beta=1.0)


def erf(x: Array) -> Array:
    """The error function of every element, same shape and dtype."""
    if array_module(x) is np:
        from scipy.special import erf as of_float64  # here, as SciPy takes longer to come than a float32 model to answer

        return of_float64(x)
    from cupyx.scipy.special import erf as cupy_erf

    return cupy_erf(x)
