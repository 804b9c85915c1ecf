"""The state of a run in one file: weights and both moments by tensor names, and the step; written
beside, then renamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..engine.device import array_module, to_host
from ..errors import InputError
from ..files import replacing
from .optim import Adam

_PARTS = ("parameters", "m", "v")


def save_state(path: Path, adam: Adam, state: dict[str, Any]) -> None:
    """Write parameters and moments by name, and `state` (anything JSON holds)."""
    tensors = {f"{part}/{name}": to_host(values[name]) for part, values in _parts(adam).items() for name in values}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        save_file(tensors, beside, metadata={"state": json.dumps({**state, "t": adam.t})})


def load_state(path: Path, adam: Adam) -> dict[str, Any]:
    """Fill `adam`'s parameters and moments in place; returns the state. InputError names a tensor
    that does not fit."""
    state = read_state(path)
    t = state.pop("t", None)
    if not is_count(t):
        raise _unreadable(path, f"t is {type(t).__name__}, not a number of steps")
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            for part, values in _parts(adam).items():
                for name in values:
                    if f"{part}/{name}" not in names:
                        raise InputError(f"{path}: no tensor {part}/{name}; use a new --out")
                    tensor = file.get_tensor(f"{part}/{name}")
                    if tensor.shape != values[name].shape:
                        raise InputError(f"{path}: tensor {part}/{name} is {tensor.shape}, the model's {values[name].shape}")
                    if tensor.dtype != values[name].dtype:
                        raise InputError(f"{path}: tensor {part}/{name} is {tensor.dtype}, the model's {values[name].dtype}")
                    values[name][...] = array_module(values.flat).asarray(tensor)
    # the library asks NumPy for a dtype by whatever name stands there: AttributeError
    except (SafetensorError, AttributeError, TypeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from None
    adam.t = t
    return state


def read_state(path: Path) -> dict[str, Any]:
    """What `save_state` was given as the state, without the arrays. InputError where it cannot be
    read."""
    try:
        with safe_open(path, framework="numpy") as file:
            state = json.loads(file.metadata()["state"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise _unreadable(path, error) from None
    if not isinstance(state, dict):
        raise _unreadable(path, f"its state is a JSON {type(state).__name__}")
    return state


def is_count(value: Any) -> bool:
    """Whether what a file says can be a number of steps."""
    return type(value) is int and 0 <= value < 2**53


def _unreadable(path: Path, error: Exception | str) -> InputError:
    return InputError(f"{path}: not a checkpoint that can be read ({error}); remove it to start again")


def _parts(adam: Adam) -> dict[str, Any]:
    return dict(zip(_PARTS, (adam.parameters, adam.m, adam.v), strict=True))
