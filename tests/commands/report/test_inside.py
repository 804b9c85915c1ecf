"""Attention, distances and CKA against their definitions, and the distances against the losses that training logs."""

from dataclasses import replace

import numpy as np
import pytest

from minitinybert.commands.report import inside
from minitinybert.data.tokenizer import Encoded
from minitinybert.distillation.distill import Intermediate
from minitinybert.distillation.recipes import DEFAULT, RECIPES
from minitinybert.engine.batch import packed
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

RNG = np.random.default_rng(0)


def bert(layers, width, seed, segments=2):
    sizes = {"vocab_size": 30, "num_attention_heads": 2, "max_position_embeddings": 40, "intermediate_size": 12}
    return Bert.new(Config(hidden_size=width, num_hidden_layers=layers, initializer_range=0.4, type_vocab_size=segments, **sizes), seed)


def sentence(length, rng=RNG):
    return Encoded(rng.integers(5, 30, length).astype(np.int32), (np.arange(length) > length // 2).astype(np.int32))


def test_attention_is_the_softmax_of_the_scores():
    model, one = bert(3, 8, 1), sentence(7)
    p = inside.attention(model, one)
    trace, _ = model.forward(one.input_ids[None], token_type_ids=one.token_type_ids[None])
    e = np.exp(np.stack(trace.scores)[:, 0].astype(np.float64))
    assert p.shape == (3, 2, 7, 7) and p == pytest.approx(e / e.sum(axis=-1, keepdims=True), rel=1e-5)
    assert np.ptp(p, axis=-1).min() > 0.01  # it is not the same everywhere
    assert inside.attention(bert(3, 8, 1, segments=1), one).shape == (3, 2, 7, 7)  # a pair, to a model of one segment


@pytest.mark.parametrize("recipe", [DEFAULT, RECIPES["huawei-2019"]], ids=["split", "shared with a bias"])
def test_distances_are_the_losses_of_training(recipe, tmp_path):
    """At the pairs that are learned, what the objective of the intermediate step gives for the same sentences."""
    student, teacher = bert(2, 8, 1), bert(4, 12, 2)
    several = [sentence(n) for n in (5, 9, 9, 3)]
    objective = Intermediate(student.config, teacher.config, recipe)
    tensors = {slot.name: RNG.normal(size=slot.shape).astype(np.float32) for slot in objective.slots}
    batch = packed([s.input_ids for s in several], [s.token_type_ids for s in several])
    traces = [model.forward_batch(model.place(batch))[0] for model in (student, teacher)]
    terms = objective(traces[0], batch, traces[1], tensors)
    H_S, H_T = (inside.hidden_states(model, several) for model in (student, teacher))
    found = inside.distances(H_S, H_T, inside.Maps(tensors, objective.names))
    assert found.shape == (3, 5) and np.isfinite(found).all()
    assert found[0, 0] == pytest.approx(float(terms.losses["embedding"]), rel=1e-5)
    for m, n in enumerate(objective.map, 1):
        assert found[m, n] == pytest.approx(float(terms.by_layer[f"hidden.{m}"]), rel=1e-5)
    assert len(np.unique(found.round(6))) == 15


def test_distances_without_maps():
    H_S, H_T = [RNG.normal(size=(6, 4)) for _ in range(2)], [RNG.normal(size=(6, 4)) for _ in range(3)]
    found = inside.distances(H_S, [*H_T, H_S[1]], inside.Maps({}, ["", ""]))
    assert found[0, 1] == pytest.approx(((H_S[0] - H_T[1]) ** 2).mean()) and found[1, 3] == 0
    wider = [RNG.normal(size=(6, 5))]
    assert np.isnan(inside.distances(H_S, wider, inside.Maps({}, ["", ""]))).all()
    misfit = {"fit_dense.weight": np.ones((3, 3))}
    assert np.isnan(inside.distances(H_S, wider, inside.Maps(misfit, ["fit_dense"] * 2))).all()


def gram_cka(x, y):
    """By its definition: HSIC of linear kernels, tr(K H L H), over the geometric mean of each with itself."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n
    hsic = lambda a, b: np.trace(a @ a.T @ centre @ b @ b.T @ centre)
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def test_cka_is_its_definition():
    X, Y = [RNG.normal(size=(20, 4)) + 3 for _ in range(2)], [RNG.normal(size=(20, 6)) for _ in range(3)]
    Y[2] = X[1] @ RNG.normal(size=(4, 6)) + 0.1 * Y[2]
    found = inside.alignments(X, Y)
    assert found == pytest.approx(np.array([[gram_cka(x, y) for y in Y] for x in X]))
    assert found[1, 2] > 0.5 > found[0, 0]
    turned = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    assert inside.alignments([X[0]], [3 * X[0] @ turned + 7]) == pytest.approx(np.ones((1, 1)))  # not moved by turning, scale or shift
    assert inside.alignments([np.ones((5, 2))], [np.ones((5, 2))])[0, 0] == 0


def test_the_picture_of_a_map():
    W = np.diag([3.0, -4.0, 0.5])[:, :2]
    seen = inside.picture("fit_dense_hidden.weight", W)
    assert seen.singular_values == pytest.approx([4, 3]) and seen.largest == 4 and seen.shape == (3, 2)
    assert seen.entries.tolist() == [[95, 0], [0, -127], [0, 0]]
    large = inside.picture("W", RNG.normal(size=(1100, 600)))
    assert large.entries.shape == (367, 300) and large.shape == (1100, 600)
    assert inside.picture("W", np.zeros((2, 2))).entries.tolist() == [[0, 0], [0, 0]]


def test_which_sentences_are_shown():
    lengths = [5, 60, 6, 7, 50, 8, 9]
    several = [sentence(n) for n in lengths]
    assert inside.choose(several, [], 3) == [0, 3, 6]
    assert inside.choose(several, [1, 6, 4, 2, 0], 4) == [6, 2, 0, 5]  # of the first those that fit, half of them; then spaced
    assert inside.choose(several, [], 99) == [0, 2, 3, 5, 6] and inside.choose([], [], 3) == []
    assert inside.choose([several[1], several[4]], [], 1) == [1]  # none fits: the shortest
    short = inside.cut(several[1], 3)
    assert len(short.input_ids) == len(short.token_type_ids) == inside.MOST_PIECES and short.input_ids[-1] == 3
    assert inside.cut(several[0], 3) is several[0]


def test_layers_are_compared_over_so_many_tokens(monkeypatch):
    monkeypatch.setattr(inside, "COMPARED_TOKENS", 20)
    several = inside.compared([sentence(9) for _ in range(5)])
    assert len(several) == 2 and [h.shape for h in inside.hidden_states(bert(2, 8, 1), several)] == [(18, 8)] * 3
    assert len(inside.compared([sentence(30)])) == 1  # one in any case
    monkeypatch.setattr(inside, "COMPARED_SENTENCES", 1)
    assert len(inside.compared(several)) == 1


def test_models_of_other_vocabularies_are_no_pair(made, tmp_path):
    from .conftest import bert as saved

    one, two = Bert.load(made.here / "base"), Bert.load(saved(tmp_path / "x", 2, 8, 0))
    inside.check_pair(one, two)
    words = (tmp_path / "vocab.txt").read_text().replace("film", "book")
    (tmp_path / "vocab.txt").write_text(words)
    with pytest.raises(InputError, match="one vocabulary"):
        inside.check_pair(one, Bert(two.config, two.parameters, {"vocab.txt": tmp_path / "vocab.txt"}))
    with pytest.raises(InputError, match="without layers"):
        inside.check_pair(Bert(replace(one.config, num_hidden_layers=0), one.parameters, one.tokenizer_files), one)
