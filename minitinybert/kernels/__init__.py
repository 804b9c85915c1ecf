"""Fused kernels: an operation's passes over its arrays in one, in CUDA C. Each replaces, on CuPy arrays, the operation whose formula
stands at its head, with the same signature, Cache and numbers (tests/gpu/test_kernels.py); `device.fused` looks it up here.
"""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

from ..ops import add_norm as _add_norm
from ..ops import gelu as _gelu
from ..ops import layer_norm as _layer_norm
from . import gelu, norm

TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    unwrap(operation): kernel
    for operation, kernel in (
        (_gelu.forward, gelu.forward),
        (_gelu.backward, gelu.backward),
        (_layer_norm.forward, norm.layer_norm_forward),
        (_layer_norm.backward, norm.layer_norm_backward),
        (_add_norm.forward, norm.add_norm_forward),
        (_add_norm.backward, norm.add_norm_backward),
    )
}
