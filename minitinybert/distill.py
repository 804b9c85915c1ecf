"""TinyBERT's distillation (paper section 3): the layer map and the two objectives of task-specific distillation.

Student layer m learns from teacher layer g(m), with g(0) = 0 the embeddings and g(M+1) = N+1 the prediction (eqs. 6 and 11):

    L = Σ_m λ_m L_layer(m)      L_layer = L_embd (m = 0),  L_hidn + L_attn (0 < m ≤ M),  L_pred (m = M+1)

The first step learns m ≤ M (`Intermediate`), the second m = M+1 (`Prediction`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .batch import Batch
from .config import Config
from .device import Array
from .errors import InputError
from .losses import attention, embedding, hidden, mse, prediction
from .objectives import Terms, View
from .ops.attention import split_runs
from .parameters import Slot
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


PROJECTIONS = ("split", "shared", "layer", "none")


def projection_names(kind: str, M: int) -> list[str]:
    """Which learned map each of hidden[0…M] goes through.

    "split": W_e for the embeddings, one W_h for all layers (paper). "shared": one for all (`fit_dense`, released code).
    "layer": one each (`fit_denses.m`, its second version).
    """
    if kind not in PROJECTIONS:
        raise InputError(f"projection {kind!r}: choose one of {', '.join(PROJECTIONS)}")
    return {
        "split": ["fit_dense_embedding"] + ["fit_dense_hidden"] * M,
        "shared": ["fit_dense"] * (M + 1),
        "layer": [f"fit_denses.{m}" for m in range(M + 1)],
        "none": [],
    }[kind]


class Intermediate:
    """The first step: embedding, hidden and attention losses of every student layer (eqs. 7–9), means over real tokens.

    weights: λ of the terms "embedding", "hidden" and "attention"; 0 leaves a term out.
    """

    def __init__(
        self,
        student: Config,
        teacher: Config,
        layers: str | Sequence[int] = "uniform",
        projection: str = "split",
        bias: bool = False,
        weights: Mapping[str, float] | None = None,
    ):
        M, h = student.num_hidden_layers, student.num_attention_heads
        self.map = layer_map(layers, M, teacher.num_hidden_layers)
        self.weights = {"embedding": 1.0, "hidden": 1.0, "attention": 1.0, **(weights or {})}
        if self.weights["attention"] and h != teacher.num_attention_heads:
            raise InputError(
                f"the student has {h} attention heads, the teacher {teacher.num_attention_heads}: "
                f"the attention loss compares head with head; give the student as many, or leave the term out"
            )
        if projection == "none" and student.hidden_size != teacher.hidden_size:
            raise InputError(f"widths {student.hidden_size} and {teacher.hidden_size} differ: a projection is needed")
        self.heads = h
        self.names = projection_names(projection, M)
        self.slots = _projection_slots(self.names, bias, teacher.hidden_size, student.hidden_size)
        compared = [0] * bool(self.weights["embedding"]) + list(range(1, M + 1)) * bool(self.weights["hidden"])
        self.hidden_pairs = [(m, (0, *self.map)[m]) for m in compared]
        self.score_pairs = [(m, n - 1) for m, n in enumerate(self.map)] if self.weights["attention"] else []
        self.student_view, self.teacher_view = (
            View(frozenset(p[i] for p in self.hidden_pairs), frozenset(p[i] for p in self.score_pairs)) for i in (0, 1)
        )
        self.M = M

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
        """L_embd at m = 0, L_hidn above."""
        term, loss_of = ("embedding", embedding) if m == 0 else ("hidden", hidden)
        W = b = None
        if self.names:
            W, b = parameters[self.names[m] + ".weight"], parameters.get(self.names[m] + ".bias")
        loss, cache = loss_of.forward(H_S, H_T, W, b, batch.attention_mask, batch.totals.tokens * H_T.shape[-1])
        dtrace.hidden[m], dW, db = loss_of.backward(self.weights[term], cache)
        _accumulate(losses, term, self.weights[term] * loss)
        if W is not None:
            _accumulate(dprojections, self.names[m] + ".weight", dW)
        if b is not None:
            _accumulate(dprojections, self.names[m] + ".bias", db)

    def _attention(self, m, A_S, A_T, batch, losses, dtrace) -> None:
        """L_attn. Entries whose query or key is padding do not count."""
        mask = None
        if batch.attention_mask is not None:
            (A_S,), (A_T,) = (split_runs(A, batch.runs, self.heads) for A in (A_S, A_T))
            real = batch.attention_mask.reshape(len(A_S), 1, -1)
            mask = real[..., :, None] & real[..., None, :]
        loss, cache = attention.forward(A_S, A_T, mask, self.heads * batch.totals.pairs)
        dtrace.scores[m] = attention.backward(self.weights["attention"], cache).reshape(-1)
        _accumulate(losses, "attention", self.weights["attention"] * loss)


class Prediction:
    """The second step: soft cross-entropy with the teacher's logits (eq. 10); mean squared error with them for regression.

    A batch that carries the teacher's logits (`extra["teacher_logits"]`) needs no teacher trace.
    """

    slots: tuple[Slot, ...] = ()
    student_view = View(logits=True)
    teacher_view = View(logits=True)

    def __init__(self, temperature: float = 1.0, regression: bool = False):
        self.temperature, self.regression = temperature, regression

    def __call__(self, student: Trace, batch: Batch, teacher: Trace | None, parameters: Mapping[str, Array]) -> Terms:
        z_T = batch.extra["teacher_logits"] if teacher is None else teacher.logits  # type: ignore[index]
        n = batch.totals.sentences
        if self.regression:
            error, cache = mse.forward(student.logits, z_T, count=n)
            return Terms({"prediction": error}, Trace(logits=mse.backward(1.0, cache)), {})
        loss, c = prediction.forward(student.logits, z_T, self.temperature, n)
        return Terms({"prediction": loss}, Trace(logits=prediction.backward(1.0, c)), {})


def _projection_slots(names: Sequence[str], bias: bool, d: int, d_student: int) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for name in dict.fromkeys(names):
        slots.append(Slot(name + ".weight", (d, d_student)))
        if bias:
            slots.append(Slot(name + ".bias", (d,)))
    return tuple(slots)


def _accumulate(totals: dict[str, Array], name: str, value: Array) -> None:
    totals[name] = totals[name] + value if name in totals else value
