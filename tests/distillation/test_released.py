"""The recipe huawei-2019 under the dropout of student and teacher, which no stored run has (test_stored_released.py is the judge without
it): against a reading of the released code (reference/released.py), and that `distill task` follows it.

The reference has no switches, no masks in its means and no counts: losses, the gradient of every tensor, and the weights after ten steps
of BertAdam have to come out the same, in float64.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minitinybert.audit import assert_close
from minitinybert.commands import task as task_command
from minitinybert.data.glue import TASKS
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.recipes import RECIPES
from minitinybert.engine.batch import padded
from minitinybert.engine.parallel import Workers
from minitinybert.engine.random import key
from minitinybert.losses.attention import UNSEEN
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training.kept_traces import KeptTraces
from minitinybert.training.loop import Options
from minitinybert.training.optim import PRESETS, Adam
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import KeptLogits, Running

RELEASED = RECIPES["huawei-2019"]
STUDENT = Config(
    vocab_size=23, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, max_position_embeddings=9,
    head="classifier", id2label={0: "a", 1: "b", 2: "c"}, classifier_relu=True,
)  # fmt: skip
TEACHER = replace(STUDENT, hidden_size=12, num_hidden_layers=4, intermediate_size=20)
LENGTHS = np.array([3, 9, 1, 5])
REAL = np.arange(9) < LENGTHS[:, None]
SEED, STEPS = 8, 10
HEAD = ("bert.pooler", "classifier")
KEY_BIAS = "key.bias"  # softmax does not see it: in the second step its gradient is rounding alone


@pytest.fixture(scope="module")
def released():
    pytest.importorskip("torch")
    from minitinybert_reference import released

    return released


def randomised(model, seed, asking):
    """Nothing is 0 or 1 any more; W_q and W_k are as large as `asking` says."""
    rng = np.random.default_rng(seed)
    for name, tensor in model.parameters.items():
        tensor += (asking if name.endswith(("query.weight", "key.weight")) else 0.4) * rng.standard_normal(tensor.shape)
    return model


def step_of(stage, width=8):
    """A batch with padding, and a learner of what the stage learns: of scores so large that many lie below −100, and many above; but of
    moderate ones where the softmax has to let a gradient through."""
    asking = 4.0 if stage == "intermediate" else 0.4
    rng = np.random.default_rng(5)
    labels = rng.uniform(0, 5, 4) if stage == "regression" else rng.integers(0, 3, 4)
    ids = {0: "score"} if stage == "regression" else STUDENT.id2label
    student, teacher = replace(STUDENT, id2label=ids, hidden_size=width), replace(TEACHER, id2label=ids)
    batch = padded(rng.integers(1, 23, (4, 9)) * REAL, REAL, rng.integers(0, 2, (4, 9)), labels=labels)
    objective = Intermediate(student, teacher, RELEASED) if stage == "intermediate" else Prediction(RELEASED, stage == "regression")
    frozen = randomised(Bert.new(teacher, 2, np.float64), 2, asking)
    learner = Learner(Bert.new(student, 1, np.float64), objective, Workers(2), Running(frozen, RELEASED.teacher_dropout), seed=SEED)
    randomised(learner.student, 3, asking)
    return learner, frozen, batch


STAGES = [("intermediate", 8), ("intermediate", 12), ("prediction", 8), ("regression", 8)]


@pytest.mark.parametrize("stage, width", STAGES)
def test_losses_and_every_gradient(released, stage, width):
    """The projection is there where widths are equal too (12)."""
    learner, teacher, batch = step_of(stage, width)
    (expected,), _, gradients = released.imitate(stage, learner.student, teacher, batch, SEED, [0.0])
    with learner.workers:
        losses, grads = learner.gradients(batch, 0)
    assert losses.keys() == expected.keys()
    for term, value in expected.items():
        assert losses[term] == pytest.approx(value, rel=1e-12) and value > 1e-2, term
    whole = np.linalg.norm(grads.flat)
    assert {name for name in grads if name not in gradients} == {
        name for name in grads if stage == "intermediate" and name.startswith(HEAD)
    }  # which no loss of the intermediate step contains
    for name in grads:
        theirs = gradients.get(name, np.zeros_like(grads[name]))
        assert_close(f"d {name}", grads[name], theirs, 1e-10, floor=1e-6 * whole, seed=SEED)
        assert np.linalg.norm(theirs) > 1e-6 * whole or name not in gradients or name.endswith(KEY_BIAS), name


def test_real_scores_below_the_mark_occur():
    """So the tests above see that they are not compared, in the layers that are; what is just above the mark is."""
    learner, teacher, batch = step_of("intermediate")
    for model, dropout, layers in ((learner.student, key(SEED, 0), (0, 1)), (teacher, key(SEED, 0, 1), (1, 3))):
        trace, _ = model.forward_batch(batch, dropout)
        for l in layers:
            real = trace.scores[l].reshape(4, 2, 9, 9)[np.broadcast_to(REAL[:, None, None, :], (4, 2, 9, 9))]
            assert 0.05 < (real <= UNSEEN).mean() < 0.6, l


@pytest.mark.parametrize("stage, width", STAGES)
def test_ten_steps_of_bert_adam(released, stage, width):
    """Losses of each step and all weights at the end; the pooler and classifier of the intermediate step stay as they were."""
    learner, teacher, batch = step_of(stage, width)
    start = {name: tensor.copy() for name, tensor in learner.student.parameters.items()}
    rates = [1e-3] * STEPS
    expected, weights, _ = released.imitate(stage, learner.student, teacher, batch, SEED, rates)
    adam = Adam(learner.student.parameters, PRESETS[RELEASED.optimizer], passed_over=learner.untouched)
    with learner.workers:
        for step, rate in enumerate(rates):
            losses, grads = learner.gradients(batch, step)
            adam.step(grads, rate)
            for term, value in expected[step].items():
                assert losses[term] == pytest.approx(value, rel=1e-9), (step, term)
    for name, tensor in learner.student.parameters.items():
        if stage == "intermediate" and name.startswith(HEAD):
            assert np.array_equal(weights[name], start[name]) and np.array_equal(tensor, start[name])
        else:
            assert_close(name, tensor - start[name], weights[name] - start[name], 1e-6, floor=1e-3, seed=SEED)
            assert np.linalg.norm(weights[name] - start[name]) > 1e-3 or (name.endswith(KEY_BIAS) and stage != "intermediate")


# ------------------------------------------------------------------------------------------------- distill task and its recipe

WORDS = ["good", "bad", "film", "plot", "the"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """For SST-2 and STS-B a directory of data, a teacher and a student of random weights."""
    here = tmp_path_factory.mktemp("world")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (here / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    text = lambda: " ".join(rng.choice(WORDS, rng.integers(1, 6)))
    lines = {
        "sst-2": ["sentence\tlabel", *(f"{text()}\t{i % 2}" for i in range(20))],
        "sts-b": [
            "\t".join(["index", *"bcdefg", "sentence1", "sentence2", "score"]),
            *("\t".join([str(i), *"bcdefg", text(), text(), f"{i / 4:.3f}"]) for i in range(20)),
        ],
    }
    for task, labels in (("sst-2", {0: "0", 1: "1"}), ("sts-b", {0: "score"})):
        (here / task).mkdir()
        for split in ("train", "dev"):
            (here / task / f"{split}.tsv").write_text("\n".join(lines[task]) + "\n", encoding="utf-8")
        changes = {"vocab_size": len(vocabulary), "max_position_embeddings": 24, "id2label": labels, "classifier_relu": False}
        for name, config in (("teacher", TEACHER), ("student", STUDENT)):
            model = Bert.new(replace(config, **changes), 1)
            model.tokenizer_files = {"vocab.txt": here / "vocab.txt"}
            model.save(here / f"{task} {name}")
    return here


def steps_of_distill_task(world, out, monkeypatch, task, student, recipe):
    """What learner and training loop are handed in each of the two steps; nothing is trained."""
    steps = []

    def trained(learner, examples, options, place, *rest, **more):
        batch = examples.batch(np.array([0, 1, 2]))
        steps.append(SimpleNamespace(learner=learner, options=options, batch=batch))
        learner.student.save(place)

    monkeypatch.setattr(task_command, "train", trained)
    monkeypatch.setattr(task_command, "check_teacher", lambda *anything: {})
    with Machine(threads=1) as machine:
        options = Options(epochs=2, batch_size=4)
        where = (str(world / f"{task} teacher"), student.format(world), TASKS[task], world / task, out)
        task_command.distill_task(*where, machine, "both", options, options, recipe, max_length=24)
        for step in steps:
            step.losses = {term: float(loss) for term, loss in step.learner.gradients(step.batch, 0)[0].items()}
    return steps


SHAPE = "2L-8D-2H-12F"


@pytest.mark.parametrize("task, student", [("sst-2", SHAPE), ("sts-b", "{}/sts-b student")], ids=["sst-2", "sts-b"])
def test_distill_task_does_as_the_released_code(world, tmp_path, monkeypatch, task, student):
    first, second = steps_of_distill_task(world, tmp_path / "out", monkeypatch, task, student, RELEASED)
    assert (first.options.schedule, second.options.schedule) == ("constant", "linear")
    assert {slot.name for slot in first.learner.objective.slots} == {"fit_dense.weight", "fit_dense.bias"}
    for step in (first, second):
        assert step.options.optimizer == "bert-adam"
        assert step.learner.student.config.classifier_relu
        assert type(step.learner.teacher) is Running and step.learner.teacher.dropout  # it answers anew each time
        assert step.batch.runs == ((0, 3, 24),) and not step.batch.attention_mask.all()  # padded to the full length
        assert step.learner.objective.recipe is RELEASED
    assert second.losses == pytest.approx(by_hand(second, RELEASED), rel=1e-5)


@pytest.mark.parametrize("task", ["sst-2", "sts-b"])
def test_distill_task_does_none_of_it_by_default(world, tmp_path, monkeypatch, task):
    """Or nothing above would be the recipe's doing."""
    first, second = steps_of_distill_task(world, tmp_path / "out", monkeypatch, task, SHAPE, RECIPES["default"])
    assert (first.options.schedule, second.options.schedule) == ("linear", "linear")
    assert {slot.name for slot in first.learner.objective.slots} == {"fit_dense_embedding.weight", "fit_dense_hidden.weight"}
    for step in (first, second):
        assert step.options.optimizer == "adamw"
        assert not step.learner.student.config.classifier_relu
        assert step.batch.attention_mask is None and len(step.batch.input_ids) < 3 * 24  # packed
    assert type(first.learner.teacher) is KeptTraces and type(second.learner.teacher) is KeptLogits  # what it said is kept
    assert second.losses == pytest.approx(by_hand(second, RECIPES["default"]), rel=1e-5)


def by_hand(step, recipe):
    """The last step's loss from the logits of student and teacher: to the labels or to the teacher's number, by element or by sentence."""
    learner, batch = step.learner, step.batch
    z_S = learner.student.forward_batch(batch, key(learner.seed, 0))[0].logits
    if isinstance(learner.teacher, KeptLogits):
        z_T = learner.teacher.logits[batch.sentences]
    else:
        z_T = learner.teacher.model.forward_batch(batch, key(learner.seed, 0, 1), keep_cache=False)[0].logits
    if z_S.shape[1] == 1:
        target = batch.labels if recipe.regression_target == "labels" else z_T[:, 0]
        return {"prediction": ((z_S[:, 0] - target) ** 2).mean()}
    p = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)
    entropy = -p(z_T) * np.log(p(z_S))
    return {"prediction": entropy.mean() if recipe.prediction_mean == "elements" else entropy.sum(1).mean()}
