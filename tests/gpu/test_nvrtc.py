"""NVIDIA's own compiler takes every kernel of the training steps, ours and those that CuPy generates, for real architectures: it needs
no device. The sources are those that CuPy asks for when the steps run, in a process of its own.
"""

import ctypes
import importlib.util
import inspect
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu
ARCHITECTURES = ["sm_80", "sm_90"]


def _nvidia(package, pattern):
    spec = importlib.util.find_spec("nvidia")
    return [found for place in (spec.submodule_search_locations if spec else []) for found in Path(place).glob(f"{package}/{pattern}")]


@pytest.fixture(scope="module")
def sources(cupy, tmp_path_factory):
    """[(source, options, name expressions)] of two optimiser steps of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, __file__, "record", str(folder / "sources.json")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return folder / "sources.json"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_of_a_step_compiles(sources, architecture):
    libraries = _nvidia("cuda_nvrtc", "lib/libnvrtc.so.*[0-9]")
    if not libraries:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc-cu12")
    includes = [str(folder) for folder in _nvidia("cuda_runtime", "include")]
    arguments = [sys.executable, "-I", __file__, "compile", str(sources), str(libraries[0]), architecture, *includes]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = json.loads(done.stdout)
    assert len(kernels) >= 30 and any("attention_forward" in text for text in kernels) and any("cupy_" in text for text in kernels)


def record(path):
    """In a process of its own: what CuPy compiles in the steps of test_transfers.py."""
    import cupy
    import numpy as np
    from cupy.cuda import compiler
    from test_train import examples

    from gpu import test_transfers as steps
    from minitinybert.bert import Bert
    from minitinybert.device import float_type
    from minitinybert.learner import Learner
    from minitinybert.optim import PRESETS, Adam
    from minitinybert.parallel import Workers

    dtypes = [np.float32, np.float16]
    if importlib.util.find_spec("ml_dtypes"):
        dtypes.append(float_type("bfloat16"))
    seen = []

    asked = compiler._compile_with_cache_cuda

    def noted(*given, **named):
        call = inspect.signature(asked).bind(*given, **named).arguments
        seen.append((call["source"], [*call["options"], "-ftz=true"], list(call.get("name_expressions") or ())))
        return asked(*given, **named)

    compiler._compile_with_cache_cuda = noted
    for (config, objective, kind, preset), dtype in itertools.product(steps.STEPS.values(), dtypes):
        batch = steps.batch_of(kind, examples(), np.arange(9))
        with Workers(1) as workers:
            learner = Learner(Bert.new(config, 7).to(cupy), objective(), workers, Bert.new(steps.TEACHER, 9).to(cupy).astype(dtype), seed=3)
            adam = Adam(learner.student.parameters, PRESETS[preset])
            for step in range(2):
                adam.step(learner.gradients(batch, step)[1], 1e-3)
    Path(path).write_text(json.dumps(seen), encoding="utf-8")


def compile_all(path, library, architecture, *includes):
    """In a process without CuPy: prints the sources' kernels; exit status 1, and the log, where one does not compile."""
    nvrtc = ctypes.CDLL(library)
    texts = lambda items: (ctypes.c_char_p * len(items))(*[item.encode() for item in items])
    kernels = []
    for source, options, names in json.loads(Path(path).read_text(encoding="utf-8")):
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        for name in names:
            nvrtc.nvrtcAddNameExpression(program, name.encode())
        given = [*options, *(f"-I{folder}" for folder in includes), f"-arch={architecture}"]
        if nvrtc.nvrtcCompileProgram(program, len(given), texts(given)):
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            sys.exit(f"{given}\n{log.value.decode()}\n{source}")
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, code)
        assert code.raw[:4] == b"\x7fELF"
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        kernels.append(next((line for line in source.splitlines() if "__global__ void " in line), ""))
    print(json.dumps(kernels))


if __name__ == "__main__":
    {"record": record, "compile": compile_all}[sys.argv[1]](*sys.argv[2:])
