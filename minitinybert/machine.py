"""Where a command runs: --device, --threads, ranks. This is what brings a device's kernels, which
stand above all that they replace."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np

from . import extras
from .distillation.recipes import Recipe
from .engine.parallel import Workers
from .engine.ranks import ALONE, Ranks
from .errors import InputError
from .model.bert import Bert


class Machine:
    """Where a command runs: the array module of --device, the threads of --threads, which rank of
    how many this process is, and in what dtype frozen teachers answer."""

    def __init__(self, device_name: str = "cpu", threads: int | None = None, ranks: Ranks = ALONE, teacher_dtype: str = "float32"):
        self.device_name = device_name
        self.xp = select(ranks.device(device_name))
        if self.xp is np and teacher_dtype != "float32":
            raise InputError(f"--teacher-dtype {teacher_dtype}: CPUs multiply float32; choose --device cuda, or leave it out")
        self.teacher_dtype = float_type(teacher_dtype)
        self.workers = Workers(threads if self.xp is np else 1, ranks)

    def __enter__(self) -> Machine:
        self.workers.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.workers.__exit__(*error)

    def frozen(self, teacher: Bert) -> Bert:
        """The teacher where and as it answers."""
        return teacher.to(self.xp).astype(self.teacher_dtype)

    def conditions(self, recipe: Recipe) -> dict[str, Any]:
        """What must be the same for a distillation to go on where it was: every switch of the
        recipe, and how the teacher answers."""
        return {**asdict(recipe), "teacher_dtype": self.teacher_dtype.name}


def select(device: str) -> Any:
    """The array module of `device` ("cpu", "cuda" or "cuda:N"), with its kernels; makes device N
    current. InputError when there is none."""
    if device == "cpu":
        _bring_cpu_kernels()
        return np
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise InputError(f"--device {device}: choose cpu, cuda or cuda:N")
    try:
        import cupy
    except ImportError as error:
        raise InputError(f"--device {device}: {extras.no_cupy(error)}") from None
    if not cupy.cuda.is_available():
        raise InputError(f"--device {device}: {extras.no_device(cupy)} (--device cpu needs none)")
    index = int(number or 0)
    if index >= cupy.cuda.runtime.getDeviceCount():
        raise InputError(f"--device {device}: there are only {cupy.cuda.runtime.getDeviceCount()} devices")
    cupy.cuda.Device(index).use()
    try:
        cupy.ones((2, 2), cupy.float32) @ cupy.ones((2, 2), cupy.float32)
    except Exception as error:  # whatever it is that CUDA's libraries lack
        why = str(error).strip().splitlines()[0]
        raise InputError(f"--device {device}: CUDA's libraries cannot be used ({why}); {extras.hint('cupy')}") from None
    from .kernels.cuda import table  # noqa: F401  its import registers the kernels

    return cupy


def _bring_cpu_kernels() -> None:
    """Those that numba compiles, where it is installed; MINITINYBERT_NUMBA=0: none, but NumPy's
    passes as they are written."""
    if os.environ.get("MINITINYBERT_NUMBA") != "0" and not extras.no_numba():
        from .kernels.cpu import table  # noqa: F401  its import registers the kernels


def float_type(name: str) -> np.dtype:
    """The dtype "float32", "float16" or "bfloat16". InputError where ml_dtypes or CuPy 14, which
    know the last, are not there."""
    if name == "bfloat16":
        try:
            import cupy
        except ImportError as error:
            raise InputError(f"bfloat16: {extras.no_cupy(error)}") from None
        try:
            import ml_dtypes  # noqa: F401  its import makes the name known to NumPy
        except ImportError:
            raise InputError(f"bfloat16 needs ml_dtypes; {extras.hint('ml_dtypes')}") from None
        if int(cupy.__version__.split(".")[0]) < 14:
            raise InputError(f"bfloat16 needs CuPy 14, here is {cupy.__version__}: choose float16, or {extras.hint('cupy')}")
    return np.dtype(name)


def allow_tf32(device: str) -> None:
    """Products of float32 matrices on tensor cores, of numbers rounded to 10 bits behind the point
    and summed in float32, from the first product of this process on: CuPy asks the environment
    then. Attention's products are kernels of ours, and stay float32. InputError on a CPU.
    """
    if device == "cpu":
        raise InputError("--tf32 is a way of GPUs to multiply: choose --device cuda, or leave it out")
    os.environ["CUPY_TF32"] = "1"
