"""What is here runs on a CUDA device through CuPy: `pytest -m gpu`. Without one, test_device.py says why, and the rest is not collected."""

import importlib.util

import pytest


def absent():
    """Why there is no device; "" where there is one."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'minitinybert[cuda]'"
    import cupy

    return "" if cupy.cuda.is_available() else "CuPy finds no CUDA device"


collect_ignore_glob = ["test_[!d]*.py"] if absent() else []


@pytest.fixture(scope="session")
def cupy():
    return pytest.importorskip("cupy")
