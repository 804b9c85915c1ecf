import pytest

from minitinybert.engine import device


@pytest.fixture(scope="module", autouse=True)
def nobody_s_kernels():
    """What runs beside these tests has brought none: an operation within a formula is a formula too."""
    kept = dict(device.KERNELS["cpu"])
    device.KERNELS["cpu"].clear()
    yield
    device.KERNELS["cpu"].clear()
    device.KERNELS["cpu"].update(kept)
