"""What to install where something optional is missing: the module that is, and the extra that fits
the CUDA there is.

No advice brings a second CuPy beside the one there is: its packages share their files, and two in
one environment break each other.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from importlib import metadata
from typing import Any

_EXTRAS = {
    "mpi4py": "mpi", "torch": "reference", "onnx": "onnx", "onnxruntime": "onnx", "pyarrow": "parquet", "gensim": "vectors",
}  # fmt: skip
NUMBA = (0, 62)  # the oldest whose compiler knows llvm.maximum on x86
_WHEELS = {"cupy-cuda12x": 12, "cupy-cuda13x": 13}  # CuPy's packages that an extra of ours brings, and their CUDA


def hint(module: str) -> str:
    """How to install mpi4py, torch, onnx, pyarrow, gensim, ml_dtypes, nccl or cupy, which is CuPy 14
    with CUDA's libraries."""
    if module in _EXTRAS:
        return _install(_EXTRAS[module])
    match _cupys():
        case [wheel] if wheel in _WHEELS:
            return _install(f"{'nccl' if module == 'nccl' else 'cuda'}{_WHEELS[wheel]}")
        case [other]:  # conda's, compiled here, or of another CUDA: an extra would bring a wheel beside it
            return "pip install ml_dtypes" if module == "ml_dtypes" else f"install it the way {other} was installed"
        case several:
            return (f"pip uninstall {' '.join(several)}, then " if several else "") + _fitting_the_driver()


def no_cupy(error: ImportError) -> str:
    """Why CuPy cannot be imported, and what to do."""
    there = _cupys()
    if not there:
        return f"CuPy is not installed; {hint('cupy')}"
    said = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    why = said[-1] if said else "no reason given"  # CuPy frames its own, the cause comes last
    repair = f"pip install --force-reinstall {there[0]}" if len(there) == 1 and there[0] in _WHEELS else hint("cupy")
    return f"{' and '.join(there)} {'are' if len(there) > 1 else 'is'} installed but cannot be imported ({why}); {repair}"


@functools.cache
def no_numba() -> str:
    """Why the CPU's kernels cannot be compiled, and what to do; "" where they can."""
    try:
        import numba
    except ImportError as error:
        absent = error.name == "numba"
        why = "" if absent else f"numba cannot be imported ({error}); "
        return f"{why}{_install('fast')} makes a step about a quarter quicker"
    if tuple(map(int, numba.__version__.split(".")[:2])) < NUMBA:  # its compiler would end the process
        return f"numba {numba.__version__} is too old; {_install('fast')} brings {'.'.join(map(str, NUMBA))} or newer"
    return ""


def no_device(cupy: Any) -> str:
    """Why CuPy, which is there, finds no device: most often because the driver is older than its
    CUDA."""
    driver, own = (version() // 1000 for version in (cupy.cuda.runtime.driverGetVersion, cupy.cuda.runtime.runtimeGetVersion))
    if not 0 < driver < own:
        return "CuPy finds no CUDA device here"
    there = _cupys()
    replace = f", or pip uninstall {' '.join(there)}, then {_install(f'cuda{driver}')}"
    fits = driver in _WHEELS.values() and there and set(there) <= _WHEELS.keys()
    return f"the driver is of CUDA {driver}, {' and '.join(there) or 'CuPy'} of CUDA {own}: update the driver{replace if fits else ''}"


def _install(extra: str) -> str:
    return f"pip install 'minitinybert[{extra}]'"


def _fitting_the_driver() -> str:
    driver = _driver()
    if 0 < driver < 13:
        return _install("cuda12")
    return _install("cuda13") + ("" if driver else ", or [cuda12] for a driver of CUDA 12")


def _cupys() -> list[str]:
    """The packages that brought CuPy here, by name."""
    return sorted(set(metadata.packages_distributions().get("cupy", ())))


def _driver() -> int:
    """The newest CUDA that the driver runs, 12 or 13, asked without CuPy; 0 where there is no
    driver."""
    version = ctypes.c_int()
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value // 1000
