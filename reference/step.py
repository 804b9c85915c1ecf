"""A whole distillation step in PyTorch: teacher and student forward, the losses of both stages, and
the two optimisers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minitinybert.audit.models import dropout_masks
from minitinybert.engine.random import key

from . import twin


def intermediate(student, teacher, recipe, batch, keep, weights=None, teacher_keep=None, **tensors: Any) -> twin.Outputs:
    """λ_embd L_embd, λ_hidn Σ L_hidn, λ_attn Σ L_attn (eqs. 7–9), the student under given dropout
    masks, the teacher without or under its own."""
    S, T = _traces(student, teacher, batch, keep, teacher_keep, tensors)
    heads = student["num_attention_heads"], teacher["num_attention_heads"]
    return _compared(S, T, _part(tensors, "student."), heads, teacher["num_hidden_layers"], recipe, weights, batch)


def words(student, teacher, recipe, batch, keep, weights=None, teacher_keep=None, **tensors: Any) -> twin.Outputs:
    """The same, and λ L_pred (eq. 10) of words: of the masked rows, else of all rows that count; a mean
    over these, or over rows × words."""
    S, T = _traces(student, teacher, batch, keep, teacher_keep, tensors)
    heads, counts = (student["num_attention_heads"], teacher["num_attention_heads"]), recipe["padding"] == "count"
    terms = _compared(S, T, _part(tensors, "student."), heads, teacher["num_hidden_layers"], recipe, weights, batch)
    rows = torch.arange(len(S["embedding"]))
    if batch.masked is not None:
        rows = twin.tensor(batch.masked.rows)
    elif not counts and batch.attention_mask is not None:
        rows = rows[torch.from_numpy(batch.attention_mask)]
    z_S, z_T = (
        twin.mlm_logits(_part(tensors, side), config, trace[f"hidden.{config['num_hidden_layers']}"][rows])
        for side, config, trace in (("student.", student, S), ("teacher.", teacher, T))
    )
    count = batch.totals.masked if batch.masked is not None else batch.totals.rows if counts else batch.totals.tokens
    count = count * (z_S.shape[-1] if recipe["prediction_mean"] == "elements" else 1)
    loss = twin.prediction(z_S, z_T.detach(), recipe["temperature"], count)["loss"]
    return {**terms, "prediction": recipe["general_prediction"] * loss}


def layers(width, heads, recipe, weights, is_packed, share, batch, **tensors: Any) -> twin.Outputs:
    """The same of two traces that are given."""
    S = {name.replace("_S.", "."): a for name, a in tensors.items() if "_S." in name} | {"embedding": tensors["hidden_S.0"]}
    T = {name.replace("_T.", "."): a for name, a in tensors.items() if "_T." in name} | {"embedding": tensors["hidden_T.0"]}
    return _compared(S, T, tensors, (heads, 2), 3, recipe, weights, batch)


def _compared(S, T, own, heads: tuple[int, int], N: int, recipe, weights, batch) -> twin.Outputs:
    """The terms by name, but for those whose λ is 0, and attention where unequal heads drop it."""
    M = sum("scores." in name for name in S)
    map, counts = layer_map(recipe["layers"], M, N), recipe["padding"] == "count"
    project = lambda x, m: _project(x, own, recipe["projection"], m)
    λ = {"embedding": 1.0, "hidden": 1.0, "attention": 1.0} | (weights or {})
    softmax = recipe.get("attention_target") == "probabilities"
    scores_mse = lambda A_S, A_T: _scores_mse(A_S, A_T, batch, heads, counts, softmax)
    if heads[0] != heads[1] and recipe["heads"] == "drop":
        λ["attention"] = 0.0
    terms = {
        "embedding": lambda: _rows_mse(project(S["embedding"], 0), T["embedding"], batch, counts),
        "hidden": lambda: sum(_rows_mse(project(S[f"hidden.{m}"], m), T[f"hidden.{n}"], batch, counts) for m, n in enumerate(map, 1)),
        "attention": lambda: sum(scores_mse(S[f"scores.{m}"], T[f"scores.{n - 1}"]) for m, n in enumerate(map)),
    }
    return {name: λ[name] * term() for name, term in terms.items() if λ[name]}


def layer_map(layers: str, M: int, N: int) -> list[int]:
    """Which of the teacher's layers 1 … N each of the student's learns from."""
    if "," in layers:
        return [int(n) for n in layers.split(",")]
    return {"uniform": [math.floor(m * N / M + 0.5) for m in range(1, M + 1)], "top": list(range(N - M + 1, N + 1))}.get(
        layers, list(range(1, M + 1))
    )


def prediction(student, teacher, recipe, batch, keep, regression=False, teacher_keep=None, **tensors: Any) -> twin.Outputs:
    """L_pred (eq. 10): a mean over sentences, or with the released code over sentences × classes.
    Of numbers the mean squared difference from the teacher's, or from the labels."""
    S, T = _traces(student, teacher, batch, keep, teacher_keep, tensors)
    sentences = batch.totals.sentences
    if regression:
        target = twin.tensor(batch.labels)[:, None] if recipe["regression_target"] == "labels" else T["logits"]
        return {"prediction": F.mse_loss(S["logits"], target, reduction="sum") / sentences}
    count = sentences * (S["logits"].shape[-1] if recipe["prediction_mean"] == "elements" else 1)
    return {"prediction": twin.prediction(S["logits"], T["logits"], recipe["temperature"], count)["loss"]}


def supervised(student, batch, keep, regression, **tensors: Any) -> twin.Outputs:
    logits, labels = twin.bert_batch(_part(tensors, "student."), student, batch, keep)["logits"], twin.tensor(batch.labels)
    if regression:
        return {"mse": F.mse_loss(logits[:, 0], labels)}
    return {"cross_entropy": F.cross_entropy(logits, labels)}


def mlm(student, batch, keep, **tensors: Any) -> twin.Outputs:
    """A mean over the masked rows; 0 where there are none."""
    own = _part(tensors, "student.")
    last = twin.bert_batch(own, student, batch, keep)[f"hidden.{student['num_hidden_layers']}"]
    logits = twin.mlm_logits(own, student, last[twin.tensor(batch.masked.rows)])
    total = F.cross_entropy(logits, twin.tensor(batch.masked.labels), reduction="sum")
    return {"mlm": total / max(len(batch.masked.rows), 1)}


def tokens(student, teacher, recipe, batch, keep, teacher_keep=None, **more: Any) -> twin.Outputs:
    """L_pred (eq. 10) of words: a mean over the words that are asked for, or over words × labels."""
    z_S, z_T = _of_tokens(student, teacher, batch, keep, teacher_keep, more, twin.tensor(batch.masked.rows))
    count = batch.totals.masked * (z_S.shape[-1] if recipe["prediction_mean"] == "elements" else 1)
    return {"prediction": twin.prediction(z_S, z_T, recipe["temperature"], count)["loss"]}


def spans(student, teacher, recipe, batch, keep, teacher_keep=None, **more: Any) -> twin.Outputs:
    """L_pred (eq. 10) of where an answer begins and where it ends, among a sentence's real tokens: a
    mean over both of every sentence, or over tokens."""
    z_S, z_T = _of_tokens(student, teacher, batch, keep, teacher_keep, more, slice(None))
    real = torch.ones(len(z_S), dtype=torch.bool) if batch.attention_mask is None else torch.from_numpy(batch.attention_mask)
    total, row = 0.0, 0
    for length in batch.lengths.tolist():
        own = real[row : row + length]
        for column in range(2):
            S, T = (z[row : row + length, column][own][None] for z in (z_S, z_T))
            total = total + twin.prediction(S, T, recipe["temperature"])["loss"]
        row += length
    return {"prediction": total / (2 * (batch.totals.rows if recipe["prediction_mean"] == "elements" else batch.totals.sentences))}


def _of_tokens(student, teacher, batch, keep, teacher_keep, tensors, rows) -> tuple[Tensor, Tensor]:
    """The logits of a head of tokens at these rows, the student's and the teacher's."""
    traces = _traces(student, teacher, batch, keep, teacher_keep, tensors)
    kept, logits = (keep["tokens"], (teacher_keep or {"tokens": None})["tokens"]), []
    for side, config, dropped, trace in zip(("student.", "teacher."), (student, teacher), kept, traces, strict=True):
        last = trace[f"hidden.{config['num_hidden_layers']}"][rows]
        logits.append(twin.token_logits(_part(tensors, side), config, last, dropped))
    return logits[0], logits[1].detach()


def _traces(student, teacher, batch, keep, teacher_keep, tensors) -> tuple[twin.Outputs, twin.Outputs]:
    nothing = {"embedding": None, "classifier": None, "layers": []}
    with torch.no_grad():
        T = twin.bert_batch(_part(tensors, "teacher."), teacher, batch, teacher_keep or nothing)
    return twin.bert_batch(_part(tensors, "student."), student, batch, keep), T


def _part(tensors: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _project(x: Tensor, own: Mapping[str, Tensor], kind: str, m: int) -> Tensor:
    if kind == "none":
        return x
    name = {"split": "fit_dense_hidden" if m else "fit_dense_embedding", "shared": "fit_dense", "layer": f"fit_denses.{m}"}[kind]
    return F.linear(x, own[name + ".weight"], own.get(name + ".bias"))


def _rows_mse(x: Tensor, y: Tensor, batch: Any, counts: bool) -> Tensor:
    """Mean over the entries of the whole batch's real rows, or of all its rows."""
    square = (x - y).square()
    if not counts and batch.attention_mask is not None:
        square = square[torch.from_numpy(batch.attention_mask)]
    return square.sum() / ((batch.totals.rows if counts else batch.totals.tokens) * y.shape[-1])


def _scores_mse(flat_S: Tensor, flat_T: Tensor, batch: Any, heads: tuple[int, int], counts: bool, softmax: bool) -> Tensor:
    """Mean over heads and pairs of real tokens of one sentence. counts: over all pairs, scores of
    masked keys, and those of −100 or less, set to 0 on both sides. Of the side with more heads,
    means over neighbours are compared. softmax: what each query gives the real tokens in their place;
    a masked query's count where all pairs do."""
    total, compared, at = 0.0, min(heads), 0
    for start, n, L in batch.runs:
        real = torch.ones(n, L, dtype=torch.bool)
        if batch.attention_mask is not None:
            real = torch.from_numpy(batch.attention_mask[start : start + n * L]).reshape(n, L)
        sides = []
        for flat, h in zip((flat_S, flat_T), heads, strict=True):
            A = flat[at * h : (at + n * L * L) * h].reshape(n, h, L, L)
            if softmax:
                A = A.masked_fill(~real[:, None, None, :], -torch.inf).softmax(-1)
            elif counts:
                A = torch.where(real[:, None, None, :] & (A > -100), A, 0.0)
            sides.append(A.unflatten(1, (compared, h // compared)).mean(2))
        at += n * L * L
        square = (sides[0] - sides[1]).square()
        total = total + (square if counts else square * (real[:, None, :, None] & real[:, None, None, :])).sum()
    return total / (compared * (batch.totals.row_pairs if counts else batch.totals.pairs))


# ---------------------------------------------------------------------------------------------------------------- optimisers


def decays(name: str) -> bool:
    return not ("bias" in name or "LayerNorm" in name)


def adamw(parameters: Mapping[str, Tensor]) -> torch.optim.AdamW:
    """PyTorch's own, with BERT's two groups."""
    groups = [
        {"params": [p for name, p in parameters.items() if decays(name)], "weight_decay": 0.01},
        {"params": [p for name, p in parameters.items() if not decays(name)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)


class BertAdam:
    """BERT's own Adam, from its equations: no bias correction, ε 1e-6. What it is given has been
    clipped."""

    def __init__(self, parameters: Mapping[str, Tensor]):
        self.parameters = parameters
        self.state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for name, p in self.parameters.items():
            m, v = self.state[name]
            m.mul_(0.9).add_(p.grad, alpha=0.1)
            v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            update = m / (v.sqrt() + 1e-6)
            if decays(name):
                update = update + 0.01 * p
            p.sub_(lr * update)


def optimiser(
    name: str, schedule: str, lr: float, total: int, warmup: int, threads: int, copies: Mapping[str, int], **tensors: Tensor
) -> twin.Outputs:
    """`total` steps of the optimiser `name` on given gradients, each tensor so many times over. The
    rate is lr; or goes up to it in a straight line, over `warmup` steps, and down to 0 at `total`."""
    own = {key: tensors[key].repeat(n) for key, n in copies.items()}
    up, down = (lambda i: i / warmup), (lambda i: (total - i) / (total - warmup))
    rates = [lr * (1.0 if schedule == "constant" else up(i) if i < warmup else down(i)) for i in range(total)]
    parameters = {key: p.clone().requires_grad_() for key, p in own.items()}
    # What has these gradients: the sum of the parameters times them.
    losses = lambda i: {"": sum((p * tensors[f"gradient of {key}"][i].repeat(copies[key])).sum() for key, p in parameters.items())}
    _, _, (m, v) = train(losses, parameters, name, rates)
    kinds = {"θ": parameters, "m": m, "√v": {key: a.sqrt() for key, a in v.items()}}
    by_copy = {f"{kind} of {key}": a.reshape(copies[key], -1) for kind, of in kinds.items() for key, a in of.items()}
    return {key: torch.stack([a.amax(0), a.amin(0)]) for key, a in by_copy.items()}


def train(
    step_losses: Any, parameters: Mapping[str, Tensor], optimizer: str, rates: Iterable[float]
) -> tuple[list[dict[str, float]], dict[str, Tensor], tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """A step for each learning rate, in place: step_losses(i) -> losses by name. "adamw" and "bert"
    clip the whole gradient at 1 (as BERT does), "bert-adam" each tensor's (as the released code
    does).

    Returns the losses of each step, the last step's gradients before they are clipped, and m and v.
    """
    adam, bert_adam = adamw(parameters), BertAdam(parameters)
    history: list[dict[str, float]] = []
    last: dict[str, Tensor] = {}
    for i, rate in enumerate(rates):
        for p in parameters.values():
            p.grad = None
        losses = step_losses(i)
        sum(losses.values()).backward()
        for p in parameters.values():  # PyTorch's AdamW passes over a tensor without a gradient, decay and all
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        last = {name: p.grad.clone() for name, p in parameters.items()}
        for clipped in [[p] for p in parameters.values()] if optimizer == "bert-adam" else [list(parameters.values())]:
            torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        if optimizer == "adamw":
            for group in adam.param_groups:
                group["lr"] = rate
            adam.step()
        else:
            bert_adam.step(rate)
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    state = {name: (adam.state[p]["exp_avg"], adam.state[p]["exp_avg_sq"]) for name, p in parameters.items() if optimizer == "adamw"}
    state = state or bert_adam.state
    return history, last, ({name: m for name, (m, _) in state.items()}, {name: v for name, (_, v) in state.items()})


def imitate(student: Any, teacher: Any, recipe: Mapping[str, Any], batch: Any, seed: int, optimizer: str, rates: Sequence[float]):
    """What a minitinybert Learner and Adam should do from here: the losses of each step by name,
    and at the end weights and gradients.

    student, teacher: minitinybert models, left as they are; dropout's masks are taken from the
    student, the rest is PyTorch. recipe: switches, as the audit's distillation cases have them.
    """
    losses_of = intermediate if "projection" in recipe else {"tokens": tokens, "spans": spans}.get(student.config.head, prediction)
    own = {name: twin.tensor(student.parameters[name]).requires_grad_() for name in student.parameters}
    fixed = {f"teacher.{name}": twin.tensor(teacher.parameters[name]) for name in teacher.parameters}
    s, t = (model.config.to_hf() for model in (student, teacher))

    def step_losses(i: int) -> twin.Outputs:
        _, cache = student.forward_batch(batch, key(seed, i), positions=batch.masked and batch.masked.rows)
        named = {f"student.{name}": p for name, p in own.items()} | fixed
        return losses_of(s, t, recipe, batch, dropout_masks(cache), **named)

    history, last, _ = train(step_losses, own, optimizer, rates)
    return history, {name: p.detach().numpy() for name, p in own.items()}, {name: g.numpy() for name, g in last.items()}
