"""Which kernel replaces which operation on CuPy's arrays. Importing this registers them in
`device.KERNELS`."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

from ...distillation import scores
from ...engine import device, memory, random
from ...losses import cross_entropy, mse, prediction
from ...model import encoder
from ...ops import add_norm, dropout, embed_norm, embedding, gelu, layer_norm, linear
from ...training import optim
from . import dropout as dropout_kernels
from . import gelu as gelu_kernels
from . import layer, losses, norm, rows
from . import linear as linear_kernels
from . import optim as optim_kernels

TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    unwrap(operation): kernel
    for operation, kernel in (
        (encoder.forward, layer.forward),
        (encoder.backward, layer.backward),
        (encoder.masks, layer.masks),
        (linear.forward, linear_kernels.forward),
        (linear.backward, linear_kernels.backward),
        (gelu.forward, gelu_kernels.forward),
        (gelu.backward, gelu_kernels.backward),
        (layer_norm.forward, norm.layer_norm_forward),
        (layer_norm.backward, norm.layer_norm_backward),
        (add_norm.forward, norm.add_norm_forward),
        (add_norm.backward, norm.add_norm_backward),
        (embed_norm.forward, norm.embed_norm_forward),
        (embed_norm.backward, norm.embed_norm_backward),
        (embedding.add_rows, rows.add_rows),
        (dropout.forward, dropout_kernels.forward),
        (dropout.backward, dropout_kernels.backward),
        (random.site_keys, dropout_kernels.site_keys),
        (memory.added, rows.added),
        (scores.compare, losses.compare_scores),
        (mse.forward, losses.mse_forward),
        (mse.backward, losses.mse_backward),
        (cross_entropy.forward, losses.cross_entropy_forward),
        (cross_entropy.backward, losses.cross_entropy_backward),
        (prediction.forward, losses.prediction_forward),
        (prediction.backward, losses.prediction_backward),
        (optim.norm_factor, optim_kernels.norm_factor),
        (optim.clip_tensors, optim_kernels.clip_tensors),
        (optim.update, optim_kernels.update),
    )
}

device.KERNELS["cuda"].update(TABLE)
