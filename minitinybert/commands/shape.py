"""A model's sizes on one line, for random weights: 4L-312D-12H-1200F."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import InputError

_SHAPE = re.compile(r"(\d+)L-(\d+)D-(\d+)H-(\d+)F", re.IGNORECASE | re.ASCII)


def parse_shape(shape: str) -> dict[str, Any]:
    """"4L-312D-12H-1200F" as the four sizes by their config names. InputError where it is not of
    that form."""
    match = _SHAPE.fullmatch(shape.strip())
    if not match:
        raise InputError(f"{shape!r} is neither a model directory nor a shape such as 4L-312D-12H-1200F")
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = dict(zip(names, map(int, match.groups()), strict=True))
    if not all(sizes.values()):
        raise InputError(f"{shape}: layers, width, heads and feed-forward width are 1 at least")
    return sizes


def is_shape(text: str) -> bool:
    """Whether it begins as shapes do, and is no directory: then `parse_shape` says what is wrong
    with the rest."""
    return re.match(r"\s*\d+L", text, re.IGNORECASE | re.ASCII) is not None and not Path(text).exists()
