"""GELU (Hendrycks and Gimpel 2016), with the bias of the linear map below it:  y = v Φ(v),   v = x + b,   Φ(v) = ½(1 + erf(v/√2))

exact   Φ by erf in float64. In float32 Φ(v) = ½(1 + tanh(v P(v²))), P the polynomial that makes it so to 1e-7, about float32's
        own rounding, and several times cheaper than erf: fitted to atanh(erf(v/√2))/v on |v| ≤ 5.8, beyond which Φ is 0 or 1.
tanh    y = ½v(1 + tanh(u)),  u = √(2/π)(v + 0.044715 v³):  Google's first BERT, `gelu_new` in Hugging Face's configs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..engine.device import Array, array_module, erf, fused
from ..engine.memory import new, row_blocks

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


class Cache(NamedTuple):
    slope: Array | None  # (..., f)  y′(v), worked out on the way forward, where Φ is at hand; None: not kept
    biased: bool


@fused
def forward(x: Array, b: Array | None = None, approximate: str = "none", keep_cache: bool = True) -> tuple[Array, Cache]:
    """x (..., f), b (f,) or None -> y (..., f). approximate: "none" (erf) or "tanh". keep_cache False: without the slope."""
    y = new(x.shape, x)
    slope = new(x.shape, x) if keep_cache else None
    formula = _tanh if approximate == "tanh" else _exact
    x_rows, y_rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])
    slope_rows = slope if slope is None else slope.reshape(-1, x.shape[-1])
    for rows in row_blocks(x_rows):
        v = new(x_rows[rows].shape, x)
        v[...] = x_rows[rows]
        if b is not None:
            v += b
        formula(v, y_rows[rows], slope_rows if slope_rows is None else slope_rows[rows])
    return y, Cache(slope, b is not None)


@fused
def backward(dy: Array, cache: Cache, out: Array | None = None) -> tuple[Array, Array | None]:
    """dy (..., f) -> dx (..., f), db (f,) (None without a bias; written into `out` where given).

    exact:  y′ = Φ(v) + v Φ′(v),  Φ′(v) = φ(v) = e^(−v²/2)/√(2π)
    tanh:   y′ = ½(1 + t) + ½v(1 − t²)u′,  t = tanh(u),  u′ = √(2/π)(1 + 3·0.044715 v²)
    v = x + b, so dx = dv = dy y′ and db = Σ_t dv_t.
    """
    xp = array_module(dy)
    dx = xp.multiply(dy, cache.slope, out=new(dy.shape, dy))
    db = xp.sum(dx.reshape(-1, dx.shape[-1]), axis=0, out=out) if cache.biased else None
    return dx, db


def _exact(v: Array, y: Array, slope: Array | None) -> None:
    """y = v Φ(v), slope = Φ(v) + v φ(v); v is used up."""
    xp = array_module(v)
    phi = new(v.shape, v) if slope is None else slope
    if v.dtype == xp.float32:
        near = xp.clip(v, -_LIMIT, _LIMIT, out=new(v.shape, v))
        _polynomial(_P, xp.multiply(near, near, out=y), phi)
        phi *= near
        xp.tanh(phi, out=phi)
    else:
        phi[...] = erf(v * math.sqrt(0.5))
    phi += 1
    phi *= 0.5
    xp.multiply(v, phi, out=y)
    if slope is not None:
        density = xp.multiply(v, v, out=new(v.shape, v))
        density *= -0.5
        xp.exp(density, out=density)
        density *= 1 / math.sqrt(2 * math.pi)
        density *= v
        slope += density


def _polynomial(coefficients: tuple[float, ...], s: Array, out: Array) -> None:
    """out = Σ coefficients[k] s^k by Horner's rule."""
    out[...] = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        out *= s
        out += coefficient


def _tanh(v: Array, y: Array, slope: Array | None) -> None:
    xp, root, cubic = array_module(v), math.sqrt(2 / math.pi), 0.044715
    square = v * v
    t = xp.tanh(root * v * (1 + cubic * square))
    xp.multiply(0.5 * v, 1 + t, out=y)
    if slope is not None:
        slope[...] = 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * (root * (1 + 3 * cubic * square))
