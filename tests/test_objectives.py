"""The objectives of docs/objectives.md as they stand there: their gradients against PyTorch and finite differences, and in training."""

import re
from pathlib import Path

import numpy as np
import pytest

from minitinybert import Bert, Trace
from minitinybert.engine.batch import packed
from minitinybert.engine.parallel import Workers
from minitinybert.model.config import Config
from minitinybert.training import cut
from minitinybert.training.shares import Learner
from minitinybert.training.step import step
from minitinybert.training.teacher import Running

PAGE = Path(__file__).parents[1] / "docs" / "objectives.md"
SIZES = {"vocab_size": 30, "max_position_embeddings": 12, "head": "classifier"}
SIZES |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
WIDE = Config(**SIZES, hidden_size=12, num_hidden_layers=4, num_attention_heads=3, intermediate_size=20)
STUDENT = Config(**SIZES, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16)
NARROW = Config(**SIZES, hidden_size=6, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16)


@pytest.fixture(scope="module")
def page():
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)), names)
    return names


def made(config, seed):
    model = Bert.new(config, seed, np.float64)
    rng = np.random.default_rng(seed)
    for name in model.parameters:
        model.parameters[name][...] = rng.normal(1 if "LayerNorm.weight" in name else 0, 0.4, model.parameters[name].shape)
    return model


def sentences(n=9, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 30, rng.integers(2, 9)) for _ in range(n)]
    return packed(ids, [np.zeros_like(i) for i in ids])


def situation(page, name):
    teacher = made(WIDE, 1)
    student = made(NARROW if name == "Relations" else STUDENT, 2)
    objective = page[name](student.config, teacher if name == "Relations" else teacher.config)
    return student, Running(teacher), objective


OBJECTIVES = pytest.mark.parametrize("name", ["Cosine", "Patient", "Relations"])


def by_pytorch(torch, name, S, T, batch, values):
    """The loss of two traces as its paper has it, on padded loops of single sentences. S: the student's, tensors."""
    F = torch.nn.functional
    tensor = torch.from_numpy
    if name == "Cosine":
        return (1 - F.cosine_similarity(S["hidden"][2], tensor(T.hidden[4]))).mean()
    if name == "Patient":
        cls = batch.cls_rows
        u, v = (F.normalize(x[cls], dim=-1) for x in (S["hidden"][1], tensor(T.hidden[2])))
        soft = -(F.softmax(tensor(T.logits), -1) * F.log_softmax(S["logits"], -1)).sum(-1).mean()
        return 100 * F.mse_loss(u, v, reduction="sum") / len(cls) + soft
    total, start, h = 0.0, 0, 3
    W_S, W_T = values
    for run in batch.runs:
        for i in range(run.n):
            rows = slice(run.start + i * run.length, run.start + (i + 1) * run.length)
            part = run.length**2 * h
            A = [x[start : start + part].reshape(h, run.length, run.length) for x in (S["scores"][1].reshape(-1), tensor(T.scores[3]))]
            start += part
            relations = []
            for x, (W, b) in ((S["hidden"][1][rows], W_S), (tensor(T.hidden[3])[rows], W_T)):
                V = (x @ W.T + b).reshape(run.length, h, -1).transpose(0, 1)
                relations.append(V @ V.transpose(1, 2) / V.shape[-1] ** 0.5)
            for z_S, z_T in (A, relations):
                total = total - (F.softmax(z_T, -1) * F.log_softmax(z_S, -1)).sum()
    return total / (h * batch.totals.tokens)


@OBJECTIVES
def test_loss_and_gradient_are_pytorchs(page, name):
    torch = pytest.importorskip("torch")
    student, teacher, objective = situation(page, name)
    batch = sentences()
    taught = teacher.answer(batch, objective.teacher_view, (0, 0))
    trace, _ = student.forward_batch(batch, **objective.student_view.arguments(batch))
    terms = objective(trace, batch, taught, student.parameters)
    leaf = lambda a: None if a is None else torch.from_numpy(a.copy()).requires_grad_()
    S = {"hidden": [leaf(a) for a in trace.hidden], "scores": [leaf(a) for a in trace.scores], "logits": leaf(trace.logits)}
    named = [
        [leaf(model.parameters[f"encoder.layer.{l}.attention.self.value.{part}"]) for part in ("weight", "bias")]
        for model, l in ((student, 1), (teacher.model, 3))
    ]
    loss = by_pytorch(torch, name, S, taught, batch, named)
    loss.backward()
    assert float(sum(terms.losses.values())) == pytest.approx(loss.item(), rel=1e-12)
    found = 0
    dtrace = terms.dtrace or Trace()
    for ours, leaves in ((dtrace.hidden, S["hidden"]), (dtrace.scores, S["scores"]), ([dtrace.logits], [S["logits"]])):
        for a, tensor in zip(ours or [None] * len(leaves), leaves, strict=True):
            expected = None if tensor is None else tensor.grad
            assert (a is None) == (expected is None)
            if a is not None:
                np.testing.assert_allclose(a.reshape(expected.shape), expected.numpy(), rtol=1e-9, atol=1e-12)
                found += np.abs(a).max() > 1e-6
    assert found == {"Cosine": 1, "Patient": 2, "Relations": 2}[name]
    for a, tensor in zip(terms.dprojections.values(), named[0], strict=False):
        np.testing.assert_allclose(a, tensor.grad.numpy(), rtol=1e-9, atol=1e-12)


@OBJECTIVES
def test_the_student_s_gradient_is_the_loss_s_slope(page, name):
    student, teacher, objective = situation(page, name)
    batch = sentences()
    gradients = student.parameters.zeros_like()
    step(student, objective, batch, teacher, (0, 0), gradients)
    direction = np.random.default_rng(3).standard_normal(gradients.flat.shape)
    start, unused = student.parameters.flat.copy(), student.parameters.zeros_like()

    def loss(t):
        student.parameters.flat[...] = start + t * direction
        return float(sum(step(student, objective, batch, teacher, (0, 0), unused).values()))

    h = 1e-4
    slope = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    assert float(gradients.flat @ direction) == pytest.approx(slope, rel=1e-6)


@OBJECTIVES
def test_shares_add_up(page, name, monkeypatch):
    student, teacher, objective = situation(page, name)
    batch = sentences(24)
    assert len(cut.thread_shares(batch, 3)) >= 3
    flats = []
    for threads in (1, 3):
        with Workers(threads) as workers:
            losses, gradients = Learner(student, objective, workers, teacher).gradients(batch, 0)
            flats.append((float(sum(losses.values())), gradients.flat.copy()))
    assert flats[0][0] == pytest.approx(flats[1][0], rel=1e-12)
    np.testing.assert_allclose(flats[0][1], flats[1][1], rtol=1e-8, atol=1e-12)


@OBJECTIVES
def test_a_student_learns_by_it(page, name, tmp_path):
    student, teacher, objective = situation(page, name)
    ids = [np.random.default_rng(i).integers(0, 30, 3 + i % 6) for i in range(32)]
    batch = packed(ids, [np.zeros_like(i) for i in ids])
    page["distil"](teacher.model, student, objective, ids, tmp_path / "out", epochs=30, batch_size=16, lr=1e-2)
    itself = page[name](WIDE, teacher.model if name == "Relations" else WIDE)

    def loss(model, by):
        return float(sum(step(model, by, batch, teacher, (0, 0), model.parameters.zeros_like()).values()))

    learned = Bert.load(tmp_path / "out", dtype=np.float64)
    least, before, after = loss(teacher.model, itself), loss(student, objective), loss(learned, objective)
    assert least <= after < least + 0.7 * (before - least)
