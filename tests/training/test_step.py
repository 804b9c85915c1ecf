"""The plain step is what a learner takes on one thread, bit for bit; the objective's own parameters are among the student's."""

from dataclasses import replace

import numpy as np
import pytest

from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import MaskedLM, Supervised
from minitinybert.engine.batch import Masked, packed
from minitinybert.engine.parallel import Workers
from minitinybert.engine.random import key
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.training.shares import Learner
from minitinybert.training.step import extended, step
from minitinybert.training.teacher import NOBODY, Running

from .test_shares import STUDENT, TEACHER, sentences

OBJECTIVES = {
    "intermediate": Intermediate(STUDENT, TEACHER),
    "prediction": Prediction(),
    "supervised": Supervised(),
    "mlm": MaskedLM(),
}


def batch_of(seed):
    batch = packed(*sentences(seed, 30), labels=np.arange(24) % 2)
    masked = Masked(batch.cls_rows, np.arange(24), np.arange(1, 25))
    return replace(batch, masked=masked, totals=batch.totals._replace(masked=24))


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_plain_step_is_the_learner_s(name, dropout):
    """The losses, and every gradient, into arrays that held something else."""
    objective, teacher = OBJECTIVES[name], Running(Bert.new(TEACHER, 0), dropout)
    student = Bert.new(replace(STUDENT, head="mlm", pooler=False) if name == "mlm" else STUDENT, 1)
    with Workers(1) as workers:
        learner = Learner(student, objective, workers, teacher, seed=4)
        learner.gradients(batch_of(2), 6)  # whose rows of the tables are to be zero again
        expected, theirs = learner.gradients(batch_of(1), 7)
        gradients = theirs.zeros_like()
        gradients.flat.fill(7)
        losses = step(learner.student, objective, batch_of(1), teacher, (4, 7), gradients)
    assert losses == expected and all(value > 0 for value in losses.values())
    for tensor in gradients:
        assert np.array_equal(gradients[tensor], theirs[tensor]), tensor
    assert np.linalg.norm(gradients.flat) > 1e-3


class Words(MaskedLM):
    padding_gradient = False


@pytest.mark.parametrize("objective", [Supervised(), Supervised(padding_gradient=False), MaskedLM(), Words()])
def test_the_row_of_pad_gets_what_the_objective_says(objective):
    """pad_token_id is a word that occurs; a tied decoder's share of its row stays. The plain step and two threads agree."""
    words = "embeddings.word_embeddings.weight"
    batch, config = batch_of(1), replace(STUDENT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    tied = isinstance(objective, MaskedLM)
    config = replace(config, pad_token_id=int(batch.input_ids[5]), **({"head": "mlm", "pooler": False} if tied else {}))
    with Workers(2) as workers:
        learner = Learner(Bert.new(config, 1, np.float64), objective, workers)
        _, theirs = learner.gradients(batch, 7)
        gradients = theirs.zeros_like()
        step(learner.student, objective, batch, NOBODY, (0, 7), gradients)
        for tensor in gradients:
            assert np.allclose(gradients[tensor], theirs[tensor], rtol=1e-9, atol=1e-14), tensor
        all_learn = type("AllLearn", (type(objective),), {"padding_gradient": True})()
        whole = theirs.zeros_like()
        step(learner.student, all_learn, batch, NOBODY, (0, 7), whole)
    row = gradients[words][config.pad_token_id]
    assert np.array_equal(np.delete(gradients[words], config.pad_token_id, 0), np.delete(whole[words], config.pad_token_id, 0))
    assert np.array_equal(row, whole[words][config.pad_token_id]) == objective.padding_gradient
    assert row.any() == (objective.padding_gradient or tied)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_in_which_no_word_is_masked_has_loss_and_gradient_0(threads):
    """And not 0/0: so says losses/mlm.py, and so do the masked rows alone, in every share."""
    batch = packed(*sentences(1, 30))
    batch = replace(batch, masked=Masked(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(24, np.int64)))
    student = Bert.new(replace(STUDENT, head="mlm", pooler=False), 1)
    with Workers(threads) as workers:
        learner = Learner(student, MaskedLM(), workers, share_rows=50)
        learner.gradients(batch_of(2), 6)
        losses, gradients = learner.gradients(batch, 7)
        assert losses["mlm"] == 0 and not gradients.flat.any()
        gradients = gradients.zeros_like()
        gradients.flat.fill(7)
        assert step(learner.student, MaskedLM(), batch, NOBODY, (4, 7), gradients)["mlm"] == 0 and not gradients.flat.any()


def test_its_dropout_is_a_function_of_seed_and_step():
    student, objective = Bert.new(STUDENT, 1), Supervised()
    at_hand = lambda seed, number: objective(student.forward_batch(batch_of(1), key(seed, number))[0], batch_of(1), None, {}).losses
    losses = lambda seed, number: step(student, objective, batch_of(1), NOBODY, (seed, number), student.parameters.zeros_like())
    found = [losses(*at) for at in ((4, 7), (4, 8), (5, 7))]
    assert found == [at_hand(*at) for at in ((4, 7), (4, 8), (5, 7))]
    assert len({float(each["cross_entropy"]) for each in found}) == 3


def test_the_objective_s_parameters_are_drawn_or_known():
    objective, student = Intermediate(STUDENT, TEACHER), Bert.new(STUDENT, 1)
    known = {"fit_dense_hidden.weight": np.ones((96, 64)), "fit_dense_embedding.weight": np.ones((96, 63))}
    p, other = (extended(student, objective, seed, known).parameters for seed in (3, 4))
    assert (p["fit_dense_hidden.weight"] == 1).all() and np.std(p["fit_dense_embedding.weight"]) == pytest.approx(0.02, rel=0.05)
    assert not (p["fit_dense_embedding.weight"] == other["fit_dense_embedding.weight"]).any()
    assert set(p) - set(student.parameters) == set(known)
    for name in student.parameters:
        assert np.array_equal(p[name], student.parameters[name]) and not np.shares_memory(p[name], student.parameters[name]), name


def test_an_objective_that_looks_at_a_teacher_needs_one():
    student = extended(Bert.new(STUDENT, 1), Prediction(), 0, {})
    with pytest.raises(InputError, match="there is no teacher"):
        step(student, Prediction(), batch_of(1), NOBODY, (0, 0), student.parameters.zeros_like())
