"""The audit itself: that it misses no operation, that its judges can say no, and what it prints."""

import dataclasses
import importlib
import itertools
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
from minitinybert.audit import CASES, MODEL_CASES, OPTIMISER_CASES, Case, Draw, Inputs, judges
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
    for case in (*CASES, *MODEL_CASES, *OPTIMISER_CASES):
        for example in audit.stored(case.name):
            assert example.outputs and bool(example.gradients) == (case.backward is not None), case.name


def test_every_case_has_a_twin():
    pytest.importorskip("torch")
    from minitinybert_reference import judge

    assert set(judge.twins()) == {case.name for case in (*CASES, *MODEL_CASES, *OPTIMISER_CASES)}


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
        declared=lambda inputs: ["x"],
    )
    draw, norms = Draw(np.random.default_rng(0), large=True), {}
    assert all(d.error == 0 for d in audit.check_vjp(blind, blind.draw(draw), draw, norms))
    (refused,) = audit.unproven(blind, norms)
    assert refused.error == math.inf and "nothing is proven" in str(refused)
    assert not audit.unproven(dataclasses.replace(blind, zero=("x",)), norms)


def test_a_case_without_stored_outputs_fails(monkeypatch):
    for judge in ("reference_twin", "reference_page"):
        monkeypatch.setattr(judges, judge, lambda: (None, "not asked"))
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


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_a_gradient_that_does_not_come_is_missed_by_no_judge(case):
    """None in its place, or no name for it: every judge says so, of each of the declared arguments."""
    inputs = case.draw(draw := case.sources(0)[0])
    for name in set(case.declared(inputs)) & set(inputs.arrays):
        none = lambda dy, cache, name=name: {**case.backward(dy, cache), name: None}
        absent = lambda dy, cache, name=name: {n: g for n, g in case.backward(dy, cache).items() if n != name}
        for backward in (none, absent):
            lacking = wrong(case, backward)
            example = next(e for e in audit.stored(case.name) if name in e.inputs.arrays)
            found = [list(audit.check_vjp(lacking, inputs, draw, {})), audit.check_stored(lacking, example)]
            module, reason = audit.reference_twin()
            found += [] if reason else [audit.check_twin(lacking, inputs, draw, module)]
            found += [audit.check_page(lacking, inputs, draw, audit.reference_page()[0])]
            for judged in found:
                assert [d.error for d in judged if name in d.name.split(",")[0].split()[-1]] == [math.inf], (name, judged)


def test_a_matrix_has_every_pair_and_of_some_every_combination():
    def draw(draw):
        a, b = draw.option("a", "xyz", whole=True), draw.option("b", (True, False), whole=True)
        return Inputs({}, {"a": a, "b": b, "c": draw.option("c", (1, 2, 3, 4)), "d": draw.option("d", (5, 6))})

    case = Case("some", "", draw, None, None)
    rows = audit.matrix(case)
    assert rows[0] == {"a": "x", "b": True, "c": 1, "d": 5}
    options = {"a": "xyz", "b": (True, False), "c": (1, 2, 3, 4), "d": (5, 6)}
    for (one, values), (other, others) in itertools.combinations(options.items(), 2):
        assert {(r[one], r[other]) for r in rows} == {*itertools.product(values, others)}, (one, other)
    assert [case.draw(source).settings for source in case.sources(3)][: len(rows)] == rows and len(case.sources(3)) == max(12, len(rows))
    assert audit.matrix(dataclasses.replace(case, draw=lambda draw: draw.integer(0, 1))) == [{}]
    assert audit.matrix(dataclasses.replace(case, draw=lambda draw: draw.option("a", "xyz"))) == [{"a": "x"}, {"a": "y"}, {"a": "z"}]


def drawn_by_each_judge(name):
    """A case's inputs as the judges of the formulas draw them, and as they are stored."""
    (case,) = [case for case in (*MODEL_CASES, *OPTIMISER_CASES) if case.name == name]
    return [case.draw(source) for source in case.sources(0)], [example.inputs for example in audit.stored(name)]


def lies(inputs):
    """How a batch lies, and what its padding is."""
    mask = inputs.arrays["attention_mask"]
    return "packed" if inputs.settings["is_packed"] else "no padding" if mask.all() else "holes"


def heads_of(inputs):
    settings = inputs.settings
    S = settings["heads"] if "heads" in settings else settings["student"]["num_attention_heads"]
    return "fewer" if S < 2 else "as many" if S == 2 else "more"


BATCHES, HEADS = ("packed", "holes", "no padding"), ("fewer", "as many", "more")


@pytest.mark.parametrize("name", ["distill.layers", "distill.intermediate"])
def test_each_combination_of_the_first_step_occurs(name):
    """{padding left out, counted} × {packed, with holes, without padding} × {fewer heads, as many, more} × {every λ 1, others}."""
    for drawn in drawn_by_each_judge(name):
        λ = lambda weights: "1" if set((weights or {"": 1.0}).values()) <= {0.0, 1.0} else "others"
        found = {(i.settings["recipe"]["padding"], lies(i), heads_of(i), λ(i.settings["weights"])) for i in drawn}
        assert found == {*itertools.product(("exclude", "count"), BATCHES, HEADS, ("1", "others"))}
        assert {0.0 in (i.settings["weights"] or {}).values() for i in drawn} == {True, False}
        recipes = [i.settings["recipe"] for i in drawn]
        assert {r["projection"] for r in recipes} == {"split", "shared", "layer", "none"}
        assert {r["layers"] for r in recipes} == {"uniform", "top", "bottom", "1,3"}
        assert {r["heads"] for r in recipes} == {"average", "drop"}
        assert {(r["projection_bias"], r["teacher_dropout"]) for r in recipes} == {*itertools.product((True, False), repeat=2)}


def test_scores_of_minus_100_and_less_occur_wherever_padding_counts():
    """Of the student and of the teacher, and scores above beside them. (Of a softmax they would leave nothing to see.)"""
    for drawn in drawn_by_each_judge("distill.layers"):
        scores = [inputs for inputs in drawn if inputs.settings["recipe"]["attention_target"] == "scores"]
        assert any(i.settings["recipe"]["padding"] == "count" for i in scores) and len(scores) < len(drawn)
        for inputs in scores:
            for side in ("scores_S.0", "scores_T.2"):
                low = inputs.arrays[side] <= -100
                assert (inputs.arrays[side].size < 20 or low.any()) and not low.all()


@pytest.mark.parametrize("name", ["distill.prediction", "train.supervised"])
def test_classes_and_numbers_occur_in_each_batch(name):
    for drawn in drawn_by_each_judge(name):
        found = {(lies(i), i.settings["regression"], heads_of(i)) for i in drawn}
        assert found == {*itertools.product(BATCHES, (True, False), HEADS if name == "distill.prediction" else ("as many",))}
        if name == "distill.prediction":
            targets = {(i.settings["regression"], i.settings["recipe"]["regression_target"]) for i in drawn}
            assert targets == {*itertools.product((True, False), ("teacher", "labels"))}


@pytest.mark.parametrize("name", ["distill.intermediate", "distill.prediction", "train.supervised", "train.mlm"])
def test_every_objective_is_asked_of_a_batch_and_of_its_shares(name):
    for drawn in drawn_by_each_judge(name):
        assert {(i.settings["call"]["shares"], lies(i)) for i in drawn} == {*itertools.product(("one", "on threads", "in turns"), BATCHES)}
        assert name != "train.mlm" or {bool(i.arrays["asked"].any()) for i in drawn} == {True, False}


@pytest.mark.parametrize("name", ["bert.none", "bert.classifier", "bert.classifier-relu", "bert.mlm"])
def test_every_view_of_a_trace_occurs(name):
    """With dropout and without, into arrays that held something else and into new ones, by both ways to call a model."""
    for drawn in drawn_by_each_judge(name):
        calls = [i.settings["call"] for i in drawn]
        assert {c["logits"] for c in calls} == {True, False} and {c["hidden"] is None for c in calls} == {True, False}
        assert {(c["out"], c["dropout"]) for c in calls} == {*itertools.product((True, False), repeat=2)}
        assert any(c["rectangle"] for c in calls) and any(c["hidden"] == [] and c["scores"] == [] for c in calls) is (name != "bert.none")
        assert any(c["hidden"] == [] and c["scores"] for c in calls)  # scores of the last layer, and not its state


def test_each_optimiser_takes_many_numbers_and_few():
    from minitinybert.training import optim

    assert {case.name for case in OPTIMISER_CASES} == {f"optim.{preset}" for preset in optim.PRESETS}
    for case in OPTIMISER_CASES:
        for drawn in drawn_by_each_judge(case.name):
            size = lambda i, name: i.arrays[name].size * i.settings["copies"][name]
            sizes = {(size(i, "a.weight") > 2 * optim._CHUNK, size(i, "a.bias") > optim._CHUNK) for i in drawn}
            assert sizes == {(True, True), (False, False)}
            assert {(i.settings["schedule"], i.settings["threads"]) for i in drawn} == {*itertools.product(optim.SCHEDULES, (1, 2, 3))}


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
    assert max(map(len, table.splitlines())) <= 80
    assert "3 audited, every gradient holds" in table
    report = json.loads(json.dumps(audit.to_json(results)))
    assert report["passed"] and [r["name"] for r in report["results"]] == [case.name for case in QUICK]
    assert set(report["results"][0]["checks"]) == {"finite differences", "PyTorch", "the page", "stored"}
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
judged = lambda result: all(result.verdicts[judge].error is not None for judge in ("stored", "the page"))
sys.exit(not all(result.passed and judged(result) for result in results))
"""


def test_without_pytorch_it_says_so_on_one_line_and_goes_on():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PyTorch comparison left out") == 1
