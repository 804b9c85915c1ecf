"""Keyed random bits: fair, different by key, the same wherever they are drawn."""

import numpy as np

from minitinybert.engine.random import bits16, key, row_keys
from minitinybert.ops import dropout


def test_bits_are_uniform_and_uncorrelated_between_neighbouring_rows():
    keys = row_keys(key(1, 2), np.arange(400, dtype=np.uint64))
    bits = bits16(keys, 500)
    counts = np.bincount(bits.reshape(-1) >> 12, minlength=16)
    expected = bits.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 40  # chi-square, 15 degrees of freedom: 40 is p < 0.001
    x = bits.astype(float) - bits.mean()
    for neighbour in (np.roll(x, 1, 0), np.roll(x, 1, 1), np.roll(x, 4, 1)):
        assert abs((x * neighbour).mean() / x.var()) < 5 / np.sqrt(bits.size)


def test_keys_depend_on_every_part_and_on_the_order():
    assert len({key(0), key(1), key(0, 0), key(0, 1), key(1, 0), key(1, 1), key(0, 0, 0), key(-1)}) == 8


def test_a_row_has_the_same_bits_alone_and_among_others_and_cut_short():
    rows = np.arange(10, dtype=np.uint64)
    whole = bits16(row_keys(5, rows), 11)
    assert (bits16(row_keys(5, rows[7:8]), 11) == whole[7:8]).all()
    assert (bits16(row_keys(5, rows), 6) == whole[:, :6]).all()


def test_dropout_keeps_the_mean_and_the_asked_share():
    keys = row_keys(key(3), np.arange(2000, dtype=np.uint64))
    y, cache = dropout.forward(np.ones((2000, 64)), 0.1, keys)
    assert abs((~cache.keep).mean() - 0.1) < 5 * np.sqrt(0.09 / y.size)
    assert np.allclose(np.unique(y), [0.0, 65536 / (65536 - 6554)])
