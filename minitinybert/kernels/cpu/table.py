"""Which kernel replaces which operation on NumPy's arrays. Importing this registers them in
`device.KERNELS`."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

from ...distillation import scores
from ...engine import device
from ...losses import mse
from ...model import encoder
from ...ops import add_norm, attention, dropout, embedding, gelu, layer_norm
from ...training import optim
from . import layer, operations

TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    unwrap(operation): kernel
    for operation, kernel in (
        (encoder.forward, layer.forward),
        (gelu.forward, operations.gelu_forward),
        (gelu.backward, operations.gelu_backward),
        (layer_norm.forward, operations.layer_norm_forward),
        (layer_norm.backward, operations.layer_norm_backward),
        (add_norm.forward, operations.add_norm_forward),
        (add_norm.backward, operations.add_norm_backward),
        (dropout.forward, operations.dropout_forward),
        (dropout.backward, operations.dropout_backward),
        (attention.weigh, operations.weigh),
        (attention.weighed, operations.weighed),
        (attention.weigh_backward, operations.weigh_backward),
        (mse.forward, operations.mse_forward),
        (scores.compare, operations.compare),
        (embedding.add_rows, operations.add_rows),
        (optim.update, operations.update),
    )
}

device.KERNELS["cpu"].update(TABLE)
