"""Adam over the flat parameters, learning-rate schedules, gradient clipping.

    m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    AdamW (Loshchilov and Hutter 2019):   θ ← θ − lr (m̂/(√v̂ + ε) + λθ),   m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ)
    BertAdam (the released code, Google's BERT):   θ ← θ − lr (m/(√v + ε) + λθ)        no bias correction

λ, the decoupled weight decay, spares biases and LayerNorm: `flat[:layout.decay_end]` decays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .device import array_module
from .errors import InputError
from .parameters import Parameters

_CHUNK = 128 * 1024  # elements: five arrays' chunks stay in the cache


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

    def __init__(self, parameters: Parameters, settings: AdamSettings = PRESETS["adamw"], map_chunks: Callable = map):
        """map_chunks(function, chunks): `map`, or a pool's, to work on several chunks at once."""
        self.parameters, self.settings, self.map_chunks = parameters, settings, map_chunks
        self.m, self.v, self.t = parameters.zeros_like(), parameters.zeros_like(), 0

    def step(self, grads: Parameters, lr: float) -> None:
        """θ, m, v in place. `grads` has the parameters' layout and is used up (clipped in place)."""
        clip(grads, self.settings.clip, self.settings.max_norm)
        self.t += 1
        list(self.map_chunks(lambda chunk: self._update(chunk[0], chunk[1], grads, lr), self._chunks()))

    def _chunks(self) -> list[tuple[slice, float]]:
        """Stretches of the flat arrays, and the weight decay of each."""
        size, decay_end = self.parameters.layout.size, self.parameters.layout.decay_end
        step = _CHUNK if array_module(self.parameters.flat) is np else max(size, 1)
        regions = ((0, decay_end, self.settings.weight_decay), (decay_end, size, 0.0))
        return [(slice(i, min(i + step, last)), decay) for first, last, decay in regions for i in range(first, last, step)]

    def _update(self, part: slice, decay: float, grads: Parameters, lr: float) -> None:
        theta, g, m, v = (p.flat[part] for p in (self.parameters, grads, self.m, self.v))
        s, xp = self.settings, array_module(theta)
        m *= s.beta1
        m += (1 - s.beta1) * g
        v *= s.beta2
        g *= g
        g *= 1 - s.beta2
        v += g
        correct1, correct2 = (1 - s.beta1**self.t, 1 - s.beta2**self.t) if s.bias_correction else (1.0, 1.0)
        update = xp.sqrt(v, out=g)
        update *= 1 / math.sqrt(correct2)
        update += s.eps
        xp.divide(m, update, out=update)
        update *= lr / correct1
        if decay:
            theta *= 1 - lr * decay
        theta -= update


def clip(grads: Parameters, kind: str, max_norm: float) -> None:
    """Scale the gradient down, in place, to a Euclidean norm of at most max_norm: all of it ("global"), or each tensor by itself
    ("tensor", as BertAdam does). The host reads nothing: the factor stays an array on the gradient's device."""
    if kind == "none":
        return
    if kind not in ("global", "tensor"):
        raise InputError(f"clip {kind!r}: choose global, tensor or none")
    xp = array_module(grads.flat)
    for g in [grads.flat] if kind == "global" else [grads[name].reshape(-1) for name in grads]:
        norm = xp.sqrt(g @ g)
        g *= xp.minimum(max_norm / (norm + 1e-6), 1).astype(g.dtype)


def warmup_linear(step: int, total: int, warmup: int) -> float:
    """The factor of step 0 … total − 1: up to 1 over `warmup` steps, then down to 0 at `total`."""
    if step < warmup:
        return step / max(warmup, 1)
    return max(0.0, (total - step) / max(total - warmup, 1))


def warmup_constant(step: int, total: int, warmup: int) -> float:
    """Up to 1 over `warmup` steps, then 1."""
    return min(1.0, step / max(warmup, 1)) if warmup else 1.0


SCHEDULES = {"linear": warmup_linear, "constant": warmup_constant}
