"""GELU (Hendrycks and Gimpel 2016):  y = x Φ(x),   Φ(x) = ½(1 + erf(x/√2)), the normal distribution's

exact   Φ by erf in float64. In float32 Φ(x) = ½(1 + tanh(x P(x²))), P the polynomial that makes it so to 1e-7,
        about float32's own rounding, and several times cheaper than erf: fitted to
        atanh(erf(x/√2))/x on |x| ≤ 5.8, beyond which Φ is 0 or 1.
tanh    Φ(x) = ½(1 + tanh(u)),  u = √(2/π)(x + 0.044715 x³):  Google's first BERT, `gelu_new` in Hugging Face's
        configs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..engine.device import Array, array_module, erf, fused

_P = (
    0.7978845305242946,
    0.03633379710762801,
    -3.286103042303848e-05,
    -5.5309138686564445e-05,
    3.977866655101529e-06,
    -1.3397382081850497e-07,
    1.8175048803606737e-09,
)  # P(s) = Σ _P[k] s^k
_LIMIT = 5.8  # where tanh(x P(x²)) has become 1 in float32
_ROOT, _CUBIC = math.sqrt(2 / math.pi), 0.044715  # of u


class Cache(NamedTuple):
    x: Array  # (..., f)
    phi: Array  # (..., f)  Φ(x)
    approximate: str


@fused
def forward(x: Array, approximate: str = "none") -> tuple[Array, Cache]:
    """x (..., f) -> y (..., f). approximate: "none" (erf) or "tanh"."""
    phi = _tanh(x) if approximate == "tanh" else _exact(x)
    return x * phi, Cache(x, phi, approximate)


@fused
def backward(dy: Array, cache: Cache) -> Array:
    """dy (..., f) -> dx (..., f).    dx = dy y′,  y′ = Φ + x Φ′ by the product rule.

    exact   Φ′ = φ = e^(−x²/2)/√(2π), the normal density
    tanh    Φ′ = ½(1 − t²) u′ = 2Φ(1 − Φ) u′, as t = tanh(u) = 2Φ − 1;  u′ = √(2/π)(1 + 3·0.044715 x²)
    """
    x, phi, approximate = cache
    if approximate == "tanh":
        dphi = 2 * phi * (1 - phi) * (_ROOT * (1 + 3 * _CUBIC * x * x))
    else:
        dphi = array_module(x).exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return dy * (phi + x * dphi)


def _exact(x: Array) -> Array:
    xp = array_module(x)
    if x.dtype != xp.float32:
        return 0.5 * (1 + erf(x * math.sqrt(0.5)))
    near = xp.clip(x, -_LIMIT, _LIMIT)
    square = near * near
    P = xp.full_like(square, _P[-1])
    for coefficient in _P[-2::-1]:  # Horner's rule
        P *= square
        P += coefficient
    return 0.5 * (1 + xp.tanh(near * P))


def _tanh(x: Array) -> Array:
    return 0.5 * (1 + array_module(x).tanh(_ROOT * x * (1 + _CUBIC * x * x)))
