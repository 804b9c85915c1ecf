"""Which kernel replaces which operation on NumPy's arrays. Importing this registers them in `device.KERNELS`."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

from ...engine import device, memory
from ...ops import dropout
from ...training import optim
from . import operations

TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    unwrap(operation): kernel
    for operation, kernel in (
        (dropout.forward, operations.dropout_forward),
        (dropout.backward, operations.dropout_backward),
        (memory.add_rows, operations.add_rows),
        (optim.update, operations.update),
    )
}

device.KERNELS["cpu"].update(TABLE)
