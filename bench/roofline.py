"""What a distillation step asks of a GPU at least: every kernel's FLOPs, the bytes it reads and writes once, its launches.

A kernel can be no quicker than its FLOPs at the peak of the units that it uses (products by cuBLAS may have tensor cores; all else, the
products of attention too, is ours, in float32 on CUDA cores), nor than its bytes at its bandwidth (the roofline: Williams, Waterman,
Patterson, CACM 2009; bytes that a cache still holds from the kernel before are quicker); a step can be no quicker than its launches one
after the other, as long as the host takes to ask for each. The kernels are ours, in the order of `Bert.forward_batch` and `backward`;
fills and products by cuBLAS count as launches too. Packed batches of T tokens and P = Σ L² pairs, every loss of the paper, global
clipping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from minitinybert.model.bert import layout
from minitinybert.model.config import Config


class Work(NamedTuple):
    flops: float
    bytes: float
    launches: int = 1
    products: bool = False  # by cuBLAS


class Peaks(NamedTuple):
    """Of a device: FLOP/s of cuBLAS's products and of CUDA cores in float32, bytes/s, and the seconds of a launch."""

    products: float
    cores: float
    bytes: float
    launch: float


def floors(kernels: Iterable[Work], peaks: Peaks) -> dict[str, float]:
    """Totals of some kernels, and milliseconds to hold a measured time against: `launches_ms`, all launches, and `roofline_ms`, each
    kernel at the slower of arithmetic and memory; of that, `products_ms`, `cores_ms` and `memory_ms` are of the kernels held by each."""
    kernels = list(kernels)
    totals: dict[str, float] = {name: sum(getattr(work, name) for work in kernels) for name in ("flops", "bytes", "launches")}
    held = dict.fromkeys(("products_ms", "cores_ms", "memory_ms"), 0.0)
    for work in kernels:
        units, peak = ("products_ms", peaks.products) if work.products else ("cores_ms", peaks.cores)
        arithmetic, memory = work.flops / peak, work.bytes / peaks.bytes
        held[units if arithmetic > memory else "memory_ms"] += 1e3 * max(arithmetic, memory)
    return {**totals, "roofline_ms": sum(held.values()), **held, "launches_ms": 1e3 * totals["launches"] * peaks.launch}


def teacher(c: Config, student: Config, S: int, T: int, P: int, itemsize: int) -> Iterator[Work]:
    """The forward pass without dropout, all layers and the head; it hands out as many layers' scores as the student has layers.
    S sentences; itemsize of its dtype in bytes."""
    seen = student.num_hidden_layers
    yield from _forward(c, S, T, P, itemsize, [itemsize] * seen + [0] * (c.num_hidden_layers - seen), training=False)


def student(c: Config, teacher: Config, S: int, T: int, P: int, teacher_itemsize: int) -> Iterator[Work]:
    """Forward with dropout, losses, backward, clipping and Adam, in float32."""
    size, d, M = 4, c.hidden_size, c.num_hidden_layers
    yield Work(0, 8 * T * (3 * M + 2))  # the dropout keys
    yield from _forward(c, S, T, P, size, [size] * M, training=True)
    for _ in range(M):  # attention losses: the error and its gradient in one
        yield Work(0, c.num_attention_heads * P * (2 * size + teacher_itemsize))
    for _ in range(M + 1):  # embedding and hidden losses: the projection, forward and twice back; the error and its gradient in one
        yield from _products(3, T, teacher.hidden_size, d, size)
        yield Work(0, T * teacher.hidden_size * (2 * size + teacher_itemsize))
        yield Work(0, 3 * T * d * size)  # what the loss says of these rows, added to their gradient
        yield Work(0, 0)  # its weight
    if M > 1:  # W_h has one gradient from each layer, and two losses are sums
        yield Work(0, (M + 1) * d * teacher.hidden_size * size)
        yield Work(0, 0, 2)
    yield Work(0, 0, 3)  # the prediction loss of a few logits: each sentence's, their sum, its gradient
    yield from _products(2, S, c.num_labels, d, size)
    yield from _products(2, S, d, d, size)
    yield Work(0, 16 * S * d * size, HEAD)  # the gradients of its biases, dropout and tanh, and into the rows of [CLS]
    for _ in range(M):
        yield from _layer_backward(c, T, P, size)
    yield Work(0, 3 * T * d * size + T * d, 2)  # the embeddings' dropout and layer norm; its sums of columns
    # The rows of the tables, cleared and added to: the words' ids are sorted before, few positions and segments are products.
    yield Work(0, 6 * T * d * size, TABLES)
    n = layout(c).size
    tables = (c.vocab_size + c.max_position_embeddings + c.type_vocab_size) * d
    yield Work(0, (n - tables) * size)  # the gradient, filled with zeros, but for the tables
    yield Work(2 * n, n * size)  # its norm
    yield Work(12 * n, 7 * n * size)  # Adam: reads θ, g, m and v, writes θ, m and v


HEAD, TABLES = 11, 9  # launches


def _forward(c: Config, S: int, T: int, P: int, size: int, scores: Sequence[int], training: bool) -> Iterator[Work]:
    """scores: by layer, the bytes of each that attention reads or writes."""
    d = c.hidden_size
    yield Work(0, (4 + training) * T * d * size + training * T * d)  # words, positions, segments -> x̂ and y
    for each in scores:
        yield from _layer_forward(c, T, P, size, each, training)
    yield from _products(1, S, d, d, size)
    yield from _products(1, S, c.num_labels, d, size)
    yield Work(0, 8 * S * d * size, 6 if training else 4)  # the first rows, tanh, the biases; dropout and its keys


def _layer_forward(c: Config, T: int, P: int, size: int, of_score: int, training: bool) -> Iterator[Work]:
    d, f, h = c.hidden_size, c.intermediate_size, c.num_attention_heads
    for wide, narrow in ((3 * d, d), (d, d), (f, d), (f, d)):
        yield from _products(1, T, wide, narrow, size)
    yield Work(4 * P * d, 4 * T * d * size + h * P * (of_score + training * (size + 1)))  # q, k, v -> c; scores, probabilities, mask
    yield Work(0, (1 + 1 + training) * T * f * size)  # GELU, and its slope
    for _ in range(2):
        yield Work(0, (3 + training) * T * d * size + training * T * d)  # a and x -> x̂ and y


def _layer_backward(c: Config, T: int, P: int, size: int) -> Iterator[Work]:
    d, f, h = c.hidden_size, c.intermediate_size, c.num_attention_heads
    for wide, narrow in ((3 * d, d), (d, d), (f, d), (f, d)):
        yield from _products(2, T, wide, narrow, size)  # two of them added to what goes round
    yield Work(4 * P * d, (4 * T * d + 3 * h * P) * size + h * P)  # by queries: dA, dq
    yield Work(4 * P * d, (4 * T * d + 2 * h * P) * size + h * P)  # by keys: dk, dv
    yield Work(0, 3 * T * d * size)  # the bias of q, k and v
    yield Work(0, 3 * T * f * size)  # GELU and its bias
    for _ in range(2):
        yield Work(0, 4 * T * d * size + T * d, 2)  # dy, x̂ -> da, dx; sums of columns


def _products(count: int, rows: int, wide: int, narrow: int, size: int) -> Iterator[Work]:
    """Matrix products (rows, narrow) × (narrow, wide), or with any of the three as the result."""
    for _ in range(count):
        yield Work(2 * rows * wide * narrow, (rows * narrow + narrow * wide + rows * wide) * size, products=True)
