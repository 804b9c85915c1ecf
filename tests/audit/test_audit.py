"""The audit itself: that it misses no operation, that its judges can say no, and what it prints."""

import dataclasses
import importlib
import json
import math
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import minitinybert.losses
import minitinybert.ops
from minitinybert import audit
from minitinybert.audit import CASES, MODEL_CASES, Draw, Inputs, judges
from minitinybert.commands.cli import main
from minitinybert.ops import softmax

QUICK = [case for case in CASES if case.name in ("ops.linear", "ops.softmax", "losses.hidden")]


def backward_modules():
    """Every module in ops/ and losses/ that has a backward, by the name its case must have."""
    for package in (minitinybert.ops, minitinybert.losses):
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if hasattr(importlib.import_module(info.name), "backward"):
                yield info.name.removeprefix("minitinybert.")


def test_every_backward_has_a_case_and_stored_outputs():
    names = {case.name for case in CASES}
    assert names == set(backward_modules())
    for case in (*CASES, *MODEL_CASES):
        for example in audit.stored(case.name):
            assert example.outputs and example.gradients, case.name


def test_every_case_has_a_twin():
    pytest.importorskip("torch")
    from minitinybert_reference import twin

    assert set(twin.twins()) == {case.name for case in (*CASES, *MODEL_CASES)}


def test_the_formula_is_the_module_s():
    """What the audit prints stands in the docstring of the module it audits."""
    plain = lambda text: "".join(text.split())
    for case in CASES:
        module = importlib.import_module(f"minitinybert.{case.name}")
        for equation in case.formula.split(",  "):
            assert plain(equation) in plain(module.__doc__), (case.name, equation)


def test_stored_versions_are_said():
    versions = json.loads((audit.stored_folder() / "versions.json").read_text(encoding="utf-8"))
    assert set(versions) == {"python", "numpy", "torch", "seed"}


@pytest.mark.parametrize("seed", range(3))
def test_every_gradient_holds(seed):
    results = audit.run(seed=seed, cases=CASES)
    assert all(result.passed for result in results), audit.format_table(results)


def wrong(case, backward):
    return dataclasses.replace(case, backward=backward)


def test_each_judge_can_say_no():
    """A gradient wrong by a millionth of its size in one place, or by a part in ten thousand, is found."""
    case = QUICK[0]
    scaled = wrong(case, lambda dy, cache: {name: g * (1 + 1e-4) for name, g in case.backward(dy, cache).items()})
    verdicts = audit.run(cases=[scaled])[0].verdicts
    assert not any(v.passed for v in verdicts.values() if not v.absent)

    def one_place(dy, cache):
        gradients = case.backward(dy, cache)
        gradients["W"] = gradients["W"].copy()
        gradients["W"].flat[0] += 1e-4 * np.linalg.norm(gradients["W"])
        return gradients

    verdict = audit.run(cases=[wrong(case, one_place)])[0].verdicts["finite differences"]
    assert not verdict.passed and "d W" in verdict.worst


def test_a_gradient_of_the_wrong_shape_or_no_number_fails():
    case = QUICK[0]
    for spoil in (lambda g: g[..., None], lambda g: g * math.nan):
        result = audit.run(cases=[wrong(case, lambda dy, cache, s=spoil: {n: s(g) for n, g in case.backward(dy, cache).items()})])[0]
        assert not result.passed and result.verdicts["finite differences"].error == math.inf


def test_a_zero_that_need_not_be_proves_nothing():
    """The forward sees no x at all, so its true gradient is zero, and the backward says so: correct, and still refused."""
    blind = dataclasses.replace(
        QUICK[0],
        forward=lambda x, **rest: ({"y": np.zeros(x.shape)}, x),
        backward=lambda dy, x: {"x": np.zeros(x.shape)},
    )
    draw, norms = Draw(np.random.default_rng(0), large=True), {}
    assert all(d.error == 0 for d in audit.check_vjp(blind, blind.draw(draw), draw, norms))
    (refused,) = audit.unproven(blind, norms)
    assert refused.error == math.inf and "nothing is proven" in str(refused)
    assert not audit.unproven(dataclasses.replace(blind, zero=("x",)), norms)


def test_a_case_without_stored_outputs_fails(monkeypatch):
    monkeypatch.setattr(judges, "reference_twin", lambda: (None, "not asked"))
    result = audit.run(cases=[dataclasses.replace(QUICK[0], name="ops.unheard_of")])[0]
    assert not result.verdicts["stored"].passed and "no stored outputs" in result.verdicts["stored"].worst


def test_with_ones_upstream_a_softmax_that_returns_zero_would_pass():
    """Why upstream gradients are random: the law's own example."""
    s = np.random.default_rng(0).standard_normal((3, 5))
    _, cache = softmax.forward(s)
    assert abs(softmax.backward(np.ones((3, 5)), cache)).max() < 1e-15
    dy = audit.upstream(Draw(np.random.default_rng(0)), {"y": s})["y"]
    assert abs(softmax.backward(dy, cache)).max() > 1e-2


def test_extrapolation_is_exact_where_a_difference_quotient_is_not():
    difference = lambda h: (math.exp(3 + 3 * h) - math.exp(3 - 3 * h)) / (2 * h)
    true = 3 * math.exp(3)
    assert abs(difference(2**-6) - true) > 1e-4 * true
    assert audit.extrapolated(difference) == pytest.approx(true, rel=1e-11)


def test_deviations_name_tensor_shape_place_and_both_values():
    ours, theirs = np.zeros((2, 3)), np.zeros((2, 3))
    theirs[1, 2], ours[1, 2] = 4.0, 5.0
    with pytest.raises(AssertionError) as error:
        audit.assert_close("d W", ours, theirs, 1e-3, seed=7)
    for words in ("d W", "(2, 3)", "[1, 2]", "5, expected 4", "2.50e-01", "seed 7"):
        assert words in str(error.value)
    audit.assert_close("d W", ours, ours, 0)
    for bad in (np.zeros(3), np.full((2, 3), np.nan)):
        with pytest.raises(AssertionError):
            audit.assert_close("d W", bad, theirs, 1e3)


def test_drawn_inputs_reach_the_edges():
    """Size 1, masks, biases and their absence all occur within a case's draws."""
    draws = [case.draw(Draw(np.random.default_rng(i))) for case in CASES for i in range(case.draws)]
    assert any(1 in a.shape for inputs in draws for a in inputs.arrays.values())
    linears = [case for case in CASES if case.name == "ops.linear"]
    assert {"b" in linears[0].draw(Draw(np.random.default_rng(i))).arrays for i in range(12)} == {True, False}
    assert isinstance(draws[0], Inputs)


def test_table_and_json(capsys, monkeypatch):
    results = audit.run(cases=QUICK)
    table = audit.format_table(results)
    for case in QUICK:
        assert case.name in table and case.formula in table
    assert "3 audited, every gradient holds" in table
    report = json.loads(json.dumps(audit.to_json(results)))
    assert report["passed"] and [r["name"] for r in report["results"]] == [case.name for case in QUICK]
    assert set(report["results"][0]["checks"]) == {"finite differences", "PyTorch", "stored"}
    broken = audit.run(cases=[wrong(QUICK[0], lambda dy, cache: {"x": dy["y"] @ cache.W * math.nan})])
    assert not json.loads(json.dumps(audit.to_json(broken)))["passed"]
    assert "FAILED" in audit.format_table(broken) and "1 audited, 1 failed" in audit.format_table(broken)
    for outcome, status in ((results, 0), (broken, 1)):
        monkeypatch.setattr(audit, "run", lambda *_, outcome=outcome: outcome)
        assert main(["audit", "--json"]) == status
        assert json.loads(capsys.readouterr().out)["passed"] is (status == 0)


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from minitinybert import audit
results = audit.run(cases=[case for case in audit.CASES if case.name in ("ops.linear", "losses.mlm")])
print(audit.format_table(results))
assert "torch" not in sys.modules
sys.exit(not all(result.passed and result.verdicts["stored"].error is not None for result in results))
"""


def test_without_pytorch_it_says_so_on_one_line_and_goes_on():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PyTorch comparison left out") == 1
