"""The plain formulas that the CPU's kernels replace, by the same names: the judge of tests/kernels/test_cpu.py."""

import math
from collections import namedtuple

import numpy as np
from scipy.special import erf

from minitinybert.engine.random import bits16
from minitinybert.ops.gelu import _LIMIT, _P
from minitinybert.training.optim import adam_scalars

Gelu = namedtuple("Gelu", "x phi approximate")
Dropout = namedtuple("Dropout", "keep scale")
Norm = namedtuple("Norm", "x_hat inverse_std gain")
AddNorm = namedtuple("AddNorm", "dropout norm")
Softmax = namedtuple("Softmax", "p")
Weights = namedtuple("Weights", "softmax dropout")
ROOT, CUBIC = math.sqrt(2 / math.pi), 0.044715


def gelu_forward(x, approximate="none"):
    if approximate == "tanh":
        phi = 0.5 * (1 + np.tanh(ROOT * x * (1 + CUBIC * x * x)))
    elif x.dtype == np.float64:
        phi = 0.5 * (1 + erf(x * math.sqrt(0.5)))
    else:
        near = np.clip(x, -_LIMIT, _LIMIT)
        square = near * near
        P = np.full_like(square, _P[-1])
        for coefficient in _P[-2::-1]:
            P *= square
            P += coefficient
        phi = 0.5 * (1 + np.tanh(near * P))
    return x * phi, Gelu(x, phi, approximate)


def gelu_backward(dy, cache):
    x, phi, approximate = cache
    if approximate == "tanh":
        slope = 2 * phi * (1 - phi) * (ROOT * (1 + 3 * CUBIC * x * x))
    else:
        slope = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return dy * (phi + x * slope)


def dropout_forward(x, p, keys):
    threshold = round(p * 65536)
    none = keys is None or threshold == 0
    cache = Dropout(None, 1.0) if none else Dropout(bits16(keys, x.shape[-1]) >= threshold, 65536 / (65536 - threshold))
    return dropout_backward(x, cache), cache


def dropout_backward(dy, cache):
    return dy if cache.keep is None else dy * cache.keep * cache.scale


def layer_norm_forward(x, gain, bias, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse_std = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    return gain * (centred * inverse_std) + bias, Norm(centred * inverse_std, inverse_std, gain)


def layer_norm_backward(dy, cache):
    x_hat, inverse_std, gain = cache
    g, rows = gain * dy, tuple(range(dy.ndim - 1))
    dx = (g - g.mean(axis=-1, keepdims=True) - x_hat * (g * x_hat).mean(axis=-1, keepdims=True)) * inverse_std
    return dx, (dy * x_hat).sum(axis=rows), dy.sum(axis=rows)


def add_norm_forward(a, x, gain, bias, eps, p=0.0, keys=None):
    dropped, kept = dropout_forward(a, p, keys)
    y, norm = layer_norm_forward(x + dropped, gain, bias, eps)
    return y, AddNorm(kept, norm)


def add_norm_backward(dy, cache):
    ds, dgain, dbias = layer_norm_backward(dy, cache.norm)
    return dropout_backward(ds, cache.dropout), ds, dgain, dbias


def weigh(A, mask, p, keys):
    if mask is not None:
        A = A + np.where(mask, A.dtype.type(0), np.finfo(A.dtype).min)
    e = np.exp(A - A.max(axis=-1, keepdims=True))
    P = e / e.sum(axis=-1, keepdims=True)
    D, dropped = dropout_forward(P, p, keys)
    return D, Weights(Softmax(P), dropped)


def weighed(cache):
    return dropout_backward(cache.softmax.p, cache.dropout)


def weigh_backward(dD, cache):
    p, dp = cache.softmax.p, dropout_backward(dD, cache.dropout)
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


def add_rows(table, ids, rows):
    np.add.at(table, ids, rows)


def update(theta, gradient, m, v, factor, lr, decay_end, t, settings):
    beta1, rest1, beta2, rest2, root, eps, rate, shrink = adam_scalars(settings, lr, t)
    g = gradient if factor is None else gradient * factor
    m[:] = beta1 * m + rest1 * g
    v[:] = beta2 * v + rest2 * g * g
    if decay_end > 0:
        theta[:decay_end] *= shrink
    theta -= rate * m / (np.sqrt(v) * root + eps)
