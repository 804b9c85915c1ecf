"""Every operation and whole models under every law, and against what PyTorch gave, with the CPU's kernels in the formulas' places."""

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training.test_optim import a_large_model_learns

from minitinybert.audit import CASES, MODEL_CASES, OPTIMISER_CASES
from minitinybert.engine import device
from minitinybert.training.optim import PRESETS

pytest.importorskip("numba", reason="needs numba: pip install 'minitinybert[fast]'")
ALL = [*CASES, *MODEL_CASES, *OPTIMISER_CASES]
REPLACED = [case for case in ALL if case.name.startswith("ops.")]
named = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


@pytest.fixture(scope="module", autouse=True)
def table(nobody_s_kernels):
    """Imported here alone: its import brings the kernels to all that runs in this process."""
    from minitinybert.kernels.cpu.table import TABLE

    device.KERNELS["cpu"].update(TABLE)
    return TABLE


@pytest.mark.parametrize("case", REPLACED, ids=lambda case: case.name)
@pytest.mark.parametrize("law", laws.PURE, ids=lambda law: law.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_law(case, law, data):
    law(case, laws.HypothesisDraw(data))


@named
def test_stored(case):
    laws.check_stored(case)


@pytest.mark.parametrize("threads", [None, 1, 2, 3])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_number_of_a_large_model_learns(preset, threads):
    a_large_model_learns(preset, threads, np.float32)


def test_each_kernel_was_asked(table, monkeypatch):
    """By what the laws draw: an entry that nothing reaches would be no one's."""
    asked = set()
    for operation, kernel in table.items():

        def spy(*arguments, operation=operation, kernel=kernel, **options):
            answer = kernel(*arguments, **options)
            if answer is not NotImplemented:
                asked.add(operation)
            return answer

        monkeypatch.setitem(device.KERNELS["cpu"], operation, spy)
    for case in ALL:
        laws.check_stored(case)
    left = {f"{operation.__module__}.{operation.__name__}" for operation in set(table) - asked}
    assert left == {"minitinybert.model.encoder.forward"}  # no case has a model for reading (test_layer.py)
