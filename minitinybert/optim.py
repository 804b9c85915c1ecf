"""Adam over the flat parameters, learning-rate schedules, gradient clipping.

    m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    AdamW (Loshchilov and Hutter 2019):   θ ← θ − lr (m̂/(√v̂ + ε) + λθ),   m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ)
    BertAdam (the released code, Google's BERT):   θ ← θ − lr (m/(√v + ε) + λθ)        no bias correction

λ, the decoupled weight decay, spares biases and LayerNorm: `flat[:layout.decay_end]` decays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .device import Array, array_module
from .memory import new
from .parallel import Workers
from .parameters import Parameters

A = TypeVar("A")
B = TypeVar("B")

_CHUNK = 64 * 1024  # elements: five arrays' chunks stay in the cache


@dataclass(frozen=True)
class AdamSettings:
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    bias_correction: bool = True
    clip: str = "global"  # "global", "tensor" (each tensor by itself) or "none"
    max_norm: float = 1.0


PRESETS = {
    "adamw": AdamSettings(),
    "bert-adam": AdamSettings(eps=1e-6, bias_correction=False, clip="tensor"),
}


class Adam:
    """The state (m, v, both of the parameters' layout, and t) and the step. One object for AdamW and BertAdam."""

    def __init__(self, parameters: Parameters, settings: AdamSettings = PRESETS["adamw"], workers: Workers | None = None):
        self.parameters, self.settings, self.workers = parameters, settings, workers
        self.m, self.v, self.t = parameters.zeros_like(), parameters.zeros_like(), 0

    def step(self, grads: Parameters, lr: float) -> None:
        """θ, m, v in place. `grads` has the parameters' layout; clipping each tensor scales it in place, else it stays what it is."""
        factor = self._clip(grads)
        self.t += 1
        self._on_all(self._chunks(), lambda chunk: self._update(*chunk, grads, factor, lr))

    def _on_all(self, chunks: Sequence[A], function: Callable[[A], B]) -> list[B]:
        """function of every chunk, each thread a stretch of them (a task a chunk would cost more than the chunk)."""
        if self.workers is None:
            return [function(chunk) for chunk in chunks]
        step = max(1, -(-len(chunks) // self.workers.threads))
        stretches = [chunks[i : i + step] for i in range(0, len(chunks), step)]
        return [b for part in self.workers.map(lambda stretch: [function(chunk) for chunk in stretch], stretches) for b in part]

    def _chunks(self) -> list[tuple[slice, float]]:
        """Stretches of the flat arrays, and the weight decay of each."""
        size, decay_end = self.parameters.layout.size, self.parameters.layout.decay_end
        step = _CHUNK if array_module(self.parameters.flat) is np else max(size, 1)
        regions = ((0, decay_end, self.settings.weight_decay), (decay_end, size, 0.0))
        return [(slice(i, min(i + step, last)), decay) for first, last, decay in regions for i in range(first, last, step)]

    def _clip(self, grads: Parameters) -> Array | None:
        """The factor that brings the whole gradient's norm to max_norm at most; None where there is none."""
        if self.settings.clip == "global":
            parts = [grads.flat[part] for part, _ in self._chunks()]
            return clip_factor(self._on_all(parts, lambda g: g @ g), self.settings.max_norm)
        if self.settings.clip == "tensor":
            for name in grads:
                g = grads[name].reshape(-1)
                g *= clip_factor([g @ g], self.settings.max_norm)
        return None

    def _update(self, part: slice, decay: float, grads: Parameters, factor: Array | None, lr: float) -> None:
        theta, gradient, m, v = (p.flat[part] for p in (self.parameters, grads, self.m, self.v))
        s, xp = self.settings, array_module(theta)
        g, scaled = new(theta.shape, theta), new(theta.shape, theta)
        xp.multiply(gradient, 1.0 if factor is None else factor, out=g)
        m *= s.beta1
        m += xp.multiply(g, 1 - s.beta1, out=scaled)
        v *= s.beta2
        v += xp.multiply(xp.multiply(g, g, out=g), 1 - s.beta2, out=scaled)
        correct1, correct2 = (1 - s.beta1**self.t, 1 - s.beta2**self.t) if s.bias_correction else (1.0, 1.0)
        update = xp.sqrt(v, out=g)
        update *= 1 / math.sqrt(correct2)
        update += s.eps
        xp.divide(m, update, out=update)
        update *= lr / correct1
        if decay:
            theta *= 1 - lr * decay
        theta -= update


def clip_factor(squares: Sequence[Array], max_norm: float) -> Array:
    """What scales a gradient, whose parts have these sums of squares, to a Euclidean norm of max_norm at most: a 0-d array on the
    gradient's device, which the host does not read."""
    xp, total = array_module(squares[0]), squares[0]
    for square in squares[1:]:
        total = total + square
    return xp.minimum(max_norm / (xp.sqrt(total) + 1e-6), 1).astype(squares[0].dtype)


def warmup_linear(step: int, total: int, warmup: int) -> float:
    """The factor of step 0 … total − 1: up to 1 over `warmup` steps, then down to 0 at `total`."""
    if step < warmup:
        return step / max(warmup, 1)
    return max(0.0, (total - step) / max(total - warmup, 1))


def warmup_constant(step: int, total: int, warmup: int) -> float:
    """Up to 1 over `warmup` steps, then 1."""
    return min(1.0, step / max(warmup, 1)) if warmup else 1.0


SCHEDULES = {"linear": warmup_linear, "constant": warmup_constant}
