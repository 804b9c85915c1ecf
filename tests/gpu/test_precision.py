"""Numbers of fewer bits, where they are asked for."""

import os
import subprocess
import sys

import numpy as np
import pytest
from training.test_loop import CONFIG, examples

from gpu.conftest import needs_ampere
from gpu.test_transfers import TEACHER
from minitinybert.audit import assert_close
from minitinybert.commands.cli import main
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.scores import Comparison, compare
from minitinybert.engine.batch import packed, padded
from minitinybert.engine.parallel import Workers
from minitinybert.losses import mse, prediction
from minitinybert.losses.attention import HeadPairs
from minitinybert.machine import float_type
from minitinybert.model import encoder
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.model.parameters import Parameters
from minitinybert.model.trace import Trace
from minitinybert.ops import add_norm, embed_norm, gelu, layer_norm
from minitinybert.ops.embedding import Ids, Tables
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

pytestmark = pytest.mark.gpu

PRODUCT = """
import numpy as np
from minitinybert import machine
from minitinybert.ops import linear
if {tf32}:
    machine.allow_tf32("cuda")
cupy = machine.select("cuda")
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
    if tf32:
        needs_ampere(cupy)
    environment = {name: value for name, value in os.environ.items() if name != "CUPY_TF32"}
    done = subprocess.run([sys.executable, "-c", PRODUCT.format(tf32=tf32)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    errors = [float(line) for line in done.stdout.split()]
    assert len(errors) == 3 and all(low <= error <= high for error in errors), errors


def test_tf32_is_a_gpu_s(capsys):
    assert main(["predict", "--model", "x", "text", "--tf32"]) == 2
    assert "choose --device cuda" in capsys.readouterr().err


def _narrow(name):
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
        needs_ampere(pytest.importorskip("cupy"))
    return float_type(name)


# The kernels of a forward pass, d wide: r(*shape) are random numbers, up and i make arrays of them and of ids.
IDS = np.arange(43) % 7
KERNELS = {
    "add_norm": lambda r, d, up, i: add_norm.forward(*(up(r(*shape)) for shape in ((9, d), (9, d), (d,), (d,))), 1e-12)[:1],
    "layer_norm": lambda r, d, up, i: layer_norm.forward(up(r(9, d)), up(r(d)), up(r(d)), 1e-12)[:1],
    "gelu": lambda r, d, up, i: gelu.forward(up(3 * r(9, d)))[:1],
    "gelu, tanh": lambda r, d, up, i: gelu.forward(up(3 * r(9, d)), "tanh")[:1],
    "embed_norm": lambda r, d, up, i: embed_norm.forward(
        Ids(*(i(IDS) for _ in range(3))), Tables(*(up(r(7, d)) for _ in range(3))), up(r(d)), up(r(d)), 1e-12
    )[:1],
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d", [33, 312, 1200])
@pytest.mark.parametrize("narrow, bits", [("float16", 11), ("bfloat16", 8)])
def test_a_kernel_of_fewer_bits_rounds_only_what_it_is_given_and_gives(cupy, kernel, d, narrow, bits):
    """The arithmetic between is float32's: a few units of rounding, whatever the row's width."""
    dtype, results = _narrow(narrow), []
    for up, ids in ((lambda a: a.astype(dtype).astype(np.float64), np.asarray), (lambda a: cupy.asarray(a.astype(dtype)), cupy.asarray)):
        rng = np.random.default_rng(d)
        results.append(KERNELS[kernel](lambda *shape: rng.standard_normal(shape), d, up, ids))  # noqa: B023
    for here, there in zip(*results, strict=True):
        assert isinstance(there, cupy.ndarray) and there.dtype == dtype
        assert_close(kernel, there.astype(np.float32), here, 4 * 2.0**-bits)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("d, heads", [(15, 3), (312, 12), (1200, 3)])
@pytest.mark.parametrize("narrow, bits", [("float16", 11), ("bfloat16", 8)])
def test_a_layer_of_fewer_bits_rounds_what_lies_between_its_kernels(cupy, few, d, heads, narrow, bits):
    """Some eight arrays: as many units of rounding."""
    dtype, results = _narrow(narrow), []
    host = packed([np.ones(n, np.int32) for n in (5, 5, 33)], [np.zeros(n, np.int32) for n in (5, 5, 33)])
    config = Config(9, d, 1, heads, 2 * d)
    for up, batch in (
        (lambda a: a.astype(dtype).astype(np.float64), host),
        (lambda a: cupy.asarray(a.astype(dtype)), host.to(cupy)),
    ):
        rng, model = np.random.default_rng(d), Bert.new(config, dtype=np.float64)
        for view in model.parameters.values():
            view[...] = rng.standard_normal(view.shape) / (view.shape[-1] ** 0.5 if view.ndim == 2 else 1)
        W = encoder.LayerArrays.of(Parameters(model.parameters.layout, up(model.parameters.flat)), 0)
        x, rows = up(rng.standard_normal((43, d))), batch.cls_rows if few else None
        results.append(encoder.forward(x, W, batch, config, None, rows, encoder.Keep(cache=False))[:2])
    for here, there in zip(*results, strict=True):
        assert isinstance(there, cupy.ndarray) and there.dtype == dtype
        assert_close("layer", there.astype(np.float32), here, 8 * 2.0**-bits)


def test_a_gradient_of_another_dtype_is_the_model_s(cupy):
    """What an objective of one's own may hand over: NumPy's scalars make float64 of float32."""
    model, batch = Bert.new(CONFIG, 7).to(cupy), examples().batch(np.arange(5))
    trace, cache = model.forward_batch(model.place(batch), 3)
    hidden = [cupy.random.standard_normal(x.shape, np.float32) for x in trace.hidden]
    dtrace = Trace(None, hidden, [cupy.ones_like(A) for A in trace.scores], trace.pooled, trace.logits)
    own, wide = (model.backward(cache, each).flat for each in (dtrace, dtrace.astype(np.float64)))
    assert own.any() and (own == wide).all()


@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_a_loss_reads_a_teacher_of_fewer_bits(cupy, narrow):
    """As if its numbers had been made wider before: bit for bit."""
    x, y = (cupy.random.standard_normal((43, 24), np.float32) for _ in range(2))
    y = y.astype(_narrow(narrow))
    whole, real = np.ones((3, 33), np.int32), np.arange(99).reshape(3, 33) % 5 < 4
    scores = cupy.random.standard_normal(12 * real.size * 33, np.float32).astype(y.dtype)
    own = cupy.random.standard_normal(3 * real.size * 33, np.float32)

    def losses(up):
        results = []
        for mask, padding in ((None, False), (real, False), (None, True), (real, True)):
            batch = padded(whole, mask).to(cupy)
            results += compare(own, up(scores[: own.size]), batch, Comparison(HeadPairs(3, 3), padding, 9.0, 0.5))
            results += compare(own, up(scores), batch, Comparison(HeadPairs(3, 12), padding, 9.0, 0.5))
        errors, soft = mse.forward(x, up(y)), prediction.forward(x, up(y), 2.0)
        return [*results, errors[0], mse.backward(1.0, errors[1]), soft[0], prediction.backward(1.0, soft[1])]

    for here, there in zip(losses(lambda a: a), losses(lambda a: a.astype(np.float32)), strict=True):
        assert here.dtype == np.float32 and (here == there).all() and here.any()


@pytest.mark.parametrize("narrow, tolerance", [("float16", 1e-2), ("bfloat16", 8e-2)])
@pytest.mark.parametrize("objective", [lambda: Intermediate(CONFIG, TEACHER), Prediction], ids=["intermediate", "prediction"])
def test_a_teacher_answers_in_fewer_bits_and_the_student_learns_in_float32(cupy, objective, narrow, tolerance):
    """10 bits behind the point, or 7: a rounding of 2**-11 = 5e-4, or 2**-8 = 4e-3, through four layers, some twenty times that."""
    narrow, results = _narrow(narrow), {}
    with Workers(1) as workers:
        teacher = Bert.new(TEACHER, 9).to(cupy)
        for dtype in (np.dtype(np.float32), narrow):
            frozen = teacher.astype(dtype)
            learner = Learner(Bert.new(CONFIG, 7).to(cupy), objective(), workers, Running(frozen), seed=3)
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
