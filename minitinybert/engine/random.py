"""Random bits that depend on what they are for, not on who draws them when.

A counter-based generator: bits = mix(key + counter·golden). The key of a dropout mask is made from (seed,
step, site) and from (sentence, position), so the same token gets the same mask on one thread or
eight, padded or packed, NumPy or CuPy, and in a run resumed from a checkpoint. `mix` is the
finaliser of SplitMix64 (Steele, Lea and Flood 2014, and Stafford's variant 13).
"""

from __future__ import annotations

import numpy as np

from .device import Array, array_module, fused

_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_WORD = 0xFFFFFFFFFFFFFFFF


def mix(z: Array) -> Array:
    """SplitMix64's finaliser, in place, on an array of uint64: every output bit depends on every
    input bit."""
    xp = array_module(z)
    shifted = xp.empty_like(z)
    z ^= xp.right_shift(z, xp.uint64(30), out=shifted)
    z *= xp.uint64(_M1)
    z ^= xp.right_shift(z, xp.uint64(27), out=shifted)
    z *= xp.uint64(_M2)
    z ^= xp.right_shift(z, xp.uint64(31), out=shifted)
    return z


def key(*parts: int) -> int:
    """One 64-bit key from integers, order included: key(seed, step, site)."""
    z = 0
    for part in parts:
        z = (z + (part & _WORD) * _M2 + _GOLDEN) & _WORD
        z = ((z ^ (z >> 30)) * _M1) & _WORD
        z = ((z ^ (z >> 27)) * _M2) & _WORD
        z ^= z >> 31
    return z


def row_keys(parent: int, rows: Array, part: int = 0) -> Array:
    """A key for each of `rows` (uint64, any shape): mix(rows·golden + key(parent, part))."""
    xp = array_module(rows)
    return mix(rows * xp.uint64(_GOLDEN) + xp.uint64(key(parent, part)))


@fused
def site_keys(parent: int, rows: Array, sites: int) -> Array:
    """row_keys(key(parent, site), rows) for site = 0 … sites − 1: rows (T,) -> (sites, T)."""
    return array_module(rows).stack([row_keys(key(parent, site), rows) for site in range(sites)])


def bits16(keys: Array, width: int) -> Array:
    """`width` random uint16 a key: keys (...,) uint64 -> (..., width) uint16. Four come of one
    64-bit word."""
    xp = array_module(keys)
    words = -(-width // 4)
    counter = xp.arange(1, words + 1, dtype=xp.uint64) * xp.uint64(_GOLDEN)
    z = mix(keys[..., None] + counter)
    return z.view(xp.uint16)[..., :width]


def generator(*parts: int) -> np.random.Generator:
    """A NumPy generator on the host for shuffles and initial weights, keyed in the same way."""
    return np.random.Generator(np.random.PCG64(key(*parts)))
