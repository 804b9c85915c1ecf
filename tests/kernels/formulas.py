"""The formulas that the CPU's kernels replace, under the kernels' names: the judge of tests/kernels/test_cpu.py."""

from inspect import unwrap

from minitinybert.distillation import scores
from minitinybert.losses import mse
from minitinybert.ops import add_norm, attention, dropout, embedding, gelu, layer_norm
from minitinybert.ops.add_norm import Cache as AddNorm  # noqa: F401  (for what calls the kernels)
from minitinybert.ops.attention import Weights  # noqa: F401
from minitinybert.ops.dropout import Cache as Dropout  # noqa: F401
from minitinybert.ops.gelu import Cache as Gelu  # noqa: F401
from minitinybert.ops.layer_norm import Cache as Norm  # noqa: F401
from minitinybert.ops.softmax import Cache as Softmax  # noqa: F401
from minitinybert.training import optim

gelu_forward, gelu_backward = unwrap(gelu.forward), unwrap(gelu.backward)
dropout_forward, dropout_backward = unwrap(dropout.forward), unwrap(dropout.backward)
layer_norm_forward, layer_norm_backward = unwrap(layer_norm.forward), unwrap(layer_norm.backward)
add_norm_forward, add_norm_backward = unwrap(add_norm.forward), unwrap(add_norm.backward)
weigh, weighed, weigh_backward = unwrap(attention.weigh), unwrap(attention.weighed), unwrap(attention.weigh_backward)
mse_forward, mse_backward, compare = unwrap(mse.forward), unwrap(mse.backward), unwrap(scores.compare)
add_rows, update = unwrap(embedding.add_rows), unwrap(optim.update)
