"""What is here runs on a CUDA device through CuPy: `pytest -m gpu`. Without one, test_device.py says why, and the rest is not collected."""

import importlib
import os

import pytest

from minitinybert import machine


def absent():
    """Why there is no device; "" where there is one."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed: pip install 'minitinybert[cuda]'"
    return "" if cupy.cuda.is_available() else "CuPy finds no CUDA device"


if not absent():
    machine.select("cuda")  # brings the kernels

collect_ignore_glob = ["test_[!d]*.py"] if absent() else []


def needs_ampere(cupy):
    if int(cupy.cuda.Device().compute_capability) < 80:
        pytest.skip("TF32 and bfloat16 need a GPU of compute capability 8.0")


@pytest.fixture(scope="session")
def cupy():
    return pytest.importorskip("cupy")


@pytest.fixture(scope="session")
def count():
    """count(step): how many kernels, products by cuBLAS and fills `step` asks for, when it is called again.

    Something that sees all of it has to count: MINITINYBERT_LAUNCH_COUNTER names a module with reset_stats(), and stats() -> a mapping
    with "launches", "gemms", "memsets", the hidden copies and the waits of a device's driver: of the last two a step has none.
    """
    name = os.environ.get("MINITINYBERT_LAUNCH_COUNTER")
    if not name:
        pytest.skip("nothing counts launches here: set MINITINYBERT_LAUNCH_COUNTER to a module with reset_stats() and stats()")
    counter = importlib.import_module(name)

    def count(step):
        step()
        counter.reset_stats()
        step()
        seen = counter.stats()
        assert not any(seen[kind] for kind in ("hidden_h2d", "hidden_d2h", "d2h", "syncs"))
        return seen["launches"] + seen["gemms"] + seen["memsets"]

    return count
