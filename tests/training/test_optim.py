"""Schedules, clipping and Adam by their definitions. (Adam is held against PyTorch over ten steps in test_model.py, too.)"""

import contextlib

import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert import audit
from minitinybert.engine.parallel import Workers
from minitinybert.model.parameters import ALIGN, Layout, Parameters, Slot
from minitinybert.training import optim
from minitinybert.training.loop import Options
from minitinybert.training.optim import PRESETS, Adam, AdamSettings, constant, warmup_linear

LAYOUT = Layout([Slot("a.weight", (3, 5)), Slot("a.bias", (3,)), Slot("LayerNorm.weight", (70,))])


def filled(seed, scale=1.0):
    parameters = Parameters.zeros(LAYOUT, np.float64)
    rng = np.random.default_rng(seed)
    for name in parameters:
        parameters[name][...] = rng.standard_normal(parameters[name].shape) * scale
    return parameters


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_linear_schedule(total, share):
    warmup = round(share * total)
    factors = [warmup_linear(step, total, warmup) for step in range(total)]
    assert all(0 <= f <= 1 for f in factors)
    if warmup < total:
        assert factors[warmup] == 1
    assert warmup_linear(total, total, warmup) == 0
    assert all(np.diff(factors[:warmup]) > 0) and all(np.diff(factors[warmup:]) < 0)


def test_bert_adam_s_warm_up_is_a_share_and_not_a_number_of_steps():
    """Its schedule is of the share x of all steps that are done: x/0.1 to x = 0.1, then (1 − x)/0.9."""
    options = Options(warmup=0.1, optimizer="bert-adam")
    factors = [warmup_linear(step, 15, options.warmup_of(15)) for step in range(15)]
    assert factors == pytest.approx([0, 1 / 1.5, *((1 - step / 15) / 0.9 for step in range(2, 15))], rel=1e-12)
    assert Options(warmup=0.1).warmup_of(15) == 2 and Options(warmup=10_000, optimizer="bert").warmup_of(15) == 10_000


def test_constant_schedule():
    """The released code's intermediate step has no warm-up."""
    assert [constant(s, 10, 4) for s in range(7)] == [1] * 7


def test_clipping_global_keeps_the_direction_and_tensor_keeps_each():
    adam = lambda kind: Adam(filled(0), AdamSettings(clip=kind, max_norm=1.0))
    grads = filled(0, 10)
    assert np.linalg.norm(grads.flat * adam("global")._clip(grads)) == pytest.approx(1, rel=1e-5)
    assert (grads.flat == filled(0, 10).flat).all()
    assert adam("global")._clip(filled(1, 1e-3)) == 1
    assert adam("tensor")._clip(grads) is None
    for name in grads:
        assert np.linalg.norm(grads[name]) == pytest.approx(1, rel=1e-5)
    small = filled(1, 1e-3)
    adam("tensor")._clip(small)
    assert (small.flat == filled(1, 1e-3).flat).all()
    assert adam("none")._clip(filled(0, 10)) is None


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_first_step_by_hand(preset):
    """After one step m = (1-β₁)g and v = (1-β₂)g², with or without the correction that makes them g and g²."""
    settings = AdamSettings(**{**PRESETS[preset].__dict__, "clip": "none"})
    parameters, grads, before = filled(0), filled(1), filled(0)
    g = filled(1)
    Adam(parameters, settings).step(grads, 0.01)
    for name in parameters:
        m, v = (1.0, 1.0) if settings.bias_correction else (1 - settings.beta1, 1 - settings.beta2)
        update = m * g[name] / (np.sqrt(v) * abs(g[name]) + settings.eps)
        decay = settings.weight_decay if name == "a.weight" else 0
        assert np.allclose(parameters[name], before[name] - 0.01 * (update + decay * before[name]), rtol=1e-12)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_what_is_passed_over_stays_and_the_rest_moves_as_ever(preset):
    """Its gradient is zero, as of a tensor that no loss reaches: without being passed over it would decay all the same."""
    runs = []
    for passed_over in ((), ("a.weight",), ("a.weight", "a.bias")):
        parameters = filled(0)
        adam = Adam(parameters, PRESETS[preset], passed_over=passed_over)
        for seed in range(3):
            grads = filled(seed, 1e-3)
            grads["a.weight"][...] = grads["a.bias"][...] = 0
            adam.step(grads, 0.1)
        runs.append(parameters)
    decays, kept, both = runs
    assert not np.array_equal(decays["a.weight"], filled(0)["a.weight"])
    for run in (kept, both):
        assert np.array_equal(run["a.weight"], filled(0)["a.weight"])
        for name in set(run) - {"a.weight"}:
            assert np.array_equal(run[name], decays[name]), name


WEIGHTS, BIASES = 600_000, 270_000  # each more than the optimiser takes at a time; the last weight decays, and no gap comes after it
assert WEIGHTS % ALIGN == 0 and min(WEIGHTS, BIASES) > optim._CHUNK


def written_out(preset, theta, gradients, lr):
    """θ after a step for each gradient, by the formulas, number by number: weights first."""
    m, v, weight = np.zeros_like(theta), np.zeros_like(theta), np.arange(theta.size) < WEIGHTS
    eps = 1e-8 if preset == "adamw" else 1e-6
    for t, gradient in enumerate(gradients, 1):
        norm = np.sqrt((gradient**2).sum())
        if preset == "bert-adam":  # each tensor by itself
            norm = np.where(weight, np.sqrt((gradient[:WEIGHTS] ** 2).sum()), np.sqrt((gradient[WEIGHTS:] ** 2).sum()))
        g = gradient * np.minimum(1, 1 / (norm + 1e-6))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        c1, c2 = (1 - 0.9**t, 1 - 0.999**t) if preset == "adamw" else (1, 1)
        theta = theta - lr * (m / c1 / (np.sqrt(v / c2) + eps) + 0.01 * weight * theta)
    return theta


def taken(preset, theta, gradients, lr, threads, dtype):
    """The same by Adam, on so many threads; None: without a pool."""
    parameters = Parameters.zeros(Layout([Slot("a.weight", (WEIGHTS,)), Slot("a.bias", (BIASES,))]), dtype)
    parts = lambda a: {"a.weight": a[:WEIGHTS], "a.bias": a[WEIGHTS:]}
    grads = parameters.zeros_like()
    with contextlib.nullcontext() if threads is None else Workers(threads) as workers:
        adam = Adam(parameters, PRESETS[preset], workers)
        for values, into in ((theta, parameters), *((gradient, grads) for gradient in gradients)):
            for name, part in parts(values).items():
                into[name][...] = part
            if into is grads:
                adam.step(grads, lr)
    return np.concatenate([parameters["a.weight"], parameters["a.bias"]])


def a_large_model_learns(preset, threads, dtype):
    """Every number, and of those that decay the last; in steps whose gradient is clipped, and is not."""
    rng = np.random.default_rng(5)
    theta, gradients = rng.standard_normal(WEIGHTS + BIASES), [rng.standard_normal(WEIGHTS + BIASES) * scale for scale in (1, 1e-4, 3)]
    theta, gradients = theta.astype(np.float32).astype(float), [g.astype(np.float32).astype(float) for g in gradients]
    expected, found = written_out(preset, theta, gradients, 0.1), taken(preset, theta, gradients, 0.1, threads, dtype)
    tolerance = {np.float64: 1e-12, np.float32: 2e-6}[dtype]
    change = abs(expected - theta)
    assert (abs(found - expected) <= tolerance * (1 + change)).all()
    assert (change > 20 * tolerance).mean() > 0.999 and min(change[WEIGHTS - 1], change[-1]) > 20 * tolerance


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("threads", [None, 1, 2, 3])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_number_of_a_large_model_learns(preset, threads, dtype):
    a_large_model_learns(preset, threads, dtype)


@pytest.mark.parametrize("case", audit.OPTIMISER_CASES, ids=lambda case: case.name)
def test_the_audit_s_cases_by_pytorch_the_page_and_what_is_stored(case):
    laws.check_stored(case)
    for number in (0, 1):
        inputs = case.draw(draw := case.sources(3)[number]).cast(np.float64)
        judged = audit.check_twin(case, inputs, draw, laws.twin())
        if case.name not in laws.page().SILENT:
            judged += audit.check_page(case, inputs, draw, laws.page())
        assert judged and max(deviation.error for deviation in judged) <= 1e-10, judged


def test_chunks_on_a_pool_give_the_same_bits():
    big = Layout([Slot("w.weight", (700, 700)), Slot("w.bias", (700,))])
    results = []
    for threads in (1, 2):
        parameters, grads = Parameters.zeros(big), Parameters.zeros(big)
        with Workers(threads) as workers:
            adam = Adam(parameters, workers=workers)
            for seed in range(3):
                grads.flat[...] = np.random.default_rng(seed).standard_normal(big.size)
                adam.step(grads, 0.1)
        results.append(parameters.flat)
    assert (results[0] == results[1]).all() and abs(results[0]).max() > 0.1
