"""ops/dropout.py, and the keys of random.py: y = x m/(1 − p), m drawn where it is used."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from ...engine.device import Array
from ...engine.random import key
from ...ops.dropout import Cache, scale_of, threshold_of
from .launch import MIX, Kernel, contiguous

_FORWARD = Kernel(
    "dropout_forward",
    r"""
extern "C" __global__ void dropout_forward(const T* x, const u64* keys, T* y, u8* keep, int rows, int D, unsigned threshold, A scale) {
    EACH_ROW(row) EACH_FOUR(i, j) {
        const size_t at = (size_t)row * D + j;
        A v[4];
        load(x + at, D - j, v);
        drop(v, keys[row], j / 4, threshold, scale, keep + at, D - j);
        store(y + at, D - j, v);
    }
}
""",
)
_BACKWARD = cupy.ElementwiseKernel("T dy, bool keep, T scale", "T dx", "dx = keep ? dy * scale : T(0)", "dropout_backward")
_SITE_KEYS = cupy.ElementwiseKernel(  # random.key of (parent, site), of (that, 0), and row_keys of the latter
    "raw uint64 rows, uint64 parent, int32 count",
    "uint64 z",
    """
    const unsigned long long golden = 0x9E3779B97F4A7C15ull, site = i / count;
    const unsigned long long of_site = mix(parent + site * 0x94D049BB133111EBull + golden);
    z = mix(rows[i % count] * golden + mix(mix(of_site * 0x94D049BB133111EBull + golden) + golden));
    """,
    "site_keys",
    preamble=MIX,
)


def undrawn(shape: Any, p: float, keys: Array | None) -> tuple[Cache, int]:
    """The cache of `ops.dropout.draw` for a kernel to fill, and the threshold of `draw` in CUDA; 0
    where nothing is dropped."""
    threshold = threshold_of(p, keys)
    return Cache(cupy.empty(shape, bool) if threshold else None, scale_of(threshold)), threshold


def forward(x: Array, p: float, keys: Array | None) -> tuple[Array, Cache]:
    cache, threshold = undrawn(x.shape, p, keys)
    if not threshold:
        return x, cache
    x, keys = contiguous(x, keys)
    y, d = cupy.empty(x.shape, x.dtype), x.shape[-1]
    rows = x.size // max(d, 1)
    _FORWARD.by_rows(rows, d, x.dtype, (x, keys, y, cache.keep, rows, d, np.uint32(threshold), cache.scale))
    return y, cache


def backward(dy: Array, cache: Cache) -> Array:
    return dy if cache.keep is None else _BACKWARD(dy, cache.keep, dy.dtype.type(cache.scale))


def site_keys(parent: int, rows: Array, sites: int) -> Array:
    return _SITE_KEYS(rows, np.uint64(key(parent)), rows.size, cupy.empty((sites, *rows.shape), np.uint64))
