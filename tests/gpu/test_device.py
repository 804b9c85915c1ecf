"""Whether there is a device: one line where there is none."""

import pytest

from gpu.conftest import absent

pytestmark = pytest.mark.gpu


def test_there_is_a_device():
    if reason := absent():
        pytest.skip(f"all of tests/gpu left out: {reason}")
    import cupy

    assert (cupy.arange(3) * 2).sum() == 6
