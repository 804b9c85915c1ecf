"""Two of the audit's judges by a case's name: PyTorch, and the page (tinybert.py). They are handed
arrays by name and give arrays by name.

    differentiate(name, arrays, …)            outputs and gradients by autograd on the twin
    page(name, arrays, settings)              outputs, and the page's own backward

The page computes the paper's method and nothing else, so `taken` first takes from a drawn case what
the page does not know: dropout is 0, GELU exact, a mean over what is there rather than over a
larger batch's count, the recipe `paper`'s. The case is then judged with that. PyTorch is imported
when it is asked for: the page does without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import tinybert

Arrays = dict[str, np.ndarray]
Answer = tuple[Arrays, Callable[[Arrays], Arrays]]  # outputs, backward(doutputs) -> gradients


# ---------------------------------------------------------------------------------------------------------------- PyTorch


def twins() -> dict[str, Callable[..., Any]]:
    """The twin of each case of the audit, by the case's name. ImportError where there is no
    PyTorch."""
    from . import step, twin

    operations = ("linear", "embedding", "layer_norm", "embed_norm", "add_norm", "gelu", "softmax", "dropout", "attention", "feed_forward")
    return {
        **{f"ops.{name}": getattr(twin, name) for name in operations},
        **{f"losses.{name}": getattr(twin, name) for name in ("mse", "hidden", "prediction", "cross_entropy", "mlm")},
        "losses.attention": twin.attention_loss,
        "losses.embedding": twin.hidden,
        **{f"bert.{head}": twin.bert for head in ("none", "classifier", "classifier-relu", "mlm", "tokens", "spans")},
        "distill.layers": step.layers,
        "distill.intermediate": step.intermediate,
        "distill.words": step.words,
        "distill.prediction": step.prediction,
        "distill.tokens": step.tokens,
        "distill.spans": step.spans,
        "train.supervised": step.supervised,
        "train.mlm": step.mlm,
        **{f"optim.{name}": partial(_optimiser, name) for name in ("adamw", "bert", "bert-adam")},
    }


def _optimiser(name: str, preset: str, **inputs: Any) -> dict[str, Any]:
    from .step import optimiser

    return optimiser(name, **inputs)


def differentiate(
    name: str,
    arrays: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    doutputs: Mapping[str, np.ndarray],
    wanted: Sequence[str],
) -> tuple[Arrays, Arrays]:
    """Case `name` on NumPy arrays: its outputs, and by autograd the gradients of the `wanted`
    arguments for `doutputs`."""
    import torch

    from .twin import tensor

    tensors = {key: tensor(a).requires_grad_(key in wanted) for key, a in arrays.items()}
    outputs = twins()[name](**tensors, **settings, **given)
    if not wanted:
        return {key: y.detach().numpy() for key, y in outputs.items()}, {}
    seen = list(doutputs)
    grads = torch.autograd.grad(
        [outputs[key] for key in seen],
        [tensors[key] for key in wanted],
        [tensor(doutputs[key]).reshape(outputs[key].shape) for key in seen],
        allow_unused=True,
    )
    zero_or = lambda key, g: torch.zeros_like(tensors[key]) if g is None else g
    gradients = {key: zero_or(key, g).numpy() for key, g in zip(wanted, grads, strict=True)}
    return {key: y.detach().numpy() for key, y in outputs.items()}, gradients


# ---------------------------------------------------------------------------------------------------------------- the page

SILENT = {
    "ops.dropout": "ops.dropout: the page has no dropout",
    "bert.classifier-relu": "bert.classifier-relu: the page has no relu before the classifier, as the paper has none",
    "distill.layers": "distill.layers: the page compares as many heads as there are, and no scores otherwise for being low",
    "distill.words": "distill.words: the page has no prediction loss in general distillation, as the paper has none",
    "optim.bert-adam": "optim.bert-adam: the page clips the gradient as a whole",
}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": None, "hidden_act": "gelu"}
_NO_RELU = {"classifier_relu": False}
_PAPER = {
    "layers": "uniform", "projection": "split", "projection_bias": False, "project_equal_widths": True, "padding": "exclude",
    "prediction_mean": "sentences", "teacher_dropout": False, "attention_target": "scores",
}


def page(name: str, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Answer:
    """Case `name`, as `taken` leaves it, on the page."""
    return _PAGE[name](**arrays, **settings)


def taken(arrays: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A case's drawn arrays and settings without what the page does not know. Teacher and student
    have as many heads, and one ε; all of a trace is asked for, and a step taken with the whole batch."""
    plain = {"p": 0.0, "rate": 0.0, "approximate": "none"}
    settings = {name: plain.get(name, value) for name, value in settings.items() if name not in ("count", "call")}
    for model in {"config", "student", "teacher"} & settings.keys():
        settings[model] = {**settings[model], **_NO_DROPOUT, **(_NO_RELU if model != "config" else {})}
    arrays = {name: a for name, a in arrays.items() if name != "keys"}
    if "recipe" in settings:
        same = ("num_attention_heads", "layer_norm_eps")
        settings["teacher"] |= {name: settings["student"][name] for name in same}
        settings["recipe"] = {name: _PAPER.get(name, value) for name, value in settings["recipe"].items()}
    if "projection" in settings.get("recipe", {}):
        fits = [name for name in arrays if name.startswith("student.fit_dense") and name.endswith(".weight")]
        fits = fits or [name for name in arrays if name.startswith("student.") and name.endswith("attention.output.dense.weight")]
        split = dict(zip(("embedding", "hidden"), (fits * 2)[:2], strict=False))  # of one, two; of one a layer, the first two
        split = {f"student.fit_dense_{term}.weight": arrays[fit].copy() for term, fit in split.items()}
        arrays = {name: a for name, a in arrays.items() if not name.startswith("student.fit_dense")} | split
    return arrays, settings


def _zeros(P: Arrays) -> Arrays:
    return {name: np.zeros_like(W) for name, W in P.items()}


def _linear(x, W, b=None) -> Answer:
    P = {"map.weight": W} if b is None else {"map.weight": W, "map.bias": b}

    def backward(dy):
        G = _zeros(P)
        return {"x": tinybert.linear_backward(dy["y"], x, P, "map", G), "W": G["map.weight"], "b": G.get("map.bias")}

    return {"y": tinybert.linear(x, P, "map")}, backward


def _plus(x, b) -> Answer:
    """x + b, a linear map whose W is 1."""
    return _linear(x, np.eye(x.shape[-1]), b)


def _embedding(word_ids, position_ids, segment_ids, W, P, S) -> Answer:
    ids, tables = {"W": word_ids, "P": position_ids, "S": segment_ids}, {"W.weight": W, "P.weight": P, "S.weight": S}

    def backward(dy):
        G = _zeros(tables)
        for name in ids:
            tinybert.lookup_backward(dy["y"], ids[name], name, G)
        return {name: G[name + ".weight"] for name in ids}

    return {"y": sum(tinybert.lookup(ids[name], tables, name) for name in ids)}, backward


def _layer_norm(x, gain, bias, eps) -> Answer:
    P = {"norm.weight": gain, "norm.bias": bias}
    y, cache = tinybert.layer_norm(x, P, "norm", eps)

    def backward(dy):
        G = _zeros(P)
        return {"x": tinybert.layer_norm_backward(dy["y"], cache, P, "norm", G), "gain": G["norm.weight"], "bias": G["norm.bias"]}

    return {"y": y}, backward


def _embed_norm(gain, bias, eps, p, **lookup) -> Answer:
    e, to_tables = _embedding(**lookup)
    y, to_e = _layer_norm(e["y"], gain, bias, eps)
    return y, lambda dy: (d := to_e(dy)) | to_tables({"y": d["x"]})


def _add_norm(a, b, x, gain, bias, eps, p) -> Answer:
    moved, to_a = _plus(a, b)
    y, to_sum = _layer_norm(x + moved["y"], gain, bias, eps)

    def backward(dy):
        d = to_sum(dy)
        through = to_a({"y": d["x"]})
        return d | {"a": through["x"], "b": through["b"]}

    return y, backward


def _gelu(x, approximate, b=None) -> Answer:
    moved, to_x = _plus(x, b)
    return {"y": tinybert.gelu(moved["y"])}, lambda dy: to_x({"y": tinybert.gelu_backward(dy["y"], moved["y"])})


def _softmax(s, rate, bias=0.0) -> Answer:
    p = tinybert.softmax(s + bias)
    return {"y": p}, lambda dy: {"s": tinybert.softmax_backward(dy["y"], p)}


def _attention(q, kv, runs, heads, p, attention_mask=None) -> Answer:
    """Each run of equally long sentences is a rectangle; a sentence asks with each of its tokens,
    or with the first."""
    d, parts, asked = q.shape[-1], [], 0
    for start, n, L in runs:
        rows = slice(start, start + n * L)
        mine = slice(asked, asked := asked + (n * L if len(q) == len(kv) else n))
        k, v = (x.reshape(n, L, d) for x in (kv[rows, :d], kv[rows, d:]))
        mask = np.ones((n, L), bool) if attention_mask is None else attention_mask[rows].reshape(n, L)
        asking = q[mine].reshape(n, -1, d)
        parts.append((rows, mine, asking, k, v, *tinybert.attention(asking, k, v, mask, heads)))

    def backward(dy):
        dq, dkv, at = np.zeros_like(q), np.zeros_like(kv), 0
        for rows, mine, asking, k, v, context, A, p in parts:
            dcontext = dy["context"][mine].reshape(context.shape) if "context" in dy else np.zeros_like(context)
            dA = dy["scores"][at : (at := at + A.size)].reshape(A.shape) if "scores" in dy else 0.0
            gradients = tinybert.attention_backward(dcontext, dA, asking, k, v, p, heads)
            dq[mine], dkv[rows, :d], dkv[rows, d:] = (g.reshape(-1, d) for g in gradients)
        return {"q": dq, "kv": dkv}

    *_, contexts, scores, _ = zip(*parts, strict=True)
    outputs = {"context": np.concatenate([c.reshape(-1, d) for c in contexts]), "scores": np.concatenate([A.ravel() for A in scores])}
    return outputs, backward


def _feed_forward(x, W1, b1, W2, approximate, b2=None) -> Answer:
    u, to_x = _linear(x, W1, b1)
    a, to_u = _gelu(u["y"], approximate)
    y, to_a = _linear(a["y"], W2, b2)

    def backward(dy):
        down = to_a(dy)
        up = to_x({"y": to_u({"y": down["x"]})["x"]})
        return {"x": up["x"], "W1": up["W"], "b1": up["b"], "W2": down["W"], "b2": down["b"]}

    return y, backward


def _mse(x, y, mask=True) -> Answer:
    loss, dx = tinybert.mse(x, y, mask)
    return {"loss": loss}, lambda dy: {"x": dy["loss"] * dx}


def _attention_loss(scores_S, scores_T, mask=None) -> Answer:
    n, _, L, _ = scores_S.shape
    real = np.ones((n, L), bool) if mask is None else mask[:, 0].diagonal(axis1=1, axis2=2)
    loss, dA = tinybert.attention_loss(scores_S, scores_T, real)
    return {"loss": loss}, lambda dy: {"scores_S": dy["loss"] * dA}


def _hidden_loss(H_S, H_T, W=None, b=None, mask=None) -> Answer:
    """Without W the map is 1."""
    P = {"map.weight": np.eye(H_T.shape[-1]) if W is None else W} | ({} if b is None else {"map.bias": b})
    loss, dprojected = tinybert.hidden_loss(H_S, H_T, np.ones(H_S.shape[:-1], bool) if mask is None else mask, P, "map")

    def backward(dy):
        G = _zeros(P)
        return {"H_S": tinybert.linear_backward(dy["loss"] * dprojected, H_S, P, "map", G), "W": G["map.weight"], "b": G.get("map.bias")}

    return {"loss": loss}, backward


def _prediction_loss(z_S, z_T, temperature) -> Answer:
    loss, dz = tinybert.prediction_loss(z_S, z_T, temperature)
    return {"loss": loss}, lambda dy: {"z_S": dy["loss"] * dz}


def _cross_entropy(z, labels) -> Answer:
    loss, dz = tinybert.cross_entropy(z, labels)
    return {"loss": loss}, lambda dy: {"z": dy["loss"] * dz}


# Models. A packed batch is padded into a rectangle, sentences in order of length, and what comes
# out is packed again.


def rectangle(input_ids, token_type_ids, attention_mask, is_packed) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The page's batch, and which of its tokens have a row in the case's arrays: with packing,
    those that are not padding."""
    mask = attention_mask.astype(bool)
    order = np.argsort(mask.sum(1), kind="stable") if is_packed else np.arange(len(mask))
    batch = {"ids": input_ids[order], "segments": token_type_ids[order], "mask": mask[order]}
    return batch, batch["mask"] if is_packed else np.ones_like(mask)


def model(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], prefix: str = "") -> tuple[Arrays, dict[str, Any]]:
    """P and c of the page: the tensors that begin with `prefix`, without it and without `bert.`."""
    P = {name.removeprefix(prefix).removeprefix("bert."): W for name, W in tensors.items() if name.startswith(prefix)}
    return P, {"heads": config["num_attention_heads"], "eps": config["layer_norm_eps"]}


def _bert(config, is_packed, input_ids, token_type_ids, attention_mask, positions=None, **tensors) -> Answer:
    P, c = model(config, tensors)
    batch, rows = rectangle(input_ids, token_type_ids, attention_mask, is_packed)
    trace, cache = tinybert.bert(P, c, batch)
    hidden, scores, logits = trace["hidden"], trace["scores"], trace["logits"]
    pairs = rows[:, None, :, None] & rows[:, None, None, :]
    entries = [np.broadcast_to(pairs, A.shape) for A in scores]  # those of A that the case has, in its order
    outputs = {"embedding": hidden[0][rows], **{f"hidden.{m}": H[rows] for m, H in enumerate(hidden)}}
    outputs |= {f"scores.{l}": A[entries[l]] for l, A in enumerate(scores)}
    asked = None
    if config["head"] == "mlm":
        asked = np.flatnonzero(rows) if positions is None else np.flatnonzero(rows)[positions]
        logits = logits.reshape(-1, logits.shape[-1])[asked]
    if logits is not None:
        outputs["logits"] = logits

    def backward(dy):
        dhidden, dscores = [np.zeros_like(H) for H in hidden], [np.zeros_like(A) for A in scores]
        for name, gradient in dy.items():
            kind, _, number = name.partition(".")
            if kind in ("embedding", "hidden"):
                dhidden[int(number or 0)][rows] += gradient
            if kind == "scores":
                dscores[int(number)][entries[int(number)]] = gradient
        dtrace = {"hidden": dhidden, "scores": dscores}
        if "logits" in dy:
            dlogits = np.zeros_like(trace["logits"])
            if asked is None:
                dlogits[...] = dy["logits"]
            else:
                np.add.at(dlogits.reshape(-1, dlogits.shape[-1]), asked, dy["logits"])
            dtrace["logits"] = dlogits
        G = _zeros(P)
        tinybert.bert_backward(dtrace, cache, P, c, G)
        return {name: G[name.removeprefix("bert.")] for name in tensors}

    return outputs, backward


def _bert_of_tokens(config, is_packed, input_ids, token_type_ids, attention_mask, positions=None, **tensors) -> Answer:
    """A head of tokens is the page's linear map, on the last layer of a BERT without a head."""
    name, M = "qa_outputs" if config["head"] == "spans" else "classifier", config["num_hidden_layers"]
    body = {n: W for n, W in tensors.items() if not n.startswith(name)}
    outputs, to_body = _bert({**config, "head": "none"}, is_packed, input_ids, token_type_ids, attention_mask, **body)
    last = outputs[f"hidden.{M}"]
    asked = np.arange(len(last)) if positions is None else positions
    logits, to_last = _linear(last[asked], tensors[name + ".weight"], tensors[name + ".bias"])

    def backward(dy):
        dy = {"logits": np.zeros_like(logits["y"]), f"hidden.{M}": np.zeros_like(last)} | dict(dy)
        d = to_last({"y": dy.pop("logits")})
        dy[f"hidden.{M}"] = dlast = dy[f"hidden.{M}"].copy()
        np.add.at(dlast, asked, d["x"])
        return to_body(dy) | {name + ".weight": d["W"], name + ".bias": d["b"]}

    return outputs | {"logits": logits["y"]}, backward


def _step(lesson: Callable[..., Any]) -> Callable[..., Answer]:
    """A step's losses; the gradient of each is its weight in the total."""

    def step(student, input_ids, token_type_ids, attention_mask, is_packed, **rest) -> Answer:
        P, c = model(student, rest, "student.")
        batch, _ = rectangle(input_ids, token_type_ids, attention_mask, is_packed)
        order = np.argsort(attention_mask.sum(1), kind="stable") if is_packed else np.arange(len(attention_mask))
        if "labels" in rest:
            batch["labels"] = rest["labels"][order]
        if "asked" in rest:
            batch["labels"] = np.where(rest["asked"], rest["words"], -100)[order]
        losses, _ = lesson(P, batch, c, rest, {})

        def backward(dy):
            G = lesson(P, batch, c, rest, dy)[1]
            named = {f"student.{name}": gradient for name, gradient in G.items()}
            return named | {f"student.bert.{name}": gradient for name, gradient in G.items()}

        return losses, backward

    return step


def _teacher(rest):
    return model(rest["teacher"], rest, "teacher.")[0]


def _intermediate(P, batch, c, rest, dy):
    teacher = _teacher(rest)
    λ = {"embedding": 1.0, "hidden": 1.0, "attention": 1.0} | (rest["weights"] or {})
    depths = (len({name.split(".")[2] for name in model if name.startswith("encoder.layer.")}) for model in (P, teacher))
    weights = tuple(λ[term] * dy.get(term, 0.0) for term in λ)
    losses, G = tinybert.intermediate(P, batch, c, teacher, tinybert.layer_map(*depths), weights)
    return {term: λ[term] * loss for term, loss in losses.items() if λ[term]}, G


def _prediction(P, batch, c, rest, dy):
    dloss = dy.get("prediction", 0.0)
    if rest["regression"]:
        target = batch["labels"][:, None]
        if rest["recipe"]["regression_target"] == "teacher":
            target = tinybert.bert(_teacher(rest), c, batch)[0]["logits"]
        return _numbers(P, batch, c, target, "prediction", dloss)
    losses, G = tinybert.prediction(P, batch, c, _teacher(rest), rest["recipe"]["temperature"])
    return losses, {name: dloss * gradient for name, gradient in G.items()}


def _prediction_of_tokens(P, batch, c, rest, dy):
    """The page's linear map and its prediction loss, on the words that are asked for; where none are,
    on the beginnings and on the ends of each sentence's real tokens."""
    name, temperature = "classifier" if "asked" in rest else "qa_outputs", rest["recipe"]["temperature"]

    def answer(side):
        body = {own: W for own, W in side.items() if not own.startswith(name)}
        trace, cache = tinybert.bert(body, c, batch)
        return trace["hidden"], (cache, body), tinybert.linear(trace["hidden"][-1], side, name)

    hidden, kept, z_S = answer(P)
    z_T = answer(_teacher(rest))[-1]
    dz, loss = np.zeros_like(z_S), 0.0
    if "asked" in rest:
        asked = batch["labels"] >= 0
        loss, dz[asked] = tinybert.prediction_loss(z_S[asked], z_T[asked], temperature)
    else:
        for b, own in enumerate(batch["mask"]):
            of_b, gradient = tinybert.prediction_loss(z_S[b, own].T, z_T[b, own].T, temperature)
            loss, dz[b, own] = loss + of_b / len(z_S), gradient.T / len(z_S)
    dlast = tinybert.linear_backward(dy.get("prediction", 0.0) * dz, hidden[-1], P, name, G := _zeros(P))
    dtrace = {"hidden": [*(np.zeros_like(H) for H in hidden[:-1]), dlast]}
    cache, body = kept
    tinybert.bert_backward(dtrace, cache, body, c, G)
    return {"prediction": loss}, G


def _numbers(P, batch, c, target, term, dloss):
    """The page's mean squared error, of the model's numbers."""
    trace, cache = tinybert.bert(P, c, batch)
    loss, dlogits = tinybert.mse(trace["logits"], target, True)
    tinybert.bert_backward({"logits": dloss * dlogits}, cache, P, c, G := _zeros(P))
    return {term: loss}, G


def _supervised(P, batch, c, rest, dy):
    if rest["regression"]:
        return _numbers(P, batch, c, batch["labels"][:, None], "mse", dy.get("mse", 0.0))
    losses, G = tinybert.supervised(P, batch, c)
    return {"cross_entropy": losses["cross-entropy"]}, {name: dy.get("cross_entropy", 0.0) * gradient for name, gradient in G.items()}


def _mlm(P, batch, c, rest, dy):
    losses, G = tinybert.supervised(P, batch, c)
    return {"mlm": losses["cross-entropy"]}, {name: dy.get("mlm", 0.0) * gradient for name, gradient in G.items()}


def _adam(preset, schedule, lr, total, warmup, threads, copies, **tensors) -> Answer:
    P = {name: np.tile(tensors[name], n) for name, n in copies.items()}
    state = {"t": 0, "m": _zeros(P), "v": _zeros(P)}
    for i in range(total):
        G = {name: np.tile(tensors[f"gradient of {name}"][i], copies[name]) for name in P}
        rate = 1.0 if schedule == "constant" else i / warmup if i < warmup else (total - i) / (total - warmup)
        tinybert.adamw(P, G, state, lr * rate, **({"eps": 1e-8, "correct": True} if preset == "adamw" else {}))
    kinds = {"θ": P, "m": state["m"], "√v": {name: np.sqrt(v) for name, v in state["v"].items()}}
    by_copy = {f"{kind} of {name}": a.reshape(copies[name], -1) for kind, of in kinds.items() for name, a in of.items()}
    return {name: np.stack([a.max(0), a.min(0)]) for name, a in by_copy.items()}, lambda dy: {}


_PAGE: dict[str, Callable[..., Answer]] = {
    "ops.linear": _linear,
    "ops.embedding": _embedding,
    "ops.layer_norm": _layer_norm,
    "ops.embed_norm": _embed_norm,
    "ops.add_norm": _add_norm,
    "ops.gelu": _gelu,
    "ops.softmax": _softmax,
    "ops.attention": _attention,
    "ops.feed_forward": _feed_forward,
    "losses.mse": _mse,
    "losses.attention": _attention_loss,
    "losses.hidden": _hidden_loss,
    "losses.embedding": _hidden_loss,
    "losses.prediction": _prediction_loss,
    "losses.cross_entropy": _cross_entropy,
    "losses.mlm": _cross_entropy,
    "bert.none": _bert,
    "bert.classifier": _bert,
    "bert.mlm": _bert,
    "bert.tokens": _bert_of_tokens,
    "bert.spans": _bert_of_tokens,
    "distill.intermediate": _step(_intermediate),
    "distill.prediction": _step(_prediction),
    "distill.tokens": _step(_prediction_of_tokens),
    "distill.spans": _step(_prediction_of_tokens),
    "train.supervised": _step(_supervised),
    "train.mlm": _step(_mlm),
    "optim.adamw": _adam,
    "optim.bert": _adam,
}
