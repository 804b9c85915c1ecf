"""NVIDIA's own compilers, CUDA 12's and 13's, take every kernel, for real architectures: they need no device. The sources are those that
CuPy generates when steps, commands and the audit's cases run, in a process of its own; and each of ours for the widths, dtypes and ways
there are, which small models do not have.
"""

import ctypes
import importlib.util
import inspect
import itertools
import json
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.gpu
ARCHITECTURES = ["sm_80", "sm_90"]
WHEELS = {  # CUDA's major version -> NVRTC and the runtime's headers in the folder nvidia, and the packages that bring them
    12: ("cuda_nvrtc/lib/libnvrtc.so.12", "cuda_runtime/include/cuda_fp16.h", "nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12"),
    13: ("cu13/lib/libnvrtc.so.13", "cu13/include/cuda_fp16.h", "nvidia-cuda-nvrtc nvidia-cuda-runtime"),
}


def nvrtc(cuda):
    """(the library, the folder of headers) of CUDA 12 or 13; None where one of them is not here."""
    spec = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (spec.submodule_search_locations if spec else [])]
    library, header = (next((place / name for place in places if (place / name).exists()), None) for name in WHEELS[cuda][:2])
    return (library, header.parent) if library and header else None


def kernels(kind=None):
    """Every kernel of ours, by name: those of CUDA C, or of another `kind`."""
    from minitinybert.kernels import cuda
    from minitinybert.kernels.cuda.launch import Kernel

    modules = [importlib.import_module(f"{cuda.__name__}.{module.name}") for module in pkgutil.iter_modules(cuda.__path__)]
    return {value.name: value for module in modules for value in vars(module).values() if isinstance(value, kind or Kernel)}


def variants():
    """(a kernel's name, dtype, constants): rows of a warp and of a block, in fours and not, of BERT's widths and as wide as registers can
    hold; heads of usual widths and of 300; and all that a constant may leave out."""
    from minitinybert.kernels.cuda.attention import sizes
    from minitinybert.kernels.cuda.launch import BLOCK_SUMS, sharing

    wide, all_types = ("float32", "float64"), ("float32", "float64", "float16", *(["bfloat16"] if _has_bfloat16() else []))
    both = lambda **named: [dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())]
    of_rows = lambda dtype, *widths: [{**sharing(width, dtype), "ALIGNED": aligned} for width, aligned in widths]
    widest = {"float64": 4096}
    of_heads = lambda dtype: [
        {**sizes(length, W, np.dtype(dtype), bool(ONE)), "ONE": ONE}
        for length, W, ONE in ((32, 26, 1), (64, 300, 0), (512, 64, 0), (64, 26, 0), (128, 64, 0))
    ]
    of_fours = (0, 1, 2)  # one by one, at once, in twos
    for dtype in all_types:
        for number, heads in enumerate(of_heads(dtype)):
            yield "attention_forward", dtype, {**heads, "MASK": heads["ONE"], "DROP": number % 2}
        for on, row in zip((0, 1, 1, 1, 1, 1), of_rows(dtype, (1030, 0), (312, 1), (312, 0), (768, 1), (1023, 0), (1024, 1)), strict=True):
            yield "norm_forward", dtype, {**row, "ADD": on, "DROP": on}
            ids = dict(zip(("WORD", "PLACE", "PART"), map(np.dtype, ("int32", "int64", "int64")), strict=True))
            yield "embed_norm_forward", dtype, {**row, **ids, "DROP": on}
        yield "take_rows", dtype, {"ALIGNED": 0}
        for constants in both(ALIGNED=of_fours, TANH=(0, 1)):
            yield "gelu_forward", dtype, constants
    for dtype in wide:
        for heads, DROP in itertools.product(of_heads(dtype), (0, 1)):
            yield "attention_forward", dtype, {**heads, "MASK": 1 - DROP, "DROP": DROP}
            yield "attention_backward_queries", dtype, {**heads, "DROP": DROP, "MORE": DROP}
            yield "attention_backward_keys", dtype, {**heads, "DROP": DROP}
        usual = (312, 1), (768, 1), (1023, 0), (1024, 1), (1030, 2), (1022, 2), (widest.get(dtype, 8192), 1)
        for row, (BIASED, DROP, DROPPED) in itertools.product(of_rows(dtype, *usual), ((1, 1, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))):
            yield "norm_backward", dtype, {**row, "BIASED": BIASED, "DROP": DROP, "DROPPED": DROPPED}
        for ALIGNED in (0, 1):
            yield "gelu_backward", dtype, {"ALIGNED": ALIGNED, "BIASED": ALIGNED}
            for Y in map(np.dtype, all_types if ALIGNED else [dtype]):
                yield "mse_forward", dtype, {"MASK": ALIGNED, "Y": Y, **BLOCK_SUMS}
        for (MASK, PADDING), Y in zip(((0, 0), (1, 0), (0, 1), (1, 1)), itertools.cycle(map(np.dtype, all_types)), strict=False):
            yield "compare_scores", dtype, {"MASK": MASK, "PADDING": PADDING, "ONE": 0, "Y": Y, **BLOCK_SUMS}
        for row in of_rows(dtype, (2, 0), (30522, 2), (119_547, 0), (1024, 1)):
            for Y in map(np.dtype, all_types if row["ALIGNED"] else [dtype]):
                yield "entropy_forward", dtype, {**row, "TEACHER": row["ALIGNED"] > 0, "LABEL": np.dtype("int64"), "Y": Y}
        for row in of_rows(dtype, (128, 1), (1030, 2), (1030, 0)):
            yield "dropout_forward", dtype, row
        for name in ("total", "squares", "norm_factor", "factors", "scale_tensors"):
            yield name, dtype, BLOCK_SUMS
        for name in ("column_sums", "give_rows"):
            yield name, dtype, {"ALIGNED": 0}
        for ALIGNED in (0, 1):
            yield "sum_rows", dtype, {"ALIGNED": ALIGNED}
            yield "add_rows", dtype, {"ALIGNED": ALIGNED, "N": 8 - 5 * ALIGNED}
            yield "sort_ids", dtype, {"ALIGNED": 0, "ID": np.dtype(("int32", "int64")[ALIGNED])}


def _has_bfloat16():
    return importlib.util.find_spec("ml_dtypes") is not None


@pytest.fixture
def sources(cupy, tmp_path):
    """A file of [(source, options, name expressions)]."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, __file__, "record", str(tmp_path / "sources.json")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "sources.json"


@pytest.fixture
def compilers(request):
    """A process for each CUDA and architecture, at once. (Not a test for each: every process of pytest-xdist would record the sources.)"""
    here = {cuda: paths for cuda in WHEELS if (paths := nvrtc(cuda))}
    if not here:
        pytest.skip("NVRTC is not installed")  # test_nvrtc_is_here says what brings it
    sources = request.getfixturevalue("sources")
    started = {}
    for (cuda, (library, include)), architecture in itertools.product(here.items(), ARCHITECTURES):
        arguments = [sys.executable, "-I", __file__, "compile", sources, library, include, architecture]
        started[f"CUDA {cuda}, {architecture}"] = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield started
    for process in started.values():
        process.kill()


@pytest.mark.parametrize("cuda", WHEELS)
def test_nvrtc_is_here(cuda):
    """By which the test below compiles: it is of this CUDA, and knows the architectures."""
    if not (paths := nvrtc(cuda)):
        pytest.skip(f"NVRTC of CUDA {cuda} is not installed: pip install {WHEELS[cuda][2]}")
    done = subprocess.run([sys.executable, "-I", __file__, "version", paths[0]], capture_output=True, text=True, check=True)
    version, *architectures = done.stdout.split()
    assert version == str(cuda) and set(ARCHITECTURES) <= set(architectures)


def test_every_kernel_compiles(cupy, compilers):
    elementwise = kernels(cupy.ElementwiseKernel)
    for compiler, process in compilers.items():
        out, error = process.communicate(timeout=600)  # a row unrolled over the width of a vocabulary does not come to an end
        assert process.returncode == 0, compiler + out + error
        compiled = set(json.loads(out))
        assert elementwise and compiled >= kernels().keys() | elementwise.keys()
        assert sum(name.startswith("cupy_") for name in compiled) > 30  # CuPy's own


def test_every_kernel_has_variants(cupy):
    assert {name for name, *_ in variants()} == kernels().keys()


def record(path):
    """In a process of its own: what CuPy generates where a device is at work, then the variants, with CuPy's options."""
    from cupy.cuda import compiler

    from minitinybert import machine
    from minitinybert.kernels.cuda.launch import OPTIONS, code_of

    seen = []

    asked = compiler._compile_with_cache_cuda

    def noted(*given, **named):
        call = inspect.signature(asked).bind(*given, **named).arguments
        seen.append((call["source"], [*call["options"], "-ftz=true"], list(call.get("name_expressions") or ())))
        return asked(*given, **named)

    compiler._compile_with_cache_cuda = noted
    machine.select("cuda")  # brings the kernels
    _steps()
    _commands(Path(path).parent)
    _cases()
    options = [*OPTIONS, *(option for option in seen[0][1] if option.startswith("-I")), "-ftz=true"]
    known = kernels()
    seen = [each for each in seen if known.keys().isdisjoint(_names(each[0]))]
    seen += [(code_of(known[name].source, np.dtype(dtype), constants), options, ()) for name, dtype, constants in variants()]
    Path(path).write_text(json.dumps(seen), encoding="utf-8")


def _steps():
    """Those of test_transfers.py, and two that few recipes have."""
    import cupy
    from training.test_loop import CONFIG, examples

    from gpu import test_transfers as steps
    from minitinybert.distillation.distill import Intermediate
    from minitinybert.distillation.recipes import Recipe
    from minitinybert.engine.parallel import Workers
    from minitinybert.machine import float_type
    from minitinybert.model.bert import Bert
    from minitinybert.training.optim import PRESETS, Adam
    from minitinybert.training.shares import Learner
    from minitinybert.training.teacher import Running

    more = replace(steps.TEACHER, num_attention_heads=2 * CONFIG.num_attention_heads)
    averaged = lambda padding: (
        lambda: Intermediate(CONFIG, more, Recipe(heads="average", padding=padding), {"hidden": 0.5, "attention": 0.5})
    )
    rare = [(CONFIG, averaged(padding), kind, "adamw") for padding, kind in (("count", "padded"), ("exclude", "packed"))]
    ampere = int(cupy.cuda.Device().compute_capability) >= 80
    dtypes = [np.float32, np.float16, *([float_type("bfloat16")] if _has_bfloat16() and ampere else [])]
    for (config, objective, kind, preset), dtype in itertools.product([*steps.STEPS.values(), *rare], dtypes):
        made, batch = objective(), steps.batch_of(kind, examples(), np.arange(9))
        teacher = Bert.new(more if isinstance(made, Intermediate) and not made.heads.same else steps.TEACHER, 9)
        with Workers(1) as workers:
            learner = Learner(Bert.new(config, 7).to(cupy), made, workers, Running(teacher.to(cupy).astype(dtype)), seed=3)
            adam = Adam(learner.student.parameters, PRESETS[preset])
            for step in range(2):
                adam.step(learner.gradients(batch, step)[1], 1e-3)


def _commands(folder):
    """Those of test_commands.py, and what one does with the models."""
    from commands.test_cli_method import make_world

    from gpu.test_commands import method
    from minitinybert.commands.cli import main

    (world := folder / "world").mkdir()
    make_world(world)
    commands = [(*arguments, "--out", folder / name) for name, arguments in method(world, folder).items()]
    commands += [("evaluate", "--model", folder / "teacher", "--task", "sst-2", "--data", world)]
    commands += [("predict", "--model", folder / "student", "the film is good")]
    for arguments in commands:
        assert main([str(a) for a in (*arguments, "--device", "cuda", "--json")]) == 0, arguments


def _cases():
    """Each operation, loss and model that the audit knows, once."""
    import cupy

    from minitinybert.audit import CASES, MODEL_CASES, Draw, upstream

    for case in (*CASES, *MODEL_CASES):
        draw = Draw(np.random.default_rng(3), large=True)
        inputs = case.draw(draw).cast(np.float32, cupy)
        outputs, cache = case.run(inputs)
        case.gradients(inputs, {name: cupy.asarray(a, np.float32) for name, a in upstream(draw, outputs).items()}, cache)


def version(library):
    """In a process without CuPy: NVRTC's major version, and its architectures."""
    nvrtc = ctypes.CDLL(library)
    major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    assert nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == 0
    assert nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)) == 0
    architectures = (ctypes.c_int * count.value)()
    assert nvrtc.nvrtcGetSupportedArchs(architectures) == 0
    print(major.value, *(f"sm_{number}" for number in architectures))


def compile_all(path, library, include, architecture):
    """In a process without CuPy: prints the names of the sources' kernels; exit status 1, and the log, where one does not compile or
    keeps in memory what registers are for.

    CuPy's options name the headers of one CUDA, where several are here not always those of its own: `include` takes their place.
    """
    nvrtc = ctypes.CDLL(library)
    texts = lambda items: (ctypes.c_char_p * len(items))(*[item.encode() for item in items])
    compiled = []
    for source, options, names in json.loads(Path(path).read_text(encoding="utf-8")):
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        for name in names:
            nvrtc.nvrtcAddNameExpression(program, name.encode())
        ours = [option for option in options if not (option.startswith("-I") and Path(option[2:], "cuda_fp16.h").exists())]
        given = [*ours, f"-I{include}", f"-arch={architecture}", "--ptxas-options=-v"]
        failed = nvrtc.nvrtcCompileProgram(program, len(given), texts(given))
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        if failed or re.search("[1-9][0-9]* bytes (spill|stack)", log.value.decode()):  # registers that do not suffice are memory
            sys.exit(f"{given}\n{log.value.decode()}\n{source}")
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, code)
        assert code.raw[:4] == b"\x7fELF"
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        compiled += _names(source)
    print(json.dumps(compiled))


def _names(source):
    return re.findall(r"__global__ void (\w+)\(", source)


if __name__ == "__main__":
    {"record": record, "version": version, "compile": compile_all}[sys.argv[1]](*sys.argv[2:])
