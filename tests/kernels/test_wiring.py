"""Where kernels of the CPU come from, and what stands in where there are none."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minitinybert.engine import device
from minitinybert.training import loop


def test_what_a_kernel_does_not_take_the_formula_answers(monkeypatch):
    @device.fused
    def twice(x):
        return 2 * x

    taken = []

    def kernel(x):
        taken.append(x)
        return NotImplemented if x.dtype == np.float16 else -x

    monkeypatch.setitem(device.KERNELS["cpu"], twice.__wrapped__, kernel)
    assert twice(np.float32([3.0]))[0] == -3 and twice(np.float16([3.0]))[0] == 6 and len(taken) == 2


def python(code, **environment):
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip(), ran.stderr.strip()


COUNT = (
    "from minitinybert import machine; machine.select('cpu'); from minitinybert.engine.device import KERNELS; print(len(KERNELS['cpu']))"
)
ABSENT = "import sys; sys.modules['numba'] = None; "


def test_a_machine_brings_them_where_numba_is():
    pytest.importorskip("numba")
    assert int(python(COUNT, MINITINYBERT_NUMBA="")[0]) > 0
    assert python(COUNT, MINITINYBERT_NUMBA="0") == ("0", "")


def test_without_numba_there_are_none_and_nobody_complains():
    assert python(ABSENT + COUNT, MINITINYBERT_NUMBA="") == ("0", "")


OLD = """
import sys, types
sys.modules["numba"] = types.ModuleType("numba")
sys.modules["numba"].__version__ = "0.61.2"
from minitinybert import extras
print(extras.no_numba())
"""


def test_a_numba_that_is_too_old_is_not_asked():
    """Its compiler ends the process where it meets what it does not know."""
    assert python(OLD + COUNT, MINITINYBERT_NUMBA="") == (
        "numba 0.61.2 is too old; pip install 'minitinybert[fast]' brings 0.62 or newer\n0", ""
    )


@pytest.mark.parametrize(
    "kernels, switch, line",
    [({1: 2}, "", "passes by numba"), ({}, "0", "plain NumPy passes: MINITINYBERT_NUMBA=0"), ({}, "", "plain NumPy passes; ")],
)
def test_training_says_once_whose_passes_run(monkeypatch, capsys, kernels, switch, line):
    monkeypatch.setitem(device.KERNELS, "cpu", kernels)
    monkeypatch.setenv("MINITINYBERT_NUMBA", switch)
    monkeypatch.setenv("MINITINYBERT_QUIET", "0")
    loop._say_whose_passes.cache_clear()
    for _ in range(2):
        loop._say_whose_passes()
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
    loop._say_whose_passes.cache_clear()


COMPILE = """
import numpy as np
from minitinybert.kernels.cpu import passes
x = np.ones(5, np.float32)
passes.dropout_backward(x, x > 0, 2.0, x), passes.dropout_backward(x.astype(float), x > 0, 2.0, x.astype(float))
"""


def test_compiling_is_announced_once_and_only_when_it_happens(tmp_path):
    """The second process finds the machine code that the first has left."""
    pytest.importorskip("numba")
    where = {"NUMBA_CACHE_DIR": str(tmp_path), "MINITINYBERT_QUIET": ""}
    assert python(COMPILE, **where)[1] == "compiling the CPU kernels, once for this machine…"
    assert python(COMPILE, **where)[1] == ""


def test_without_a_folder_to_write_to_they_are_compiled_all_the_same():
    pytest.importorskip("numba")
    nowhere = "import numba.core.caching as c; c.CacheImpl._locator_classes = []"
    said = python(nowhere + COMPILE, MINITINYBERT_QUIET="")[1]
    assert said == "compiling the CPU kernels, once for this machine…"
