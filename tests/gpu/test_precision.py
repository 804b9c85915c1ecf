"""Numbers of fewer bits, where they are asked for."""

import os
import subprocess
import sys

import numpy as np
import pytest
from test_train import CONFIG, examples

from gpu.test_transfers import TEACHER
from minitinybert.audit import assert_close
from minitinybert.bert import Bert
from minitinybert.cli import main
from minitinybert.device import float_type
from minitinybert.distill import Intermediate, Prediction
from minitinybert.learner import Learner
from minitinybert.parallel import Workers

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


@pytest.mark.parametrize("narrow, tolerance", [("float16", 1e-2), ("bfloat16", 8e-2)])
@pytest.mark.parametrize("objective", [lambda: Intermediate(CONFIG, TEACHER), Prediction], ids=["intermediate", "prediction"])
def test_a_teacher_answers_in_fewer_bits_and_the_student_learns_in_float32(cupy, objective, narrow, tolerance):
    """10 bits behind the point, or 7: a rounding of 2**-11 = 5e-4, or 2**-8 = 4e-3, through four layers, some twenty times that."""
    if narrow == "bfloat16":
        pytest.importorskip("ml_dtypes")
    narrow = float_type(narrow)
    results = {}
    with Workers(1) as workers:
        teacher = Bert.new(TEACHER, 9).to(cupy)
        for dtype in (np.dtype(np.float32), narrow):
            frozen = teacher.astype(dtype)
            learner = Learner(Bert.new(CONFIG, 7).to(cupy), objective(), workers, frozen, seed=3)
            batch = learner.student.place(examples().batch(np.arange(9)))
            raw, _ = frozen.forward_batch(batch, keep_cache=False)
            assert {a.dtype for a in (*raw.hidden, *raw.scores, raw.pooled, raw.logits)} == {dtype}
            results[dtype] = (*learner.gradients(batch, 5), raw)
    assert teacher.astype(np.float32) is teacher
    (losses, gradients, raw), (narrow_losses, narrow_gradients, narrow_raw) = results.values()
    for name, here, there in (("hidden", raw.hidden[-1], narrow_raw.hidden[-1]), ("scores", raw.scores[-1], narrow_raw.scores[-1])):
        assert_close(name, there, here.astype(np.float64), tolerance)
        assert not (there == here).all()
    assert narrow_gradients.flat.dtype == np.float32 and all(loss.dtype == np.float32 for loss in narrow_losses.values())
    for name, loss in losses.items():
        assert float(narrow_losses[name]) == pytest.approx(float(loss), rel=tolerance)
    assert_close("gradients", narrow_gradients.flat, gradients.flat, 2 * tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_teacher_in_fewer_bits_is_a_gpu_s(capsys, tmp_path, dtype):
    arguments = ["distill", "general", "--teacher", "x", "--student", "1L-8D-2H-16F", "--corpus", "x", "--out", str(tmp_path)]
    assert main([*arguments, "--teacher-dtype", dtype]) == 2
    assert "choose --device cuda" in capsys.readouterr().err
