"""Random bits, table gradients and the optimiser on the device: as on the host."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training.test_optim import filled

from minitinybert.audit import assert_close
from minitinybert.engine.batch import packed
from minitinybert.engine.device import to_host
from minitinybert.engine.random import bits16, row_keys
from minitinybert.engine.ranks import MpiRanks, load_mpi
from minitinybert.errors import InputError
from minitinybert.model.parameters import Parameters
from minitinybert.ops.embedding import add_rows
from minitinybert.training.optim import PRESETS, Adam

pytestmark = pytest.mark.gpu


@given(parent=st.integers(0, 2**64 - 1), part=st.integers(0, 3), width=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_random_bits_are_the_host_s(cupy, parent, part, width, seed):
    rows = np.random.default_rng(seed).integers(0, 2**64, (3, 5), np.uint64)
    keys, keys_there = row_keys(parent, rows, part), row_keys(parent, cupy.asarray(rows), part)
    assert (keys == keys_there.get()).all()
    assert (bits16(keys, width) == bits16(keys_there, width).get()).all()


@pytest.mark.parametrize("rows", [2, 1024, 1025, 30522])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_added_where_ids_repeat(cupy, rows, dtype):
    rng = np.random.default_rng(rows)
    ids = np.concatenate([rng.integers(0, rows, 50), np.full(20, rows - 1), rng.integers(0, min(rows, 9), 50)]).astype(np.int32)
    table, values = rng.standard_normal((rows, 7)).astype(dtype), rng.standard_normal((len(ids), 7)).astype(dtype)
    expected = table.astype(np.float64)
    np.add.at(expected, ids, values)
    there, ids_there = cupy.asarray(table), cupy.asarray(ids)
    add_rows(there, ids_there, cupy.asarray(np.asfortranarray(values), order="F"))
    assert_close("table", there, expected, 2e-7 if dtype == np.float32 else 1e-14)
    add_rows(there, ids_there[:0], cupy.asarray(values[:0]))


def test_ranks_add_up_device_arrays(cupy):
    """A job of one rank: its own sum, by NCCL or by way of the host."""
    try:
        MPI = load_mpi()
    except InputError as absent:
        pytest.skip(str(absent))
    flat = cupy.arange(5, dtype=np.float32)
    alone = MpiRanks(MPI.COMM_SELF)
    alone.add_up(flat)
    assert (flat.get() == np.arange(5)).all() and alone.device("cuda") == "cuda:0" and alone.device("cpu") == "cpu"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scale", [1e-3, 10])
def test_adam_steps_as_on_the_host(cupy, preset, scale):
    ours = [Parameters(filled(0).layout, xp.asarray(filled(0).flat.astype(np.float32))) for xp in (np, cupy)]
    optimisers = [Adam(parameters, PRESETS[preset]) for parameters in ours]
    for step in range(4):
        for xp, adam in zip((np, cupy), optimisers, strict=True):
            adam.step(Parameters(adam.m.layout, xp.asarray(filled(step + 1, scale).flat.astype(np.float32))), 1e-2)
    for name, here, there in zip("θmv", *([a.parameters.flat, a.m.flat, a.v.flat] for a in optimisers), strict=True):
        assert there.dtype == np.float32
        assert_close(name, there, here, 1e-6)


def test_a_batch_goes_there_and_comes_back(cupy):
    batch = packed([np.array([1, 2, 3]), np.array([4])], [np.zeros(3, int), np.zeros(1, int)], labels=np.array([0, 1]))
    there = batch.to(cupy)
    assert there.to(cupy) is there and batch.to(np) is batch
    assert isinstance(there.labels, cupy.ndarray) and isinstance(there.sentences, np.ndarray)
    back = there.to(np)
    for name in ("input_ids", "position_ids", "row_ids", "cls_rows", "labels"):
        assert isinstance(getattr(back, name), np.ndarray)
        assert (getattr(back, name) == getattr(batch, name)).all()
    assert (to_host(there.share(0, 1).input_ids) == batch.share(0, 1).input_ids).all()
