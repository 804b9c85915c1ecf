"""Schedules and clipping by their definitions. (Adam itself is held against PyTorch over ten steps in test_model.py.)"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.model.parameters import Layout, Parameters, Slot
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


def test_chunks_on_a_pool_give_the_same_bits():
    from minitinybert.engine.parallel import Workers

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
