"""A step as training takes it: what it holds, the same gradient for any number of threads and shares, the [CLS] rows alone."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import MaskedLM, Objective, Supervised, Terms, View
from minitinybert.engine.batch import Masked, packed, padded_to
from minitinybert.engine.parallel import Workers
from minitinybert.errors import InputError
from minitinybert.losses import mse
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.model.trace import Trace
from minitinybert.training import cut
from minitinybert.training import shares as learning
from minitinybert.training.optim import Adam
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

TEACHER = Config(
    vocab_size=500, hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, head="classifier", pooler=True
)
STUDENT = replace(TEACHER, hidden_size=64, num_hidden_layers=2, intermediate_size=128)
TEACHING = Running(Bert.new(TEACHER, 0, np.float64))


def sentences(seed, longest, n=24):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 500, length).astype(np.int32) for length in rng.integers(3, longest + 1, n)]
    return ids, [np.zeros_like(i) for i in ids]


@pytest.fixture
def shares(monkeypatch):
    """Of each step that a learner takes here how many shares the batch was cut into: tests of shares are to have some."""
    counted = []

    def counting(*given):
        counted.append(len(found := cut.thread_shares(*given)))
        return found

    monkeypatch.setattr(learning, "thread_shares", counting)
    return counted


def traced(round_of_steps):
    """Bytes held after a second and after a third round, and the most that were held during the third, of what is allocated after the
    first: tracemalloc counts NumPy's arrays."""
    round_of_steps()
    gc.collect()
    tracemalloc.start()
    try:
        round_of_steps()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        round_of_steps()
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return before, after, peak


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("objective", [Intermediate(STUDENT, TEACHER), Prediction()], ids=["intermediate", "prediction"])
def test_a_step_leaves_nothing_behind(objective, threads, shares):
    """Dropout, clipping and Adam too; the lengths change from step to step. A step's arrays are some 40 MB in all."""
    batches = [packed(*sentences(seed, longest)) for seed, longest in enumerate((128, 60, 90, 128, 60, 90))]
    with Workers(threads) as workers:
        learner = Learner(Bert.new(STUDENT, 1), objective, workers, Running(Bert.new(TEACHER, 0)))
        adam = Adam(learner.student.parameters, workers=workers)

        def steps():
            for number, batch in enumerate(batches):
                _, gradients = learner.gradients(batch, number)
                adam.step(gradients, 1e-3)

        before, after, peak = traced(steps)
    assert set(shares) == ({1, 2} if threads == 1 else {2})
    assert after - before < 5_000  # of lists and numbers; one dropout key for each token would be 10 kB
    assert peak > 1e6  # so the arrays of a step are counted


@pytest.mark.parametrize("objective", [Intermediate(STUDENT, TEACHER), Prediction()], ids=["intermediate", "prediction"])
def test_of_a_large_batch_only_a_share_is_held_at_once(monkeypatch, objective, shares):
    """Eight shares in turn: activations and scores of an eighth, beside what was looked up, which all shares keep to the end."""
    batch, peaks = packed([np.arange(64, dtype=np.int32)] * 32, [np.zeros(64, np.int32)] * 32), []
    for rows in (2048, 256):
        monkeypatch.setattr(cut, "_ROWS", rows)
        with Workers(1) as workers:
            learner = Learner(Bert.new(STUDENT, 1), objective, workers, Running(Bert.new(TEACHER, 0)))
            peaks.append(traced(lambda learner=learner: learner.gradients(batch, 0))[2])
    assert set(shares[:3]) == {1} and set(shares[3:]) == {8}
    whole, in_turns = peaks
    assert in_turns < whole / 4


class Small(Objective):
    """As README says one is written: some hidden states, scores and the logits are to be small. Not every share has every term."""

    def __init__(self, hidden, scores):
        self.student_view = View(frozenset(hidden), frozenset(scores), logits=True)

    def __call__(self, student, batch, teacher, parameters):
        loss, cache = mse.forward(student.logits, 0 * student.logits, count=batch.totals.sentences)
        dtrace, losses = Trace(hidden=[None] * 3, scores=[None] * 2, logits=mse.backward(1.0, cache)), {"logits": loss}
        if 0 in batch.sentences:
            losses["first"] = np.float32(1)
        for m in self.student_view.hidden:
            loss, cache = mse.forward(student.hidden[m], 0 * student.hidden[m], count=batch.totals.tokens)
            losses[f"hidden {m}"], dtrace.hidden[m] = loss, mse.backward(1.0, cache).astype(np.float64)
        for l in self.student_view.scores:
            loss, cache = mse.forward(student.scores[l], 0 * student.scores[l], count=batch.totals.pairs)
            losses[f"scores {l}"], dtrace.scores[l] = loss, mse.backward(1.0, cache)
        return Terms(losses, dtrace, {})


@pytest.mark.parametrize("hidden, scores", [((), ()), ((1,), ()), ((0, 2), ()), ((), (1,)), ((0,), (0, 1)), ((2,), (1,))])
def test_an_objective_of_one_s_own(hidden, scores, shares):
    """Whichever rows of the last layer are looked at. Its gradient, of a dtype that is not the model's, by finite differences."""
    batch = packed(*sentences(1, 30))
    with Workers(2) as workers:
        student = Bert.new(STUDENT, 1, np.float64)
        student.parameters.flat += 0.1 * np.random.default_rng(2).standard_normal(student.parameters.flat.size)
        learner = Learner(student, Small(hidden, scores), workers)
        flat, direction = learner.student.parameters.flat, np.random.default_rng(3).standard_normal(student.parameters.flat.size)
        losses, gradients = learner.gradients(batch, 0)
        assert set(losses) == {"first", "logits", *(f"hidden {m}" for m in hidden), *(f"scores {l}" for l in scores)}
        assert losses["first"] == 1 and shares == [2]
        slope, ends, start = float(gradients.flat @ direction), [], flat.copy()
        for h in (1e-6, -1e-6):
            flat[...] = start + h * direction
            ends.append(sum(float(loss) for loss in learner.gradients(batch, 0)[0].values()))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("label", [-1, 2, 500])
@pytest.mark.parametrize("objective", [Supervised(), MaskedLM()], ids=["classes", "words"])
def test_labels_that_the_student_does_not_have_are_said(objective, label):
    batch, last = packed(*sentences(1, 30)), 1 if isinstance(objective, Supervised) else 499
    masked, totals = Masked(np.array([1]), np.array([label]), np.ones(24, int)), batch.totals._replace(masked=1)
    batch = replace(batch, labels=np.full(24, label), masked=masked, totals=totals)
    student = replace(STUDENT, head="mlm", pooler=False) if last == 499 else STUDENT
    with Workers(1) as workers:
        learner = Learner(Bert.new(student, 1), objective, workers)
        if 0 <= label <= last:
            assert learner.gradients(batch, 0)
        else:
            with pytest.raises(InputError, match=rf"labels holds {label}, but the model has \w+ 0 to {last}"):
                learner.gradients(batch, 0)


@pytest.mark.parametrize("rectangle", [False, True])
def test_the_cls_rows_alone_give_what_all_rows_give(rectangle):
    """Logits and every gradient of the last layer with only the [CLS] rows asking, dropout on, to rounding in float64."""
    model = Bert.new(STUDENT, 2, np.float64)
    ids, types = sentences(3, 12, 5)
    batch = padded_to(14, ids, types) if rectangle else packed(ids, types)
    whole, cache = model.forward_batch(batch, 7)
    alone, cache_alone = model.forward_batch(batch, 7, hidden=(), scores=())
    assert alone.hidden == [None] * 3 and cache_alone.layers[-1].rows is not None and cache.layers[-1].rows is None
    assert np.allclose(alone.logits, whole.logits, rtol=1e-12, atol=1e-14)
    dlogits = np.random.default_rng(4).standard_normal(whole.logits.shape)
    expected, found = (model.backward(c, Trace(logits=dlogits)) for c in (cache, cache_alone))
    for name in expected:
        assert np.allclose(found[name], expected[name], rtol=1e-9, atol=1e-13), name
    assert any(np.abs(expected[name]).max() > 1e-3 for name in expected)


def test_gradients_do_not_remember_the_last_step(shares):
    """Rows of the tables that were looked up before are zero again, and so are heads that nothing looks at."""
    ids, types = sentences(5, 9, 6)
    first, second = (packed(ids[i : i + 3], types[i : i + 3]) for i in (0, 3))
    with Workers(2) as workers:
        learner = Learner(Bert.new(STUDENT, 1, np.float64), Prediction(), workers, TEACHING)
        _, gradients = learner.gradients(second, 5)
        expected = gradients.flat.copy()
        learner.gradients(first, 4)
        _, gradients = learner.gradients(second, 5)
    assert (gradients.flat == expected).all() and expected.any() and shares == [2, 2, 2]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_batch_in_turns_has_the_same_gradient(monkeypatch, threads, shares):
    """A thread takes several shares one after the other; their gradients and losses add up to the whole batch's."""
    batch = packed(*sentences(6, 30))
    found = []
    for rows in (10_000, 50):
        monkeypatch.setattr(cut, "_ROWS", rows)
        with Workers(threads) as workers:
            learner = Learner(Bert.new(STUDENT, 1, np.float64), Intermediate(STUDENT, TEACHER), workers, TEACHING)
            learner.gradients(packed(*sentences(7, 30)), 2)
            losses, gradients = learner.gradients(batch, 3)
            found.append((losses, gradients.flat.copy()))
    assert shares[0] == shares[1] == threads and min(shares[2:]) >= 8
    (losses, whole), (losses_2, turns) = found
    assert np.linalg.norm(turns - whole) <= 1e-12 * np.linalg.norm(whole) and whole.any()
    for name in losses:
        assert losses_2[name] == pytest.approx(losses[name], rel=1e-12)
