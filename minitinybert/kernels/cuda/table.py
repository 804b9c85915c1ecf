"""Which kernel replaces which operation on CuPy's arrays. Importing this registers them in `device.KERNELS`."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

from ...engine import device, memory, random
from ...losses import attention as attention_loss
from ...losses import cross_entropy, mse, prediction
from ...model import encoder, heads
from ...ops import add_norm, attention, dropout, embed_norm, gelu, layer_norm, linear
from ...training import optim
from . import attention as attention_kernels
from . import dropout as dropout_kernels
from . import gelu as gelu_kernels
from . import heads as heads_kernels
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
        (attention.forward, attention_kernels.forward),
        (attention.backward, attention_kernels.backward),
        (attention_loss.attend, attention_kernels.attend),
        (dropout.forward, dropout_kernels.forward),
        (dropout.backward, dropout_kernels.backward),
        (random.site_keys, dropout_kernels.site_keys),
        (memory.add_rows, rows.add_rows),
        (memory.sum_rows, rows.sum_rows),
        (memory.added, rows.added),
        (attention_loss.seen, losses.seen_scores),
        (mse.forward, losses.mse_forward),
        (mse.backward, losses.mse_backward),
        (cross_entropy.forward, losses.cross_entropy_forward),
        (cross_entropy.backward, losses.cross_entropy_backward),
        (prediction.forward, losses.prediction_forward),
        (prediction.backward, losses.prediction_backward),
        (heads.biased_tanh, heads_kernels.biased_tanh),
        (heads.through_tanh, heads_kernels.through_tanh),
        (optim.norm_factor, optim_kernels.norm_factor),
        (optim.clip_tensors, optim_kernels.clip_tensors),
        (optim.update, optim_kernels.update),
    )
}

device.KERNELS["cuda"].update(TABLE)
