"""The k largest of each row, without looking at every element twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.device import Array, array_module

_BLOCK = 32
_AT_ONCE = 1 << 20  # elements: what a first pass reads is still in a processor's cache when a few of them are taken out


def largest(scores: Array, k: int) -> Array:
    """scores (n, V) -> where the min(k, V) largest of each row stand, (n, min(k, V)), in no order.

    The k largest lie in the k blocks whose maxima are largest: a maximum of each block is one pass,
    and cheap; a partition is not. A block is every (V // 32)th element, so that all maxima are
    taken side by side.
    """
    xp = array_module(scores)
    n, V = scores.shape
    blocks = V // _BLOCK
    if k >= V:
        return xp.broadcast_to(xp.arange(V), (n, V))
    if blocks <= k:
        return xp.argpartition(scores, V - k, axis=1)[:, V - k :]
    step = max(1, _AT_ONCE // V) if isinstance(scores, np.ndarray) else max(1, n)
    parts = [_by_blocks(xp, scores[start : start + step], k, blocks) for start in range(0, n, step)]
    return xp.concatenate(parts) if parts else xp.empty((0, k), xp.int64)


def _by_blocks(xp: Any, scores: Array, k: int, blocks: int) -> Array:
    n, V = scores.shape
    whole = blocks * _BLOCK
    maxima = scores[:, :whole].reshape(n, _BLOCK, blocks).max(1)
    best = xp.argpartition(maxima, blocks - k, axis=1)[:, -k:]
    places = (xp.arange(0, whole, blocks)[:, None] + best[:, None, :]).reshape(n, -1)
    rest = xp.broadcast_to(xp.arange(whole, V), (n, V - whole))
    places = xp.concatenate([places, rest], axis=1)
    kept = xp.take_along_axis(scores, places, axis=1)
    return xp.take_along_axis(places, xp.argpartition(kept, kept.shape[1] - k, axis=1)[:, -k:], axis=1)
