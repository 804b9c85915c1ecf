"""The pool's arrays: their bytes are not another's while any view of them lives, and serve again after."""

import gc
import threading
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.engine import memory
from minitinybert.engine.memory import add_rows, new, row_blocks, take_rows

LIKE = np.zeros(1, np.float32)


def address(a):
    return a.__array_interface__["data"][0]


def test_bytes_serve_again_once_the_last_view_is_gone():
    a = new((100, 1000), LIKE)
    place, view = address(a), a[3:5].T
    del a
    other = new((100, 1000), LIKE)
    assert address(other) != place
    del view
    assert address(new((100, 990), LIKE)) == place


def test_shape_dtype_and_module_are_those_asked():
    a = new((3, 5000), LIKE, bool)
    assert a.shape == (3, 5000) and a.dtype == bool and type(a) is np.ndarray and a.flags.writeable and a.flags.c_contiguous
    assert new(7, np.zeros(2)).dtype == np.float64 and new((2, 0), LIKE).shape == (2, 0)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), max_size=30))
def test_living_arrays_never_share(requests):
    """Each array is filled with its number; all that live still hold theirs at the end, whatever was given back between."""
    living = {}
    for number, (size, drop) in enumerate(requests):
        living[number] = new(size * 1000, LIKE)
        living[number].fill(number)
        if drop and len(living) > drop:
            del living[sorted(living)[-drop]]
    for number, a in living.items():
        assert (a == number).all()


def test_arrays_may_die_on_another_thread():
    made = [new(20_000, LIKE) for _ in range(4)]
    places = {address(a) for a in made}
    thread = threading.Thread(target=made.clear)
    thread.start()
    thread.join()
    again = [new(20_000, LIKE) for _ in range(4)]
    assert {address(a) for a in again} == places


def test_a_second_round_asks_the_system_for_nothing():
    def work():
        kept = [new((n, 64), LIKE) for n in (500, 900, 300)]
        return [new((700, 64), LIKE), *kept[:2]]

    work(), work()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 20_000 < 500 * 64 * 4


def test_blocks_cover_every_row_once():
    for shape in ((1, 7), (memory.BLOCK, 3), (10, 10 * memory.BLOCK), (0, 3)):
        rows = np.zeros(shape[0], int)
        for block in row_blocks(np.broadcast_to(LIKE, shape)):
            rows[block] += 1
        assert (rows == 1).all()


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 99))
def test_rows_taken_and_added(ids, seed):
    rng = np.random.default_rng(seed)
    table, ids = rng.standard_normal((6, 3)), np.array(ids, np.int32)
    assert np.array_equal(take_rows(table, ids), table[ids])
    rows, expected = rng.standard_normal((len(ids), 3)), table.copy()
    np.add.at(expected, ids, rows)
    add_rows(table, ids, rows)
    assert np.allclose(table, expected, rtol=1e-12)


def test_added_leaves_its_terms_as_they_are():
    terms = np.random.default_rng(0).standard_normal((3, 4, 5))
    before = terms.copy()
    assert np.allclose(memory.added(*terms), before.sum(0)) and np.array_equal(terms, before)
    assert memory.added(before) is before
    assert memory.added(np.float64(1), np.float64(2)) == 3
