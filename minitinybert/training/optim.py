"""Adam over the flat parameters, learning-rate schedules, gradient clipping.

    m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    AdamW (Loshchilov and Hutter 2019):   θ ← θ − lr (m̂/(√v̂ + ε) + λθ),   m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ)
    BERT's own and the released code's BertAdam:   θ ← θ − lr (m/(√v + ε) + λθ)        no bias correction

λ, the decoupled weight decay, spares biases and LayerNorm: `flat[:layout.decay_end]` decays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from ..engine.device import Array, array_module, fused
from ..engine.parallel import Workers
from ..model.parameters import Layout, Parameters

A = TypeVar("A")
B = TypeVar("B")

_CHUNK = 256 * 1024  # elements, of five arrays: they stay in the cache, and a call is little beside them


@dataclass(frozen=True)
class AdamSettings:
    """The constants of the formulas above; `max_norm` bounds the gradient's Euclidean norm before
    the step."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01  # λ
    bias_correction: bool = True
    clip: str = "global"  # "global", "tensor" (each tensor by itself) or "none"
    max_norm: float = 1.0


PRESETS = {
    "adamw": AdamSettings(),
    "bert": AdamSettings(eps=1e-6, bias_correction=False),
    "bert-adam": AdamSettings(eps=1e-6, bias_correction=False, clip="tensor"),
}


class Adam:
    """The state (m, v, both of the parameters' layout, and t) and the step. One object for AdamW
    and BertAdam.

    passed_over: the tensors, by name, that no step changes, weight decay and all: BertAdam's way
    with what has no gradient.
    """

    def __init__(
        self,
        parameters: Parameters,
        settings: AdamSettings = PRESETS["adamw"],
        workers: Workers | None = None,
        passed_over: Container[str] = (),
    ):
        self.parameters, self.settings, self.workers = parameters, settings, workers
        self.regions = _regions(parameters.layout, passed_over)
        self.m, self.v, self.t = parameters.zeros_like(), parameters.zeros_like(), 0
        self.bounds = array_module(parameters.flat).asarray(np.array(parameters.layout.bounds, np.int64))

    def step(self, grads: Parameters, lr: float) -> None:
        """θ, m, v in place. `grads` has the parameters' layout; clipping each tensor scales it in
        place, else it stays what it is."""
        factor = self._clip(grads)
        self.t += 1
        scalars, decay_end = scalars_of(self.settings, lr, self.t), self.parameters.layout.decay_end

        def of(chunk: slice) -> None:
            stretch = Stretch(*(p.flat[chunk] for p in (self.parameters, grads, self.m, self.v)))
            update(stretch, scalars, decay_end - chunk.start, factor)

        self._on_all(self._chunks(), of)

    def _on_all(self, chunks: Sequence[A], function: Callable[[A], B]) -> list[B]:
        """function of every chunk, each thread a stretch of them (a task a chunk would cost more
        than the chunk)."""
        if self.workers is None:
            return [function(chunk) for chunk in chunks]
        step = max(1, -(-len(chunks) // self.workers.threads))
        stretches = [chunks[i : i + step] for i in range(0, len(chunks), step)]
        return [b for part in self.workers.map(lambda stretch: [function(chunk) for chunk in stretch], stretches) for b in part]

    def _chunks(self) -> list[slice]:
        """Stretches of the flat arrays; on a GPU as few as there can be."""
        decay_end = self.parameters.layout.decay_end
        if array_module(self.parameters.flat) is not np:
            return [slice(*region) for region in self.regions]
        halves = [half for first, last in self.regions for half in ((first, min(last, decay_end)), (max(first, decay_end), last))]
        return [slice(i, min(i + _CHUNK, last)) for first, last in halves for i in range(first, last, _CHUNK)]

    def _clip(self, grads: Parameters) -> Array | None:
        """The factor that brings the whole gradient's norm to max_norm at most; None where there is
        none."""
        if self.settings.clip == "global":
            parts = [grads.flat[part] for part in self._chunks()]
            if len(parts) == 1:
                return norm_factor(parts[0], self.settings.max_norm)
            return clip_factor(self._on_all(parts, lambda g: g @ g), self.settings.max_norm)
        if self.settings.clip == "tensor":
            clip_tensors(grads.flat, self.bounds, self.settings.max_norm)
        return None


def _regions(layout: Layout, passed_over: Container[str]) -> list[tuple[int, int]]:
    """Where the tensors lie that are not passed over: (start, stop) of stretches of the flat array,
    as few as there can be."""
    if not any(name in passed_over for name in layout.names):
        return [(0, layout.size)]
    regions: list[tuple[int, int]] = []
    begun = False
    for (start, stop), name in sorted(zip(layout.bounds, layout.names, strict=True)):
        if begun and name not in passed_over:
            regions[-1] = (regions[-1][0], stop)
        elif name not in passed_over:
            regions.append((start, stop))
        begun = name not in passed_over
    return regions


class Stretch(NamedTuple):
    """One stretch of each of the flat arrays, (n,)."""

    theta: Array
    gradient: Array
    m: Array
    v: Array


class Scalars(NamedTuple):
    """The numbers of a step, with the bias corrections c₁ and c₂."""

    beta1: float
    rest1: float  # 1 − β₁
    beta2: float
    rest2: float  # 1 − β₂
    root: float  # 1/√c₂
    eps: float
    rate: float  # lr/c₁
    shrink: float  # 1 − lr λ


@fused
def update(stretch: Stretch, scalars: Scalars, decay_end: int, factor: Array | None) -> None:
    """Adam's step in place: θ, m and v of a stretch, of which [:decay_end] decays (none of it where
    that is negative). factor () scales the gradient, which stays as it is."""
    theta, gradient, m, v = stretch
    beta1, rest1, beta2, rest2, root, eps, rate, shrink = scalars
    xp = array_module(theta)
    g = gradient if factor is None else gradient * factor
    m *= beta1
    m += rest1 * g
    v *= beta2
    v += rest2 * g * g
    change = rate * m / (xp.sqrt(v) * root + eps)
    if decay_end > 0 and shrink != 1:
        theta[:decay_end] *= shrink
    theta -= change


def scalars_of(s: AdamSettings, lr: float, t: int) -> Scalars:
    """Of step t = 1, 2, … with c₁ = 1 − β₁ᵗ and c₂ = 1 − β₂ᵗ, or 1 where nothing is corrected."""
    c1, c2 = (1 - s.beta1**t, 1 - s.beta2**t) if s.bias_correction else (1.0, 1.0)
    return Scalars(s.beta1, 1 - s.beta1, s.beta2, 1 - s.beta2, 1 / math.sqrt(c2), s.eps, lr / c1, 1 - lr * s.weight_decay)


@fused
def norm_factor(g: Array, max_norm: float) -> Array:
    """`clip_factor` of a whole gradient."""
    return clip_factor([g @ g], max_norm)


@fused
def clip_tensors(flat: Array, bounds: Array, max_norm: float) -> None:
    """Each tensor flat[start:stop] by itself, in place; bounds (tensors, 2) int64."""
    for start, stop in bounds:
        g = flat[start:stop]
        g *= clip_factor([g @ g], max_norm)


def clip_factor(squares: Sequence[Array], max_norm: float) -> Array:
    """What scales a gradient, whose parts have these sums of squares, to a Euclidean norm of
    max_norm at most: a 0-d array on the gradient's device, which the host does not read."""
    xp, total = array_module(squares[0]), squares[0]
    for square in squares[1:]:
        total = total + square
    return xp.minimum(max_norm / (xp.sqrt(total) + 1e-6), 1).astype(squares[0].dtype)


def warmup_linear(step: int, total: int, warmup: float) -> float:
    """The factor of step 0 … total − 1: up to 1 over `warmup` steps, then down to 0 at `total`."""
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / max(total - warmup, 1))


def constant(step: int, total: int, warmup: float) -> float:
    """1, from the first step on: the released code's intermediate step has no warm-up either."""
    return 1.0


SCHEDULES = {"linear": warmup_linear, "constant": constant}
