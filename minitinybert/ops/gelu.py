"""GELU (Hendrycks and Gimpel 2016):  y = x Φ(x),   Φ(x) = ½(1 + erf(x/√2))

exact   Φ by erf in float64. In float32 Φ(x) = ½(1 + tanh(x P(x²))), P the polynomial that makes it so to 1e-7, about float32's
        own rounding, and several times cheaper than erf: fitted to atanh(erf(x/√2))/x on |x| ≤ 5.8, beyond which Φ is 0 or 1.
tanh    y = ½x(1 + tanh(u)),  u = √(2/π)(x + 0.044715 x³):  Google's first BERT, `gelu_new` in Hugging Face's configs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..device import Array, array_module, erf

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
_BLOCK = 48 * 1024  # elements: the passes over one block stay in the cache


class Cache(NamedTuple):
    slope: Array  # (...)  y′(x), worked out on the way forward, where Φ is at hand


def forward(x: Array, approximate: str = "none") -> tuple[Array, Cache]:
    """x (...) -> y (...). approximate: "none" (erf) or "tanh"."""
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    y, slope = xp.empty_like(x), xp.empty_like(x)
    formula = _tanh if approximate == "tanh" else _exact
    flat, flat_y, flat_slope = x.reshape(-1), y.reshape(-1), slope.reshape(-1)
    step = _BLOCK if xp is np else max(x.size, 1)
    for i in range(0, x.size, step):
        formula(xp, flat[i : i + step], flat_y[i : i + step], flat_slope[i : i + step])
    return y, Cache(slope)


def backward(dy: Array, cache: Cache) -> Array:
    """dy (...) -> dx (...).

    exact:  y′ = Φ(x) + x Φ′(x),  Φ′(x) = φ(x) = e^(−x²/2)/√(2π)
    tanh:   y′ = ½(1 + t) + ½x(1 − t²)u′,  t = tanh(u),  u′ = √(2/π)(1 + 3·0.044715 x²)
    """
    return dy * cache.slope


def _exact(xp, x: Array, y: Array, slope: Array) -> None:
    """Φ into `slope`, x Φ into `y`, then x φ added to `slope`."""
    square = x * x
    if x.dtype == xp.float32:
        near = xp.clip(x, -_LIMIT, _LIMIT)
        _polynomial(_P, near * near, slope)
        slope *= near
        xp.tanh(slope, out=slope)
    else:
        slope[...] = erf(x * math.sqrt(0.5))
    slope += 1
    slope *= 0.5
    xp.multiply(x, slope, out=y)
    square *= -0.5
    density = xp.exp(square, out=square)
    density *= 1 / math.sqrt(2 * math.pi)
    density *= x
    slope += density


def _polynomial(coefficients: tuple[float, ...], s: Array, out: Array) -> None:
    """out = Σ coefficients[k] s^k by Horner's rule."""
    out[...] = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        out *= s
        out += coefficient


def _tanh(xp, x: Array, y: Array, slope: Array) -> None:
    root, cubic = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = xp.tanh(root * x * (1 + cubic * square))
    xp.multiply(0.5 * x, 1 + t, out=y)
    slope[...] = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (root * (1 + 3 * cubic * square))
