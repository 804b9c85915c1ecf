"""NumPy or CuPy: one source for both. The module of an array, moving arrays, and the few operations the two spell differently.

Operations never name a device: `xp = array_module(x)` and go on. Everything that differs between the two libraries is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special

from .errors import InputError

Array = Any  # numpy.ndarray or cupy.ndarray


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


def erf(x: Array) -> Array:
    """The error function of every element, same shape and dtype."""
    if array_module(x) is np:
        return scipy.special.erf(x)
    from cupyx.scipy.special import erf as cupy_erf

    return cupy_erf(x)
