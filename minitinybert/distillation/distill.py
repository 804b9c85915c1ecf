"""TinyBERT's distillation (paper section 3): the layer map and the two objectives of task-specific
distillation.

Student layer m learns from teacher layer g(m), with g(0) = 0 the embeddings and g(M+1) = N+1 the
prediction (eqs. 6 and 11):

    L = Σ_m L_layer(m)      L_layer = λ_embd L_embd (m = 0),  λ_hidn L_hidn + λ_attn L_attn (0 < m ≤ M),  L_pred (m = M+1)

The paper has a λ_m for each layer, all of them 1; here each term of each layer may have one of its
own (the recipe's weights). The first step learns m ≤ M (`Intermediate`), the second m = M+1 (`Prediction`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..engine.batch import Batch
from ..engine.device import Array, array_module
from ..engine.memory import added
from ..errors import InputError
from ..losses import embedding, hidden, mse, prediction
from ..losses.attention import HeadPairs
from ..model.config import Config
from ..model.parameters import Slot
from ..model.trace import Trace
from .objectives import Objective, Terms, View
from .recipes import DEFAULT, Recipe
from .scores import Comparison, compare, compare_probabilities

Weight = float | Sequence[float]  # λ of a term: of all layers, or one a layer


def layer_map(strategy: str | Sequence[int], M: int, N: int) -> tuple[int, ...]:
    """g(1) … g(M): the teacher's layer for each of the student's. M student layers, N teacher
    layers.

    "uniform" g(m) = m·N/M (rounded where M does not divide N), "top" g(m) = m + N − M, "bottom"
    g(m) = m, or M numbers in 1 … N.

    >>> layer_map("uniform", 4, 12), layer_map("top", 4, 12)
    ((3, 6, 9, 12), (9, 10, 11, 12))
    """
    if isinstance(strategy, str):
        if M > N:
            raise InputError(f"the student has {M} layers, the teacher {N}: a {strategy} map needs no more than the teacher's")
        maps = {
            "uniform": tuple((2 * m * N + M) // (2 * M) for m in range(1, M + 1)),
            "top": tuple(m + N - M for m in range(1, M + 1)),
            "bottom": tuple(range(1, M + 1)),
        }
        if strategy not in maps:
            raise InputError(f"layer map {strategy!r}: choose uniform, top, bottom, or a list such as 3,6,9,12")
        return maps[strategy]
    if len(strategy) != M or not all(1 <= n <= N for n in strategy):
        raise InputError(f"layer map {list(strategy)}: {M} teacher layers between 1 and {N} are needed, one for each student layer")
    return tuple(strategy)


def projection_names(kind: str, M: int) -> list[str]:
    """Which learned map each of hidden[0…M] goes through; none where `kind` is "none".

    "split": W_e for the embeddings, one W_h for all layers (paper). "shared": one for all
    (`fit_dense`, released code). "layer": one each (`fit_denses.m`, its second version).
    """
    return {
        "split": ["fit_dense_embedding"] + ["fit_dense_hidden"] * M,
        "shared": ["fit_dense"] * (M + 1),
        "layer": [f"fit_denses.{m}" for m in range(M + 1)],
        "none": [],
    }[kind]


class Intermediate(Objective):
    """The first step: embedding, hidden and attention losses of every student layer (eqs. 7–9), as
    the recipe has them.

    weights: λ of the terms "embedding", "hidden" and "attention", in the place of the recipe's: of
    all layers, or a sequence of one a layer; 0 leaves a term out. InputError where head counts or
    widths differ and the recipe does not say what then, or there are not as many λ as layers.
    """

    def __init__(self, student: Config, teacher: Config, recipe: Recipe = DEFAULT, weights: Mapping[str, Weight] | None = None):
        M = student.num_hidden_layers
        self.M, self.recipe = M, recipe
        self.padding_gradient = recipe.padding_gradient
        self.untouched = () if recipe.decay_untouched else ("pooler.", "classifier.", "qa_outputs.", "cls.")  # of no loss of this step
        self.map = layer_map(recipe.layer_map, M, teacher.num_hidden_layers)
        self.heads = HeadPairs(student.num_attention_heads, teacher.num_attention_heads)
        self.weights: dict[str, Weight] = {**recipe.weights, **(weights or {})}
        for term, weight in self.weights.items():
            if isinstance(weight, Sequence) and len(weight) != M:
                raise InputError(f"{len(weight)} weights of the {term} loss, and the student has {M} layers: give one, or one a layer")
        if any(self._weight("attention", m) for m in range(1, M + 1)) and not _heads_fit(self.heads, recipe.heads):
            self.weights["attention"] = 0.0
        equal = student.hidden_size == teacher.hidden_size
        self.names = projection_names("none" if equal and not recipe.project_equal_widths else recipe.projection, M)
        if not self.names and not equal:
            raise InputError(f"widths {student.hidden_size} and {teacher.hidden_size} differ: a projection is needed")
        self.slots = _projection_slots(self.names, recipe.projection_bias, teacher.hidden_size, student.hidden_size)
        self.hidden_pairs = [(m, n) for m, n in enumerate((0, *self.map)) if self._weight("hidden" if m else "embedding", m)]
        self.score_pairs = [(m, n - 1) for m, n in enumerate(self.map) if self._weight("attention", m + 1)]
        views = [View(frozenset(p[i] for p in self.hidden_pairs), frozenset(p[i] for p in self.score_pairs)) for i in (0, 1)]
        self.student_view, self.teacher_view = views

    def _weight(self, term: str, m: int) -> float:
        """λ of a term in student layer m, 0 the embeddings."""
        weight = self.weights[term]
        return weight[m - 1] if isinstance(weight, Sequence) else weight

    def _comparison(self, batch: Batch, m: int) -> Comparison:
        """Of layer m's scores: a mean over the entries whose query and key are real, or over all
        where padding counts."""
        counts = self.recipe.padding == "count"
        entries = self.heads.pairs * (batch.totals.row_pairs if counts else batch.totals.pairs)
        return Comparison(self.heads, counts, entries, self._weight("attention", m))

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None
        dtrace = Trace(hidden=[None] * (self.M + 1), scores=[None] * self.M)
        losses: dict[str, dict[int, Array]] = defaultdict(dict)  # of each term, by student layer
        dprojections: dict[str, list[Array]] = defaultdict(list)
        for m, n in self.hidden_pairs:
            loss, dtrace.hidden[m], gradients = self._hidden(m, student.hidden[m], teacher.hidden[n], batch, parameters)  # type: ignore[index]
            losses["hidden" if m else "embedding"][m] = loss
            for name, gradient in gradients.items():
                dprojections[name].append(gradient)
        compared = compare if self.recipe.attention_target == "scores" else compare_probabilities
        for m, n in self.score_pairs:
            loss, dtrace.scores[m] = compared(student.scores[m], teacher.scores[n], batch, self._comparison(batch, m + 1))  # type: ignore[index]
            losses["attention"][m + 1] = loss
        sums = {term: added(*values.values()) for term, values in losses.items()}
        return Terms(sums, dtrace, {name: added(*values) for name, values in dprojections.items()}, _by_layer(losses))

    def _hidden(
        self, m: int, H_S: Array, H_T: Array, batch: Batch, parameters: Mapping[str, Array]
    ) -> tuple[Array, Array, dict[str, Array]]:
        """L_embd at m = 0, L_hidn above, weighted; its gradient at H_S, and those of the map by
        name. A mean over the real tokens, or over all rows where padding counts."""
        term, weight = (embedding, self._weight("embedding", 0)) if m == 0 else (hidden, self._weight("hidden", m))
        mask, rows = batch.attention_mask, batch.totals.tokens
        if self.recipe.padding == "count":
            mask, rows = None, batch.totals.rows
        names = [self.names[m] + ending for ending in (".weight", ".bias")] if self.names else []
        W, b = (parameters.get(name) for name in names) if names else (None, None)
        loss, cache = term.forward(H_S, H_T, W, b, mask, rows * H_T.shape[-1])
        dH_S, *gradients = term.backward(weight, cache)
        named = {name: gradient for name, gradient in zip(names, gradients, strict=False) if gradient is not None}
        return weight * loss, dH_S, named


class WithWords(Intermediate):
    """The first step's losses, and the prediction loss (eq. 10) of the words that the masked
    language models of teacher and student would put: general distillation's variant with a
    prediction layer, which the paper leaves out (section 3.2).

    Of the masked rows where text is masked, else of all rows that count; weighted by the recipe's
    general_prediction, or as the term "prediction" of `weights`.
    """

    def __init__(self, student: Config, teacher: Config, recipe: Recipe = DEFAULT, weights: Mapping[str, Weight] | None = None):
        super().__init__(student, teacher, recipe, weights)
        self.weights.setdefault("prediction", recipe.general_prediction)
        self.student_view, self.teacher_view = (View(v.hidden, v.scores, True, True) for v in (self.student_view, self.teacher_view) if v)
        self.untouched = tuple(name for name in self.untouched if name != "cls.")

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None
        terms = super().__call__(student, batch, teacher, parameters)
        z_S, z_T, weight = student.logits, teacher.logits, self._weight("prediction", 0)
        assert z_S is not None and z_T is not None
        real = None  # rows, where not all of them count
        if batch.masked is not None:
            rows: float = batch.totals.masked
        elif self.recipe.padding == "count":
            rows = batch.totals.rows
        else:
            rows = batch.totals.tokens
            real = None if batch.attention_mask is None else array_module(z_S).flatnonzero(batch.attention_mask)
        z_S, z_T = (z_S, z_T) if real is None else (z_S[real], z_T[real])
        count = rows * z_S.shape[-1] if self.recipe.prediction_mean == "elements" else rows
        loss, cache = prediction.forward(z_S, z_T, self.recipe.temperature, count)
        dz = prediction.backward(weight, cache)
        if real is not None:
            of_all = array_module(dz).zeros_like(student.logits)
            of_all[real] = dz
            dz = of_all
        return terms._replace(losses={**terms.losses, "prediction": weight * loss}, dtrace=replace(terms.dtrace, logits=dz))


class Prediction(Objective):
    """The second step: soft cross-entropy with the teacher's logits (eq. 10); mean squared error
    with them for regression."""

    student_view = View(logits=True)
    teacher_view = View(logits=True)

    def __init__(self, recipe: Recipe = DEFAULT, regression: bool = False):
        self.recipe, self.regression = recipe, regression
        self.padding_gradient = recipe.padding_gradient

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None
        z_S, z_T, n = student.logits, teacher.logits, batch.totals.sentences
        if self.regression:
            if self.recipe.regression_target == "labels":
                z_T = batch.labels[:, None].astype(z_S.dtype)  # type: ignore[union-attr,index]
            error, cache = mse.forward(z_S, z_T, count=n)
            return Terms({"prediction": error}, Trace(logits=mse.backward(1.0, cache)), {})
        count = n * z_S.shape[-1] if self.recipe.prediction_mean == "elements" else n  # type: ignore[union-attr]
        loss, c = prediction.forward(z_S, z_T, self.recipe.temperature, count)
        return Terms({"prediction": loss}, Trace(logits=prediction.backward(1.0, c)), {})


def _by_layer(losses: Mapping[str, Mapping[int, Array]]) -> dict[str, Array]:
    """What is logged of the terms that several layers have."""
    return {f"{term}.{m}": loss for term, values in losses.items() if term != "embedding" for m, loss in values.items()}


def _heads_fit(heads: HeadPairs, choice: str) -> bool:
    """Whether the recipe's choice leaves an attention loss; InputError where it is "refuse", or
    groups do not come out even."""
    if heads.same:
        return True
    differ = f"the student has {heads.S} attention heads, the teacher {heads.T}"
    if choice == "refuse":
        raise InputError(f"{differ}: give the student as many, or set heads to drop (no attention loss) or average (groups)")
    if choice == "average" and max(heads.S, heads.T) % heads.pairs:
        raise InputError(f"{differ}: groups to average need one number to be a multiple of the other")
    return choice == "average"


def _projection_slots(names: Sequence[str], bias: bool, d: int, d_student: int) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for name in dict.fromkeys(names):
        slots.append(Slot(name + ".weight", (d, d_student)))
        if bias:
            slots.append(Slot(name + ".bias", (d,)))
    return tuple(slots)
