"""The laws that every audited case obeys, whatever it computes; tests/ops, tests/losses and test_model.py apply them to their own.

Hypothesis chooses shapes and options (and shrinks them); values come from a generator seeded by it.
"""

import functools

import numpy as np
import pytest
from hypothesis import strategies as st

from minitinybert import audit
from minitinybert.audit import Case, Draw, Inputs


class HypothesisDraw(Draw):
    def __init__(self, data):
        self.seed = data.draw(st.integers(0, 2**32 - 1), "seed")
        self.data = data
        super().__init__(np.random.default_rng(self.seed))

    def integer(self, low, high):
        return self.data.draw(st.integers(low, high))


@functools.cache
def page():
    module, reason = audit.reference_page()
    assert module is not None, reason
    return module


@functools.cache
def twin():
    module, reason = audit.reference_twin()
    if module is None:
        pytest.skip(reason)
    return module


def judged(deviations, tolerance, draw):
    for deviation in deviations:
        assert deviation.error <= tolerance, f"{deviation} (tolerance {tolerance:.0e}, seed {draw.seed})"


def called(case: Case, draw: Draw, dtype=np.float64):
    """Drawn inputs, outputs, cache and random upstream gradients."""
    inputs = case.draw(draw).cast(dtype)
    outputs, cache = case.run(inputs)
    dy = {name: a.astype(dtype) for name, a in audit.upstream(draw, outputs).items()}
    return inputs, outputs, cache, dy


def finite_differences(case, draw):
    found = audit.check_vjp(case, case.draw(draw).cast(np.float64), draw, {}, apart=case.apart > 1)
    judged(found, audit.TOLERANCES["finite differences"], draw)


def pytorch(case, draw):
    judged(audit.check_twin(case, case.draw(draw).cast(np.float64), draw, twin()), audit.TOLERANCES["PyTorch"], draw)


def the_page(case, draw):
    if case.name in page().SILENT:
        pytest.skip(page().SILENT[case.name])
    judged(audit.check_page(case, case.draw(draw).cast(np.float64), draw, page()), audit.TOLERANCES["the page"], draw)


def float32_follows_float64(case, draw):
    """float32 in, float32 out, and the numbers are those of float64 to float32's rounding."""
    inputs, outputs, cache, dy = called(case, draw, np.float32)
    gradients = case.gradients(inputs, dy, cache)
    for name, array in {**outputs, **gradients}.items():
        assert array.dtype == np.float32, f"{name} has dtype {array.dtype}"
    wide = inputs.cast(np.float64)
    expected, cache = case.run(wide)
    exact = case.gradients(wide, {name: a.astype(np.float64) for name, a in dy.items()}, cache)
    judged(audit.compare_all(outputs, expected, gradients, exact, dy), audit.TOLERANCES["stored"], draw)


def float64_is_kept(case, draw):
    inputs, outputs, cache, dy = called(case, draw)
    for name, array in {**outputs, **case.gradients(inputs, dy, cache)}.items():
        assert array.dtype == np.float64, f"{name} has dtype {array.dtype}"


def a_gradient_for_each_argument_in_its_shape(case, draw):
    inputs, _, cache, dy = called(case, draw)
    gradients = case.gradients(inputs, dy, cache)
    assert gradients
    for name, gradient in gradients.items():
        assert gradient.shape == inputs.arrays[name].shape, name


def backward_is_linear(case, draw):
    """J^T(a u + b v) = a J^T u + b J^T v."""
    inputs, _, cache, u = called(case, draw)
    v = {name: draw.normal(*a.shape) for name, a in u.items()}
    a, b = 0.7, -1.9
    mixed = case.gradients(inputs, {name: a * u[name] + b * v[name] for name in u}, cache)
    of_u, of_v = case.gradients(inputs, u, cache), case.gradients(inputs, v, cache)
    floor = audit.FLOOR * audit.norm([*u.values(), *v.values()])  # either may be the larger by far
    for name, gradient in mixed.items():
        expected = a * of_u[name] + b * of_v[name]
        audit.assert_close(f"d {name}", gradient, expected, 1e-10, floor, draw.seed)


def zero_gives_zero(case, draw):
    inputs, _, cache, dy = called(case, draw)
    for name, gradient in case.gradients(inputs, {name: 0 * a for name, a in dy.items()}, cache).items():
        assert not gradient.any(), name


def nothing_is_changed(case, draw):
    """Inputs and upstream gradients stay as they are; forward and backward answer the same, bit for bit, when asked again."""
    inputs, outputs, cache, dy = called(case, draw)
    kept = {name: a.copy() for name, a in {**inputs.arrays, **outputs, **{f"d {n}": a for n, a in dy.items()}}.items()}
    first = {name: g.copy() for name, g in case.gradients(inputs, dy, cache).items()}
    second = case.gradients(inputs, dy, cache)
    again, _ = case.run(inputs)
    for name, gradient in first.items():
        assert np.array_equal(gradient, second[name]), f"d {name} differs when asked again"
    for name, a in {**inputs.arrays, **outputs, **{f"d {n}": a for n, a in dy.items()}}.items():
        assert np.array_equal(a, kept[name]), f"{name} was changed"
    for name, y in again.items():
        assert np.array_equal(y, kept[name]), f"{name} differs when asked again"


def strides_do_not_matter(case, draw):
    inputs, outputs, cache, dy = called(case, draw)
    expected = case.gradients(inputs, dy, cache)
    strange = Inputs({name: restrided(a, draw) for name, a in inputs.arrays.items()}, inputs.settings)
    outputs_2, cache_2 = case.run(strange)
    gradients = case.gradients(strange, {name: restrided(a, draw) for name, a in dy.items()}, cache_2)
    judged(audit.compare_all(outputs_2, outputs, gradients, expected, dy), 1e-12, draw)


def restrided(a, draw):
    """Equal values in another layout: transposed in memory, every second element of a larger array, or backwards."""
    a = np.asarray(a)
    if not a.ndim:
        return a
    kind = draw.integer(0, 2)
    if kind == 0:
        return np.asfortranarray(a)
    if kind == 1:
        wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]
    return np.ascontiguousarray(a[::-1])[::-1]


def large_values_stay_finite(case, draw):
    """Inputs 10,000 times as large: no overflow, nothing that is not a number (NumPy's warnings are errors)."""
    inputs, *_ = called(case, draw)
    large = Inputs({name: a * 1e4 if a.dtype.kind == "f" else a for name, a in inputs.arrays.items()}, inputs.settings).cast(np.float32)
    outputs, cache = case.run(large)
    dy = {name: a.astype(np.float32) for name, a in audit.upstream(draw, outputs).items()}
    for name, array in {**outputs, **case.gradients(large, dy, cache)}.items():
        assert np.isfinite(array).all(), name


PURE = [
    finite_differences,
    pytorch,
    the_page,
    float32_follows_float64,
    float64_is_kept,
    a_gradient_for_each_argument_in_its_shape,
    backward_is_linear,
    zero_gives_zero,
    nothing_is_changed,
    strides_do_not_matter,
    large_values_stay_finite,
]


def check_stored(case: Case):
    """float32 against what PyTorch gave, PyTorch or not."""
    examples = audit.stored(case.name)
    assert len(examples) >= 2
    for example in examples:
        for deviation in audit.check_stored(case, example):
            assert deviation.error <= audit.TOLERANCES["stored"], str(deviation)
