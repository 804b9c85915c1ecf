"""What the formats of weights share: bfloat16, and a word on what is no weights file."""

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
