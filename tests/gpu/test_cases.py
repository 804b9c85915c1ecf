"""Every operation, loss and model that the audit knows: on the device the numbers are NumPy's, the dtype is kept, nothing comes back."""

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert import audit
from minitinybert.audit import CASES, MODEL_CASES
from minitinybert.engine.device import on_host

pytestmark = pytest.mark.gpu
named = pytest.mark.parametrize("case", (*CASES, *MODEL_CASES), ids=lambda case: case.name)
ROUNDING = {np.float32: audit.TOLERANCES["stored"], np.float64: 1e-11}


@named
@pytest.mark.parametrize("dtype", ROUNDING)
@settings(max_examples=6)
@given(data=st.data())
def test_the_device_says_what_numpy_says(cupy, case, dtype, data):
    draw = laws.HypothesisDraw(data)
    inputs, outputs, cache, dy = laws.called(case, draw, dtype)
    there = inputs.cast(dtype, cupy)
    outputs_there, cache_there = case.run(there)
    gradients_there = case.gradients(there, {name: cupy.asarray(a) for name, a in dy.items()}, cache_there)
    for name, array in {**outputs_there, **gradients_there}.items():
        assert isinstance(array, cupy.ndarray) and array.dtype == dtype, f"{name}: {type(array)} {array.dtype}"
    gradients = case.gradients(inputs, dy, cache)
    laws.judged(audit.compare_all(outputs_there, outputs, gradients_there, gradients, dy), ROUNDING[dtype], draw)


@named
def test_dropout_drops_the_same_places(cupy, case):
    """The masks, bit for bit; all else that chance decided too."""
    dropped = False
    for draw in case.sources(3):
        inputs = case.draw(draw).cast(np.float32)
        given, given_there = (case.given(case.run(i)[1]) for i in (inputs, inputs.cast(np.float32, cupy)))
        masks, there = (_leaves(on_host(g.get("keep"))) for g in (given, given_there))
        assert all(np.array_equal(a, b) for a, b in zip(masks, there, strict=True))
        dropped = any(a is not None and 0 < a.mean() < 1 for a in masks)
        if dropped or "keep" not in given:
            break
    assert dropped is ("keep" in given)


def _leaves(value):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("ops.linear", "losses.hidden")], ids=lambda case: case.name)
def test_the_audit_holds_on_the_device(cupy, case):
    assert all(result.passed for result in audit.run(cupy, cases=[case]))
