from __future__ import annotations

import numpy as np

from minitinybert.errors import InputError


def assert_same(got, expected):
    """The same names, shapes, dtypes and bits."""
    assert set(got) == set(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        assert (got[name].shape, got[name].dtype) == (array.shape, array.dtype), name
        assert np.array_equal(got[name], array, equal_nan=True), name


def assert_unharmed(read, path, data, expected):
    """Of a file with this data: InputError (one line, with the file's name), or all tensors as they were. True: it was refused."""
    path.write_bytes(data)
    try:
        got = read(path)
        assert_same(got, expected)
    except InputError as error:
        assert path.name.partition(".")[0] in str(error)
        assert "\n" not in str(error)
        return True
    return False


def numpy_of(state):
    """A torch state dict as NumPy arrays (bfloat16 as float32)."""
    import torch

    return {k: (v.float() if v.dtype == torch.bfloat16 else v).detach().numpy() for k, v in state.items()}
