"""What the formats of weights share: bfloat16, numbers that are finite, and a word on what is no
weights file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import AGAIN


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16, read as uint16, as float32: its bits are the upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def not_weights(path: Path, kind: str) -> InputError:
    """The error for a file that is not what its name says."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return InputError(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its directory")
    if not start:
        return InputError(f"{path}: the file is empty; {AGAIN}")
    return InputError(f"{path}: not {kind} (it begins with {start[:8]!r}); {AGAIN}")


def check_finite(tensor: np.ndarray, name: str, where: Path | str) -> None:
    """InputError where a tensor holds NaN or an infinity: a model with such weights says nothing,
    and an arg-max over its answers would hide that."""
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        count = int(tensor.size - np.isfinite(tensor).sum())
        raise InputError(f"{where}: tensor {name} has {count} numbers of {tensor.size} that are not finite (NaN, infinity); save it again")
