"""The embeddings that a student starts with: where the teacher's can be had whole, they are; elsewhere nothing of the same rank is
much nearer."""

from dataclasses import replace

import numpy as np
import pytest

from minitinybert.data.batching import EncodedExamples
from minitinybert.distillation.nearest import nearest_embeddings
from minitinybert.losses import embedding
from minitinybert.model.bert import Bert, tables
from minitinybert.model.config import Config

V, D = 60, 24


def models(width, seed=0, gain=None):
    """A teacher with tables of any numbers, and a student with BERT's random ones."""
    rng = np.random.default_rng(seed)
    teacher = Bert.new(Config(V, D, 2, 2, 48, max_position_embeddings=16, head="none"), 1, np.float64)
    teacher.parameters.flat[...] = rng.standard_normal(teacher.parameters.flat.shape)
    teacher.parameters["embeddings.LayerNorm.weight"][...] = rng.uniform(0.5, 1.5, D) if gain is None else gain
    student = Bert.new(replace(teacher.config, hidden_size=width, intermediate_size=2 * width), 2, np.float64)
    return teacher, student


def batch(words, length=8, seed=3):
    rng = np.random.default_rng(seed)
    ids = [rng.choice(words, length).astype(np.int32) for _ in range(200)]
    return EncodedExamples(ids, [np.zeros(length, np.int32)] * len(ids)).batch(np.arange(len(ids)))


def loss(student, teacher, W, sample):
    H = [model.forward_batch(sample)[0].hidden[0] for model in (student, teacher)]
    return float(embedding.forward(*H, W)[0]), H[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_teacher_of_low_rank_is_met_exactly(seed):
    """Tables that span 9 directions, which a width of 10 has room for, and gains that are all the same: the loss is 0."""
    teacher, student = models(10, seed, gain=0.7)
    span = np.linalg.qr(np.random.default_rng(seed).standard_normal((D, 9)))[0].T
    span -= span.mean(axis=1, keepdims=True)  # rows without a mean, so that taking it leaves them in the span
    for table in tables(teacher.parameters):
        table[...] = np.random.default_rng(len(table)).standard_normal((len(table), 9)) @ span
    sample = batch(np.arange(V))
    student.config, teacher.config = (replace(model.config, layer_norm_eps=0.0) for model in (student, teacher))
    W = nearest_embeddings(student, teacher, sample, seed)
    assert W.shape == (D, 10) and loss(student, teacher, W, sample)[0] < 1e-20
    assert loss(student, teacher, W + 0.01, sample)[0] > 1e-6


@pytest.mark.parametrize("width", [6, 12, 20, 24])
def test_nothing_of_its_rank_is_much_nearer(width):
    """Of rank d′ no embeddings at all come below the sum of the teacher's other singular values squared (Eckart and Young)."""
    teacher, student = models(width)
    sample = batch(np.arange(20))  # a third of the vocabulary is met, and the map is not for those words alone
    W = nearest_embeddings(student, teacher, sample, 0)
    got, e_T = loss(student, teacher, W, sample)
    least = float((np.linalg.svd(e_T, compute_uv=False)[width:] ** 2).sum() / e_T.size)
    nothing = float((e_T**2).mean())
    assert least - 1e-12 <= got <= least + 0.12 * nothing
    random = Bert.new(student.config, 5, np.float64)
    best = np.linalg.lstsq(random.forward_batch(sample)[0].hidden[0], e_T, rcond=None)[0].T
    assert width > 20 or got < loss(random, teacher, best, sample)[0]


def test_words_that_are_met_count_for_more():
    losses = []
    for words in (np.arange(10), np.arange(10, V)):
        teacher, student = models(8)
        W = nearest_embeddings(student, teacher, batch(words), 0)
        losses.append(loss(student, teacher, W, batch(np.arange(10), seed=9))[0])
    assert losses[0] < 0.7 * losses[1]


def test_padding_is_not_looked_at():
    teacher, student = models(12)
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, V, n).astype(np.int32) for n in (3, 5, 7)]  # in the order of a packed batch
    packed = EncodedExamples(ids, [np.zeros(len(i), np.int32) for i in ids])
    samples = [examples.batch(np.arange(3)) for examples in (packed, replace(packed, pad_to=9))]
    losses = [loss(student, teacher, nearest_embeddings(student, teacher, sample, 0), samples[0])[0] for sample in samples]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
