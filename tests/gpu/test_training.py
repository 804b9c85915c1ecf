"""Training on the device: a step's losses and gradients are the host's; stopped and resumed, a run ends as an undisturbed one."""

import signal
from dataclasses import replace

import numpy as np
import pytest
from training.test_loop import CONFIG, OPTIONS, StopAfter, examples, norm_of

from minitinybert.audit import assert_close
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import Supervised
from minitinybert.distillation.recipes import RECIPES, Recipe
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.training.loop import Stopped, train
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import NOBODY, Running

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def learner_on():
    with Workers(1) as workers:

        def make(xp, objective=None, teacher=None):
            up = lambda model: model.to(xp)
            answering = Running(up(teacher)) if teacher else NOBODY
            return Learner(up(Bert.new(CONFIG, 7)), objective or Supervised(), workers, answering, seed=3)

        yield make


@pytest.mark.parametrize("objective", ["supervised", "intermediate", "released", "probabilities", "prediction"])
def test_losses_and_gradients_of_a_step_are_the_host_s(cupy, learner_on, objective):
    teacher = Bert.new(replace(CONFIG, hidden_size=16, num_hidden_layers=4), 9)
    recipes = {"released": RECIPES["huawei-2019"], "probabilities": Recipe(attention_target="probabilities")}
    recipe = recipes.get(objective, RECIPES["default"])
    make = {"supervised": Supervised, "prediction": lambda: Prediction(recipe)}.get(
        objective, lambda: Intermediate(CONFIG, teacher.config, recipe)
    )
    batch = replace(examples(), pad_to=12 if objective == "released" else None).batch(np.arange(9))
    (losses, grads), (losses_there, grads_there) = (learner_on(xp, make(), teacher).gradients(batch, 5) for xp in (np, cupy))
    assert losses.keys() == losses_there.keys() and grads_there.flat.dtype == np.float32
    for name in losses:
        assert float(losses[name]) == pytest.approx(float(losses_there[name]), rel=1e-5)
    floor = 1e-3 * float(np.linalg.norm(grads.flat))
    pad = grads_there["embeddings.word_embeddings.weight"][0]
    assert objective != "released" or not pad.any()
    for name in grads:
        assert_close(name, grads_there[name], grads[name], 1e-4, floor)


@pytest.fixture(scope="module")
def fit(learner_on):
    def run(xp, out, objective=None, resume=False):
        learner = learner_on(xp, objective)
        train(learner, examples(), OPTIONS, out, lambda model: norm_of(model.to(np)), "norm", resume)
        return learner.student.parameters.flat

    return run


def test_a_stopped_run_goes_on_to_the_same_bits(cupy, fit, tmp_path):
    whole = fit(cupy, tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(cupy, tmp_path / "parts", StopAfter(8, signal.SIGTERM))
    assert (fit(cupy, tmp_path / "parts", resume=True) == whole).all()
    assert Bert.load(tmp_path / "whole").parameters.flat.tobytes() == Bert.load(tmp_path / "parts").parameters.flat.tobytes()


@pytest.mark.parametrize("first, then", [["there", "here"], ["here", "there"]])
def test_a_run_goes_on_on_the_other_device(cupy, fit, tmp_path, first, then):
    place = {"here": np, "there": cupy}
    with pytest.raises(Stopped):
        fit(place[first], tmp_path / "parts", StopAfter(8, signal.SIGTERM))
    ended, whole = fit(place[then], tmp_path / "parts", resume=True), fit(np, tmp_path / "whole")
    assert_close("parameters", ended, whole, 1e-3)
