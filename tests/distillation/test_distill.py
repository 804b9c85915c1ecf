"""Layer maps by the paper's formulas, projections, and the objectives' gradients by finite differences through both models."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.distillation.distill import Intermediate, Prediction, WithWords, layer_map
from minitinybert.distillation.objectives import Supervised
from minitinybert.distillation.recipes import RECIPES, Recipe
from minitinybert.distillation.scores import Comparison, compare, compare_probabilities
from minitinybert.engine.batch import Masked, packed, padded
from minitinybert.engine.parallel import Workers
from minitinybert.engine.random import key
from minitinybert.errors import InputError
from minitinybert.losses import attention
from minitinybert.losses.attention import HeadPairs
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

COMMON = {"vocab_size": 23, "max_position_embeddings": 12, "head": "classifier", "id2label": {0: "a", 1: "b", 2: "c"}}
STUDENT = Config(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, **COMMON)
FOUR_HEADS = Config(hidden_size=12, num_hidden_layers=4, num_attention_heads=4, intermediate_size=20, **COMMON)
TEACHER = Config(hidden_size=12, num_hidden_layers=4, num_attention_heads=2, intermediate_size=20, **COMMON)


def test_the_paper_s_maps():
    assert layer_map("uniform", 4, 12) == (3, 6, 9, 12)
    assert layer_map("top", 4, 12) == (9, 10, 11, 12)
    assert layer_map("bottom", 4, 12) == (1, 2, 3, 4)
    assert layer_map([2, 2, 12, 1], 4, 12) == (2, 2, 12, 1)


@given(st.integers(1, 24), st.integers(1, 24))
def test_uniform_ends_at_the_top_and_never_goes_back(M, N):
    if M > N:
        with pytest.raises(InputError, match="no more than the teacher's"):
            layer_map("uniform", M, N)
        return
    g = layer_map("uniform", M, N)
    assert len(g) == M and g[-1] == N and g[0] >= 1
    assert all(a < b for a, b in zip(g, g[1:], strict=False))
    assert all(abs(n - m * N / M) <= 0.5 for m, n in enumerate(g, 1))


@pytest.mark.parametrize("bad", ["middle", [1, 2], [0, 1, 2, 3], [1, 2, 3, 13]])
def test_bad_maps_are_refused(bad):
    with pytest.raises(InputError, match="layer map"):
        layer_map(bad, 4, 12)


def test_head_counts_and_widths_that_do_not_fit_are_said():
    with pytest.raises(InputError, match="2 attention heads, the teacher 3"):
        Intermediate(STUDENT, Config(**{**TEACHER.__dict__, "num_attention_heads": 3}))
    with pytest.raises(InputError, match="a projection is needed"):
        Intermediate(STUDENT, TEACHER, Recipe(projection="none"))


def batch_of(lengths, kind):
    rng = np.random.default_rng(5)
    ids = [rng.integers(0, 23, n).astype(np.int32) for n in lengths]
    labels = rng.integers(0, 3, len(ids))
    if kind == "packed":
        return packed(ids, [np.zeros_like(i) for i in ids], labels=labels)
    rectangle, mask = np.zeros((len(ids), 9), int), np.zeros((len(ids), 9), int)
    for i, row in enumerate(ids):
        rectangle[i, : len(row)], mask[i, : len(row)] = row, 1
    return padded(rectangle, mask, labels=labels)


OBJECTIVES = {
    "split": lambda: Intermediate(STUDENT, TEACHER),
    "shared with bias": lambda: Intermediate(STUDENT, TEACHER, Recipe(layers="top", projection="shared", projection_bias=True)),
    "one a layer": lambda: Intermediate(STUDENT, TEACHER, Recipe(layers="4,2", projection="layer"), {"attention": 0.5, "hidden": 2.0}),
    "a weight a layer": lambda: Intermediate(
        STUDENT, TEACHER, Recipe(embedding_weight=0.7, hidden_weights="0.5,2", attention_weights="0,3", projection="layer")
    ),
    "probabilities": lambda: Intermediate(STUDENT, TEACHER, Recipe(attention_target="probabilities"), {"attention": 50.0}),
    "attention alone": lambda: Intermediate(STUDENT, TEACHER, weights={"hidden": 0, "embedding": 0}),
    "no attention": lambda: Intermediate(STUDENT, TEACHER, weights={"attention": 0}),
    "teacher's heads averaged": lambda: Intermediate(STUDENT, FOUR_HEADS, Recipe(heads="average")),
    "prediction": lambda: Prediction(Recipe(temperature=2.0)),
    "prediction over elements": lambda: Prediction(Recipe(prediction_mean="elements")),
    "supervised": Supervised,
}


def learner_of(objective, threads=1, student_config=STUDENT, teacher_config=TEACHER):
    heads = objective.heads.T if isinstance(objective, Intermediate) else 2
    student, teacher = Bert.new(student_config, 1, np.float64), Bert.new(replace(teacher_config, num_attention_heads=heads), 2, np.float64)
    for model in (student, teacher):
        model.parameters.flat += 0.3 * np.random.default_rng(3).standard_normal(model.parameters.flat.size)
    return Learner(student, objective, Workers(threads), Running(teacher), seed=4)


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_whole_step_s_gradient_by_finite_differences(name, kind):
    check_gradient(learner_of(OBJECTIVES[name]()), batch_of([3, 9, 1, 5, 5], kind))


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize("S, T", [(2, 2), (2, 4), (4, 2)])
def test_flat_scores_are_compared_as_the_paper_has_it_on_each_sentence(S, T, count_padding, kind):
    """λ L_attn with (1/h) Σ_i MSE(A_i^S, A_i^T) written out, a sentence at a time, and its gradient by that formula's slope. Of a
    teacher in float16 nothing more is lost."""
    batch, rng = batch_of([3, 9, 1, 5, 5], kind), np.random.default_rng(7)
    lengths = [run.length for run in batch.runs for _ in range(run.n)]
    of_real = np.ones(sum(lengths), bool) if batch.attention_mask is None else batch.attention_mask
    keys = np.split(of_real, np.cumsum(lengths)[:-1])
    entries, weight = 2 * (batch.totals.row_pairs if count_padding else batch.totals.pairs), 0.7
    how = Comparison(HeadPairs(S, T), count_padding, entries, weight)
    scores_S, scores_T = (rng.normal(0, 60, h * sum(L * L for L in lengths)) for h in (S, T))

    def by_sentence(flat, heads):
        """The scores as they are compared, two heads of each sentence."""
        ends = np.cumsum([heads * L * L for L in lengths])[:-1]
        for real, A in zip(keys, np.split(flat, ends), strict=True):
            A = A.reshape(heads, len(real), len(real))
            A = np.where(real & (A > attention.UNSEEN), A, 0) if count_padding else A * np.outer(real, real)
            yield A.reshape(2, heads // 2, *A.shape[1:]).mean(1)

    def expected(flat):
        return weight * sum(((a - b) ** 2).sum() for a, b in zip(by_sentence(flat, S), by_sentence(scores_T, T), strict=True)) / entries

    loss, gradient = compare(scores_S, scores_T, batch, how)
    assert float(loss) == pytest.approx(expected(scores_S), rel=1e-12) and loss > 0
    direction = rng.standard_normal(scores_S.size)
    ends = [expected(scores_S + h * direction) for h in (1e-4, -1e-4)]
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(gradient @ direction, rel=1e-6)
    half = scores_T.astype(np.float16)
    (loss, gradient), (loss_2, gradient_2) = (compare(scores_S, a, batch, how) for a in (half, half.astype(np.float64)))
    assert loss == loss_2 and np.array_equal(gradient, gradient_2)


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_probabilities_are_compared_a_query_at_a_time(kind, count_padding):
    """(1/h) Σ MSE(softmax(A^S), softmax(A^T)) over the real keys of each query, written out."""
    lengths = [3, 9, 1, 5, 5]
    batch, rng = batch_of(lengths, kind), np.random.default_rng(7)
    scores_S, scores_T = (rng.normal(0, 2, 2 * sum(run.n * run.length**2 for run in batch.runs)) for _ in range(2))
    entries = 2 * (batch.totals.row_pairs if count_padding else batch.totals.pairs)
    loss, gradient = compare_probabilities(scores_S, scores_T, batch, Comparison(HeadPairs(2, 2), count_padding, entries, 0.7))
    expected, at, sentence = 0.0, 0, 0
    for run in batch.runs:
        for _ in range(run.n):
            L, real = run.length, lengths[sentence] if kind == "padded" else run.length
            for A_S, A_T in zip(*(flat[at : at + 2 * L * L].reshape(2 * L, L)[:, :real] for flat in (scores_S, scores_T)), strict=True):
                if count_padding or at % (L * L) // L < real:
                    p, q = (np.exp(A) / np.exp(A).sum() for A in (A_S, A_T))
                    expected += ((p - q) ** 2).sum()
                at += L
            sentence += 1
    assert float(loss) == pytest.approx(0.7 * expected / entries, rel=1e-12) and loss > 0
    assert gradient.shape == scores_S.shape


def test_weights_that_are_not_as_many_as_layers_are_said():
    with pytest.raises(InputError, match="3 weights of the hidden loss, and the student has 2 layers"):
        Intermediate(STUDENT, TEACHER, Recipe(hidden_weights="1,1,1"))
    for switch, value in (("hidden_weights", "1,-1"), ("attention_weights", "a"), ("embedding_weight", -1.0), ("attention_weights", "nan")):
        with pytest.raises(InputError, match=f"recipe: {switch} is"):
            Recipe(**{switch: value})


@pytest.mark.parametrize(
    "student, recipe",
    [
        (STUDENT, replace(RECIPES["huawei-2019"], padding_gradient=True)),
        (replace(STUDENT, num_attention_heads=8), Recipe(heads="average")),
        (replace(STUDENT, num_attention_heads=8), Recipe(heads="average", padding="count")),
        (replace(STUDENT, num_attention_heads=8), Recipe(heads="drop")),
        (replace(STUDENT, num_attention_heads=8), Recipe(heads="average", padding="count", attention_target="probabilities")),
        (replace(STUDENT, hidden_size=12), Recipe(project_equal_widths=False)),
    ],
)
def test_the_gradient_under_other_recipes(student, recipe):
    objective = Intermediate(student, TEACHER, recipe)
    assert bool(objective.slots) == (student.hidden_size != 12)
    assert bool(objective.score_pairs) == (recipe.heads != "drop")
    check_gradient(learner_of(objective, student_config=student), batch_of([3, 9, 1, 5, 5], "padded"))


@pytest.mark.parametrize("kind", ["packed", "padded", "padding counts", "masked"])
def test_the_gradient_of_a_prediction_loss_of_words(kind):
    """Of the masked rows where there are some, else of all that count; and its value written out."""
    recipe = Recipe(general_prediction=0.8, temperature=2.0, padding="count" if kind == "padding counts" else "exclude")
    student, teacher = (replace(c, head="mlm", pooler=False) for c in (STUDENT, TEACHER))
    batch = batch_of([3, 9, 1, 5, 5], "packed" if kind in ("packed", "masked") else "padded")
    if kind == "masked":
        masked = Masked(np.array([0, 2, 7]), np.array([1, 2, 3]), np.array([1, 1, 2, 3, 3]))
        batch = replace(batch, masked=masked, totals=batch.totals._replace(masked=3))
    learner = learner_of(WithWords(student, teacher, recipe), student_config=student, teacher_config=teacher)
    z_S, z_T = (
        model.forward_batch(batch, dropout)[0].logits / 2.0
        for model, dropout in ((learner.student, key(4, 11)), (learner.teacher.model, None))
    )
    log_p = z_S - np.log(np.exp(z_S).sum(-1, keepdims=True))
    entropy = -(np.exp(z_T) / np.exp(z_T).sum(-1, keepdims=True) * log_p).sum(-1)
    rows = {"padded": batch.attention_mask, "masked": [0, 2, 7]}.get(kind, slice(None))
    with learner.workers:
        losses, _ = learner.gradients(batch, 11)
    assert losses["prediction"] == pytest.approx(0.8 * entropy[rows].mean(), rel=1e-12)
    check_gradient(learner, batch)


def test_what_the_released_code_does_not_see():
    """Padding, and a real score that is not above −100: 0, and marked as not seen."""
    A = np.array([[[[-99.9, -100.0, -100.1, 3.0], [-1e4, 0.0, 250.0, -250.0]]]])
    keys = np.array([[[[True, True, True, False]]]])
    visible_A, visible = attention.visible(A, keys)
    assert visible.tolist() == [[[[True, False, False, False], [False, True, True, False]]]]
    assert visible_A.tolist() == [[[[-99.9, 0.0, 0.0, 0.0], [0.0, 0.0, 250.0, 0.0]]]]
    assert A[0, 0, 0, 2] == -100.1  # the trace's own scores stay what they are


@pytest.mark.parametrize("student", [STUDENT, replace(STUDENT, num_attention_heads=8)], ids=["heads as many", "heads averaged"])
def test_the_gradient_where_real_scores_are_not_seen(student):
    """What is compared as 0 does not move: by finite differences, with scores of −100 and less of real keys on both sides."""
    learner = learner_of(
        Intermediate(student, TEACHER, replace(RECIPES["huawei-2019"], heads="average", padding_gradient=True)), student_config=student
    )
    batch = batch_of([3, 9, 1, 5, 5], "padded")
    for model in (learner.student, learner.teacher.model):
        for name in model.parameters:
            if name.endswith(("query.weight", "key.weight")):
                model.parameters[name][...] *= 12
        scores, heads = model.forward_batch(batch)[0].scores[-1], model.config.num_attention_heads
        keys = np.broadcast_to(batch.attention_mask.reshape(5, 1, 1, 9), (5, heads, 9, 9))
        assert 0.01 < (scores.reshape(keys.shape)[keys] <= attention.UNSEEN).mean() < 0.5
    check_gradient(learner, batch)


def test_the_classifier_with_relu():
    check_gradient(learner_of(Prediction(), student_config=replace(STUDENT, classifier_relu=True)), batch_of([3, 9, 1], "padded"))


def check_gradient(learner, batch):
    """d loss/d(every tensor along a random direction), dropout on, projections among the tensors."""
    with learner.workers:
        losses, grads = learner.gradients(batch, 11)
        gradient = grads.flat.copy()
        flat, rng = learner.student.parameters.flat, np.random.default_rng(6)
        whole = np.linalg.norm(gradient)
        assert whole > 1e-3
        for slot in learner.student.parameters.layout.slots:
            start = learner.student.parameters.layout.offsets[slot.name]
            part = slice(start, start + int(np.prod(slot.shape)))
            direction = rng.standard_normal(part.stop - part.start)
            direction /= np.linalg.norm(direction)
            values = []
            for h in (1e-4, -1e-4, 5e-5, -5e-5):
                kept = flat[part].copy()
                flat[part] += h * direction
                values.append(float(sum(learner.gradients(batch, 11)[0].values())))
                flat[part] = kept
            coarse, fine = (values[0] - values[1]) / 2e-4, (values[2] - values[3]) / 1e-4
            expected = (4 * fine - coarse) / 3
            assert abs(gradient[part] @ direction - expected) <= 1e-6 * max(abs(expected), 1e-2 * whole), slot.name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_padding_and_threads_change_nothing(name):
    results = []
    for kind, threads in (("packed", 1), ("padded", 1), ("packed", 2), ("padded", 3)):
        learner = learner_of(OBJECTIVES[name](), threads)
        with learner.workers:
            losses, grads = learner.gradients(batch_of([3, 9, 1, 5, 5], kind), 2)
        results.append((losses, grads.flat.copy()))
    reference_losses, reference = results[0]
    for losses, flat in results[1:]:
        assert losses.keys() == reference_losses.keys()
        for term, value in losses.items():
            assert value == pytest.approx(reference_losses[term], rel=1e-12)
        assert np.linalg.norm(flat - reference) <= 1e-11 * np.linalg.norm(reference)
