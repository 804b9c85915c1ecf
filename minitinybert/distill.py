"""TinyBERT's distillation (paper section 3): the layer map and the two objectives of task-specific distillation.

Student layer m learns from teacher layer g(m), with g(0) = 0 the embeddings and g(M+1) = N+1 the prediction (eqs. 6 and 11):

    L = Σ_m L_layer(m)      L_layer = λ_embd L_embd (m = 0),  λ_hidn L_hidn + λ_attn L_attn (0 < m ≤ M),  L_pred (m = M+1)

The paper has a λ_m for each layer, all of them 1; here a λ belongs to a term and is the same in every layer.
The first step learns m ≤ M (`Intermediate`), the second m = M+1 (`Prediction`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .batch import Batch, Run
from .config import Config
from .device import Array, array_module
from .errors import InputError
from .losses import attention, embedding, hidden, mse, prediction
from .objectives import Terms, View
from .ops.attention import split_runs
from .parameters import Slot
from .recipes import DEFAULT, Recipe
from .trace import Trace


def layer_map(strategy: str | Sequence[int], M: int, N: int) -> tuple[int, ...]:
    """g(1) … g(M): the teacher's layer for each of the student's. M student layers, N teacher layers.

    "uniform" g(m) = m·N/M (rounded where M does not divide N), "top" g(m) = m + N − M, "bottom" g(m) = m, or M numbers in 1 … N.
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

    "split": W_e for the embeddings, one W_h for all layers (paper). "shared": one for all (`fit_dense`, released code).
    "layer": one each (`fit_denses.m`, its second version).
    """
    return {
        "split": ["fit_dense_embedding"] + ["fit_dense_hidden"] * M,
        "shared": ["fit_dense"] * (M + 1),
        "layer": [f"fit_denses.{m}" for m in range(M + 1)],
        "none": [],
    }[kind]


class Intermediate:
    """The first step: embedding, hidden and attention losses of every student layer (eqs. 7–9), as the recipe has them.

    weights: λ of the terms "embedding", "hidden" and "attention"; 0 leaves a term out. InputError where head counts or widths
    differ and the recipe does not say what then.
    """

    def __init__(self, student: Config, teacher: Config, recipe: Recipe = DEFAULT, weights: Mapping[str, float] | None = None):
        M = student.num_hidden_layers
        self.M, self.recipe = M, recipe
        self.map = layer_map(recipe.layer_map, M, teacher.num_hidden_layers)
        self.heads = HeadPairs(student.num_attention_heads, teacher.num_attention_heads)
        self.weights = {"embedding": 1.0, "hidden": 1.0, "attention": 1.0, **(weights or {})}
        if self.weights["attention"] and not self.heads.fit(recipe.heads):
            self.weights["attention"] = 0.0
        equal = student.hidden_size == teacher.hidden_size
        self.names = projection_names("none" if equal and not recipe.project_equal_widths else recipe.projection, M)
        if not self.names and not equal:
            raise InputError(f"widths {student.hidden_size} and {teacher.hidden_size} differ: a projection is needed")
        self.slots = _projection_slots(self.names, recipe.projection_bias, teacher.hidden_size, student.hidden_size)
        compared = [0] * bool(self.weights["embedding"]) + list(range(1, M + 1)) * bool(self.weights["hidden"])
        self.hidden_pairs = [(m, (0, *self.map)[m]) for m in compared]
        self.score_pairs = [(m, n - 1) for m, n in enumerate(self.map)] if self.weights["attention"] else []
        views = [View(frozenset(p[i] for p in self.hidden_pairs), frozenset(p[i] for p in self.score_pairs)) for i in (0, 1)]
        self.student_view: View = views[0]
        self.teacher_view: View | None = views[1]

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        assert teacher is not None
        losses: dict[str, Array] = {}
        dtrace = Trace(hidden=[None] * (self.M + 1), scores=[None] * self.M)
        dprojections: dict[str, Array] = {}
        for m, n in self.hidden_pairs:
            self._hidden(m, student.hidden[m], teacher.hidden[n], batch, parameters, losses, dtrace, dprojections)  # type: ignore[index]
        for m, n in self.score_pairs:
            self._attention(m, student.scores[m], teacher.scores[n], batch, losses, dtrace)  # type: ignore[index]
        return Terms(losses, dtrace, dprojections)

    def _hidden(self, m, H_S, H_T, batch, parameters, losses, dtrace, dprojections) -> None:
        """L_embd at m = 0, L_hidn above; a mean over the real tokens, or over all rows where padding counts."""
        term, loss_of = ("embedding", embedding) if m == 0 else ("hidden", hidden)
        mask, rows = batch.attention_mask, batch.totals.tokens
        if self.recipe.padding == "count":
            mask, rows = None, batch.totals.rows
        W = b = None
        if self.names:
            W, b = parameters[self.names[m] + ".weight"], parameters.get(self.names[m] + ".bias")
        loss, cache = loss_of.forward(H_S, H_T, W, b, mask, rows * H_T.shape[-1])
        dtrace.hidden[m], dW, db = loss_of.backward(self.weights[term], cache)
        _accumulate(losses, term, _weighted(self.weights[term], loss))
        if W is not None:
            _accumulate(dprojections, self.names[m] + ".weight", dW)
        if b is not None:
            _accumulate(dprojections, self.names[m] + ".bias", db)

    def _attention(self, m, scores_S, scores_T, batch, losses, dtrace) -> None:
        """L_attn; a mean over the entries whose query and key are real, or over all where padding counts."""
        weight, counts = self.weights["attention"], self.recipe.padding == "count"
        count = self.heads.compared * (batch.totals.row_pairs if counts else batch.totals.pairs)
        if batch.attention_mask is None and self.heads.same and not counts:  # packed: nothing is masked, the flat scores will do
            loss, cache = attention.forward(scores_S, scores_T, None, count)
            dtrace.scores[m] = attention.backward(weight, cache)
            _accumulate(losses, "attention", _weighted(weight, loss))
            return
        dscores = dtrace.scores[m] = array_module(scores_S).empty_like(scores_S)
        views_S, views_T = split_runs(scores_S, batch.runs, self.heads.S), split_runs(scores_T, batch.runs, self.heads.T)
        dviews = split_runs(dscores, batch.runs, self.heads.S)
        for run, A_S, A_T, dA in zip(batch.runs, views_S, views_T, dviews, strict=True):
            keys = _real(batch, run)[:, None, None, :]
            if counts:  # what is not seen is 0, is compared as 0, and does not move
                A_S, seen = attention.seen(A_S, keys)
                A_T, _ = attention.seen(A_T, keys)
                loss, dA_seen = self._run_attention(A_S, A_T, None, count)
                array_module(dA).multiply(dA_seen, seen, out=dA)
            else:
                loss, dA[...] = self._run_attention(A_S, A_T, keys & keys.swapaxes(-1, -2), count)
            _accumulate(losses, "attention", _weighted(weight, loss))

    def _run_attention(self, A_S: Array, A_T: Array, mask: Array | None, count: int) -> tuple[Array, Array]:
        """Scores of a run (n, S or T, L, L), of whose heads the means are compared where their numbers differ -> L_attn, dA_S."""
        loss, cache = attention.forward(self.heads.average(A_S), self.heads.average(A_T), mask, count)
        return loss, self.heads.spread(attention.backward(self.weights["attention"], cache))


class HeadPairs:
    """Which heads the attention loss compares, of S student heads and T teacher heads: one by one where there are as many, else
    means over groups of neighbouring heads of the side that has more."""

    def __init__(self, S: int, T: int):
        self.S, self.T, self.same, self.compared = S, T, S == T, min(S, T)

    def fit(self, choice: str) -> bool:
        """Whether the recipe's choice leaves an attention loss; InputError where it is "refuse", or groups do not come out even."""
        if self.same:
            return True
        differ = f"the student has {self.S} attention heads, the teacher {self.T}"
        if choice == "refuse":
            raise InputError(f"{differ}: give the student as many, or set heads to drop (no attention loss) or average (groups)")
        if choice == "average" and max(self.S, self.T) % self.compared:
            raise InputError(f"{differ}: groups to average need one number to be a multiple of the other")
        return choice == "average"

    def average(self, A: Array) -> Array:
        """(n, S or T, L, L) -> (n, compared, L, L)."""
        n, heads, L, _ = A.shape
        return A if heads == self.compared else A.reshape(n, self.compared, heads // self.compared, L, L).mean(axis=2)

    def spread(self, dA: Array) -> Array:
        """The backward of `average` for the student: each of its g heads in a group gets 1/g.  (n, compared, L, L) -> (n, S, L, L)"""
        g = self.S // self.compared
        return dA if g == 1 else array_module(dA).repeat(dA, g, axis=1) / g


def _real(batch: Batch, run: Run) -> Array:
    """(n, L) bool: which of a run's rows are not padding."""
    if batch.attention_mask is None:
        return array_module(batch.input_ids).ones((run.n, run.length), bool)
    return batch.attention_mask[run.start : run.stop].reshape(run.n, run.length)


class Prediction:
    """The second step: soft cross-entropy with the teacher's logits (eq. 10); mean squared error with them for regression.

    A batch that carries the teacher's logits (`extra["teacher_logits"]`) needs no teacher trace.
    """

    slots: tuple[Slot, ...] = ()
    student_view = View(logits=True)
    teacher_view: View | None = View(logits=True)

    def __init__(self, recipe: Recipe = DEFAULT, regression: bool = False):
        self.recipe, self.regression = recipe, regression

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        z_S, n = student.logits, batch.totals.sentences
        z_T = batch.extra["teacher_logits"] if teacher is None else teacher.logits  # type: ignore[index]
        if self.regression:
            if self.recipe.regression_target == "labels":
                z_T = batch.labels[:, None].astype(z_S.dtype)  # type: ignore[union-attr,index]
            error, cache = mse.forward(z_S, z_T, count=n)
            return Terms({"prediction": error}, Trace(logits=mse.backward(1.0, cache)), {})
        count = n * z_S.shape[-1] if self.recipe.prediction_mean == "elements" else n  # type: ignore[union-attr]
        loss, c = prediction.forward(z_S, z_T, self.recipe.temperature, count)
        return Terms({"prediction": loss}, Trace(logits=prediction.backward(1.0, c)), {})


def _projection_slots(names: Sequence[str], bias: bool, d: int, d_student: int) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for name in dict.fromkeys(names):
        slots.append(Slot(name + ".weight", (d, d_student)))
        if bias:
            slots.append(Slot(name + ".bias", (d,)))
    return tuple(slots)


def _weighted(weight: float, loss: Array) -> Array:
    """λ loss; no operation of its own where λ is 1."""
    return loss if weight == 1 else weight * loss


def _accumulate(totals: dict[str, Array], name: str, value: Array) -> None:
    """The first value's own array becomes the total."""
    if name in totals:
        totals[name] += value
    else:
        totals[name] = value
