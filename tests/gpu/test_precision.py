"""Numbers of fewer bits, where they are asked for."""

import os
import subprocess
import sys

import pytest

from minitinybert.cli import main

pytestmark = pytest.mark.gpu

PRODUCT = """
import cupy, numpy as np
from minitinybert import device
from minitinybert.ops import linear
if {tf32}:
    device.allow_tf32("cuda")
x, W = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32)
y, cache = linear.forward(cupy.asarray(x), cupy.asarray(W))
dx, dW, _ = linear.backward(y, cache)
for got, exact in ((y, x @ W.T.astype(np.float64)), (dx, y.get() @ W.astype(np.float64)), (dW, y.get().T @ x.astype(np.float64))):
    assert got.dtype == np.float32
    print(np.linalg.norm(got.get() - exact) / np.linalg.norm(exact))
"""


@pytest.mark.parametrize("tf32, low, high", [(False, 0, 1e-6), (True, 2e-5, 1e-3)])
def test_tf32_rounds_what_is_multiplied(cupy, tf32, low, high):
    """To 10 bits: by at most 2**-11 = 5e-4 each number, some 2e-4 of a product's norm. In a process of its own: CuPy asks once."""
    environment = {name: value for name, value in os.environ.items() if name != "CUPY_TF32"}
    done = subprocess.run([sys.executable, "-c", PRODUCT.format(tf32=tf32)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    errors = [float(line) for line in done.stdout.split()]
    assert len(errors) == 3 and all(low <= error <= high for error in errors), errors


def test_tf32_is_a_gpu_s(capsys):
    assert main(["predict", "--model", "x", "text", "--tf32"]) == 2
    assert "choose --device cuda" in capsys.readouterr().err
