"""The sides of a comparison: PyTorch as it comes, at its best in float32, in bf16; onnxruntime; and how fast each multiplies.

A ratio to a library says as much about whose matrix products it has as about anything else. So every bench has these columns, and beside
them what each side reaches in one large product, and whose code that is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from common import measure
from threadpoolctl import threadpool_info, threadpool_limits

try:
    import onnx  # noqa: F401  a graph is made with it
    import onnxruntime
except ImportError:
    onnxruntime = None


class Side(NamedTuple):
    """How PyTorch is to multiply."""

    precision: str = "highest"  # as torch.set_float32_matmul_precision takes it; "medium" is float32 too, by a library of its choice
    dtype: torch.dtype = torch.float32  # of a teacher's weights, and of a student's products (by autocast)

    def on(self, job: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            torch.set_float32_matmul_precision(self.precision)
            return job(*arguments)

        return run


SIDES = {"default": Side(), '"medium"': Side("medium"), "bf16": Side("medium", torch.bfloat16)}  # of the first two the best in float32
ONNX = "onnxruntime"


def beside(way: str, side: str) -> str:
    """What a way that PyTorch is given its sentences is called, on a side."""
    return way if side == "default" else f"{way}, {side}"


def peaks(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """GFLOP/s of each side in its best of some large products, and whose code that is; printed."""
    n = 256 if args.quick else 2048
    a, b = np.random.default_rng(0).random((2, n, n), np.float32)
    c = np.empty_like(a)
    jobs: dict[str, Callable[[int], object]] = {"ours": lambda _: np.matmul(a, b, out=c)}
    for name, side in SIDES.items():
        s, t = (torch.from_numpy(x).to(side.dtype) for x in (a, b))
        jobs[beside("PyTorch", name)] = side.on(lambda _, s=s, t=t: torch.mm(s, t))
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    blas = next((lib for lib in libraries if "numpy" in lib["filepath"]), libraries[0] if libraries else {})  # SciPy brings its own
    code = {"ours": f"{blas.get('internal_api')} {blas.get('version')}, {blas.get('architecture')} kernels"}
    config = [line.strip(" -").split(" for ")[0] for line in torch.__config__.show().splitlines()]
    by = {True: [line for line in config if "MKL-DNN" in line], False: [line for line in config if "Math Kernel Library" in line]}
    for name, side in SIDES.items():
        code[beside("PyTorch", name)] = ", ".join(by[side.precision == "medium"]) or "unknown"
    if onnxruntime is not None:
        session, code[ONNX] = onnx_session(_product(b), args), f"MLAS of {onnxruntime.__version__}"
        jobs[ONNX] = lambda _: session.run(None, {"x": a})
    with threadpool_limits(args.threads, user_api="blas"), torch.inference_mode():
        seconds = measure(jobs, max(7, args.pairs), 2)
    found = {who: {"gflops": 2 * n**3 / min(times) / 1e9, "code": code[who]} for who, times in seconds.items()}
    print("; ".join(f"{who}: {peak['gflops']:.0f} GFLOP/s ({peak['code']})" for who, peak in found.items()), flush=True)
    return found


def onnx_session(proto: Any, args: argparse.Namespace) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, args.threads
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _product(b: np.ndarray) -> Any:
    """A graph that multiplies by b."""
    from onnx import TensorProto, helper, numpy_helper

    of = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, b.shape)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "b"], ["y"])], "product", [of("x")], [of("y")], [numpy_helper.from_array(b, "b")]
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
