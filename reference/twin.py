"""Every operation, loss and BERT in PyTorch: forward only, autograd does the rest. Names and
arguments are those of minitinybert.

Written from the equations, not from minitinybert's code: torch.nn.functional where it has the
function, plain tensors elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Outputs = dict[str, Tensor]


def tensor(a: np.ndarray) -> Tensor:
    """A copy. Dropout's keys (uint64) stay what they are; other integers become int64."""
    a = np.array(a)
    return torch.from_numpy(a.astype(np.int64) if a.dtype.kind in "iu" and a.dtype != np.uint64 else a)


# ---------------------------------------------------------------------------------------------------------------- operations


def linear(x: Tensor, W: Tensor, b: Tensor | None = None) -> Outputs:
    return {"y": F.linear(x, W, b)}


def embedding(word_ids: Tensor, position_ids: Tensor, segment_ids: Tensor, W: Tensor, P: Tensor, S: Tensor) -> Outputs:
    return {"y": F.embedding(word_ids, W) + F.embedding(position_ids, P) + F.embedding(segment_ids, S)}


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Outputs:
    return {"y": F.layer_norm(x, gain.shape, gain, bias, eps)}


def embed_norm(
    word_ids: Tensor,
    position_ids: Tensor,
    segment_ids: Tensor,
    W: Tensor,
    P: Tensor,
    S: Tensor,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    keep: np.ndarray | None,
    scale: float,
    **_: Any,
) -> Outputs:
    looked_up = embedding(word_ids, position_ids, segment_ids, W, P, S)["y"]
    return {"y": _dropped(F.layer_norm(looked_up, gain.shape, gain, bias, eps), keep, scale)}


def add_norm(
    a: Tensor, b: Tensor, x: Tensor, gain: Tensor, bias: Tensor, eps: float, keep: np.ndarray | None, scale: float, **_: Any
) -> Outputs:
    return {"y": F.layer_norm(x + _dropped(a + b, keep, scale), gain.shape, gain, bias, eps)}


def gelu(x: Tensor, approximate: str, b: Tensor | None = None) -> Outputs:
    return {"y": F.gelu(x if b is None else x + b, approximate=approximate)}


def softmax(s: Tensor, keep: np.ndarray | None, scale: float, bias: Tensor | None = None, **_: Any) -> Outputs:
    return {"y": _dropped(torch.softmax(s if bias is None else s + bias, -1), keep, scale)}


def dropout(x: Tensor, keep: np.ndarray | None, scale: float, **_: Any) -> Outputs:
    return {"y": _dropped(x, keep, scale)}


def attention(
    q: Tensor,
    kv: Tensor,
    runs: Sequence[Sequence[int]],
    heads: int,
    keep: Sequence[np.ndarray | None],
    scale: float,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> Outputs:
    contexts, scores, asked = [], [], 0
    every = len(q) == len(kv)
    for (start, n, L), kept in zip(runs, keep, strict=True):
        rows = slice(start, start + n * L)
        mine = q[asked : (asked := asked + (n * L if every else n))].reshape(n, -1, q.shape[-1])
        mask = None if attention_mask is None else attention_mask[rows].reshape(n, L)
        context, A = attend(mine, *kv[rows].reshape(n, L, -1).chunk(2, -1), heads, mask, kept, scale)
        contexts.append(context.flatten(0, 1))
        scores.append(A.reshape(-1))
    return {"context": torch.cat(contexts), "scores": torch.cat(scores)}


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None,
    keep: np.ndarray | None,
    scale: float,
    masked: float | None = None,
) -> tuple[Tensor, Tensor]:
    """q (B, Q, d), k, v (B, L, d), mask (B, L) bool -> context (B, Q, d), scores before the mask
    (B, h, Q, L).

    `masked` is added to the scores of padding: by default the lowest float.
    """
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
    A = torch.einsum("bhid,bhjd->bhij", split(q), split(k)) / math.sqrt(q.shape[-1] // heads)
    masked = torch.finfo(A.dtype).min if masked is None else masked
    seen = A if mask is None else A + A.new_zeros(mask.shape).masked_fill(~mask, masked)[:, None, None, :]
    P = _dropped(seen.softmax(-1), keep, scale)
    return torch.einsum("bhij,bhjd->bhid", P, split(v)).transpose(1, 2).flatten(2), A


def feed_forward(x: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, approximate: str, b2: Tensor | None = None) -> Outputs:
    return {"y": F.linear(F.gelu(F.linear(x, W1, b1), approximate=approximate), W2, b2)}


def _dropped(x: Tensor, keep: np.ndarray | None, scale: float) -> Tensor:
    return x if keep is None else x * torch.from_numpy(np.array(keep)).reshape(x.shape).to(x.dtype) * scale


# ---------------------------------------------------------------------------------------------------------------- losses


def mse(x: Tensor, y: Tensor, mask: Tensor | None = None, count: float | None = None) -> Outputs:
    square = (x - y).square()
    weight = torch.ones_like(square) if mask is None else mask.to(square.dtype).expand_as(square)
    return {"loss": (weight * square).sum() / (weight.sum() if count is None else count)}


def attention_loss(scores_S: Tensor, scores_T: Tensor, mask: Tensor | None = None, count: float | None = None) -> Outputs:
    """As the paper has it, a mean over heads of each head's mean, where every entry counts."""
    if mask is None and count is None:
        heads = zip(scores_S.unbind(1), scores_T.unbind(1), strict=True)
        return {"loss": torch.stack([F.mse_loss(A_S, A_T) for A_S, A_T in heads]).mean()}
    return mse(scores_S, scores_T, mask, count)


def hidden(
    H_S: Tensor,
    H_T: Tensor,
    W: Tensor | None = None,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    count: float | None = None,
) -> Outputs:
    projected = H_S if W is None else F.linear(H_S, W, b)
    return mse(projected, H_T, None if mask is None else mask[..., None], count)


def prediction(z_S: Tensor, z_T: Tensor, temperature: float, count: float | None = None) -> Outputs:
    entropy = F.cross_entropy(z_S / temperature, torch.softmax(z_T / temperature, -1), reduction="sum")
    return {"loss": entropy / (len(z_S) if count is None else count)}


def cross_entropy(z: Tensor, labels: Tensor, count: float | None = None) -> Outputs:
    return {"loss": F.cross_entropy(z, labels, reduction="sum") / (len(z) if count is None else count)}


def mlm(z: Tensor, labels: Tensor, count: float | None = None) -> Outputs:
    total = F.cross_entropy(z.flatten(0, -2), labels.flatten(), ignore_index=-100, reduction="sum")
    return {"loss": total / (max(int((labels != -100).sum()), 1) if count is None else count)}


# ---------------------------------------------------------------------------------------------------------------- BERT


def bert_trace(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    input_ids: Tensor,
    mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    keep: Mapping[str, Any] | None = None,
    masked: float | None = None,
) -> Outputs:
    """BERT on one rectangle of ids (B, L), from tensors by their Hugging Face names (`bert.` or
    bare), dropout by given masks.

    Returns embedding, hidden.0 …, scores.0 … (before mask and softmax), and pooled, logits where
    there is a pooler and classifier.
    """
    t = {name.removeprefix("bert."): a for name, a in tensors.items()}
    c, B, L = config, *input_ids.shape
    h, eps, rate = c["num_attention_heads"], c["layer_norm_eps"], c.get("hidden_dropout_prob", 0.0)
    approximate = "tanh" if c["hidden_act"] in ("gelu_new", "gelu_pytorch_tanh") else "none"
    dense = lambda x, name: F.linear(x, t[name + ".weight"], t[name + ".bias"])
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], t[name + ".weight"], t[name + ".bias"], eps)
    keep = keep or {"embedding": None, "classifier": None, "layers": [None] * c["num_hidden_layers"]}
    segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    table = lambda name, ids: F.embedding(ids, t[f"embeddings.{name}_embeddings.weight"])
    x = table("word", input_ids) + table("position", torch.arange(L).expand(B, L)) + table("token_type", segments)
    x = _dropped(norm(x, "embeddings.LayerNorm"), keep["embedding"], dropout_scale(rate))
    parts = {"embedding": x, "hidden.0": x}
    for l in range(c["num_hidden_layers"]):
        at, kept = f"encoder.layer.{l}.", keep["layers"][l] or {}
        q, k, v = (dense(x, f"{at}attention.self.{name}") for name in ("query", "key", "value"))
        P_scale = dropout_scale(c.get("attention_probs_dropout_prob", 0.0))
        context, A = attend(q, k, v, h, mask, kept.get("probabilities"), P_scale, masked)
        a = _dropped(dense(context, at + "attention.output.dense"), kept.get("attention_output"), dropout_scale(rate))
        y = norm(x + a, at + "attention.output.LayerNorm")
        u = dense(F.gelu(dense(y, at + "intermediate.dense"), approximate=approximate), at + "output.dense")
        x = norm(y + _dropped(u, kept.get("feed_forward_output"), dropout_scale(rate)), at + "output.LayerNorm")
        parts |= {f"hidden.{l + 1}": x, f"scores.{l}": A}
    if "pooler.dense.weight" in t:
        parts["pooled"] = torch.tanh(dense(x[:, 0], "pooler.dense"))
    if "classifier.weight" in t and "pooled" in parts:
        classifier_rate = rate if c.get("classifier_dropout") is None else c["classifier_dropout"]
        kept = _dropped(parts["pooled"], keep["classifier"], dropout_scale(classifier_rate))
        parts["logits"] = dense(torch.relu(parts["pooled"]) if c.get("classifier_relu") else kept, "classifier")
    return parts


def mlm_logits(tensors: Mapping[str, Tensor], config: Mapping[str, Any], x: Tensor) -> Tensor:
    """The masked-language-model head with its tied decoder: x (…, d) -> (…, V)."""
    t = {name.removeprefix("bert."): a for name, a in tensors.items()}
    approximate = "tanh" if config["hidden_act"] in ("gelu_new", "gelu_pytorch_tanh") else "none"
    transform = "cls.predictions.transform."
    u = F.linear(x, t[transform + "dense.weight"], t[transform + "dense.bias"])
    gain, bias = t[transform + "LayerNorm.weight"], t[transform + "LayerNorm.bias"]
    y = F.layer_norm(F.gelu(u, approximate=approximate), gain.shape, gain, bias, config["layer_norm_eps"])
    return F.linear(y, t["embeddings.word_embeddings.weight"], t["cls.predictions.bias"])


def token_logits(tensors: Mapping[str, Tensor], config: Mapping[str, Any], x: Tensor, keep: np.ndarray | None) -> Tensor:
    """The head of tokens: x (n, d), dropout by a given mask -> (n, C) labels of words, or (n, 2)
    beginnings and ends."""
    name = "qa_outputs" if "qa_outputs.weight" in tensors else "classifier"
    rate = config["hidden_dropout_prob"] if config["classifier_dropout"] is None else config["classifier_dropout"]
    return F.linear(_dropped(x, keep, dropout_scale(rate)), tensors[name + ".weight"], tensors[name + ".bias"])


def dropout_scale(p: float) -> float:
    """1/(1 − p), p a multiple of 2⁻¹⁶ as minitinybert draws its masks."""
    return 1 / (1 - round(p * 65536) / 65536)


def bert_batch(tensors: Mapping[str, Tensor], config: Mapping[str, Any], batch: Any, keep: Mapping[str, Any]) -> Outputs:
    """A minitinybert Batch: each run of equally long sentences is a rectangle of its own; rows and
    flat scores one after another. Layers without masks drop nothing."""
    pieces: list[Outputs] = []
    nothing = {"probabilities": [None] * len(batch.runs)}
    layers = [*keep["layers"], *[nothing] * (config["num_hidden_layers"] - len(keep["layers"]))]
    for i, (start, n, L) in enumerate(batch.runs):
        rows, sentences = slice(start, start + n * L), slice(sum(run.n for run in batch.runs[:i]), None)
        part = lambda a, rows=rows, n=n, L=L: None if a is None else tensor(a[rows]).reshape(n, L)
        kept = {
            "embedding": _cut(keep["embedding"], rows),
            "classifier": _cut(_cut(keep["classifier"], sentences), slice(0, n)),
            "layers": [{name: a[i] if name == "probabilities" else _cut(a, rows) for name, a in layer.items()} for layer in layers],
        }
        ids, types, mask = (part(a) for a in (batch.input_ids, batch.token_type_ids, batch.attention_mask))
        pieces.append(bert_trace(tensors, config, ids, mask, types, kept))
    flat = lambda name, a: a if name in ("pooled", "logits") else a.reshape(-1) if "scores" in name else a.flatten(0, 1)
    return {name: torch.cat([flat(name, piece[name]) for piece in pieces]) for name in pieces[0]}


def _cut(keep: np.ndarray | None, rows: slice) -> np.ndarray | None:
    return None if keep is None else keep[rows]


def bert(
    config: Mapping[str, Any], batch: Any, keep: Mapping[str, Any], call: Mapping[str, Any], positions: Tensor | None = None, **tensors: Any
) -> Outputs:
    """The audit's case: the batch lies as `given` says, so the drawn rectangle is not looked at. Of
    the trace what the call asks for."""
    weights = {name: t for name, t in tensors.items() if name.endswith((".weight", ".bias"))}
    layers = range(config["num_hidden_layers"])
    keep = keep if call["dropout"] else {"embedding": None, "classifier": None, "tokens": None, "layers": []}
    parts = bert_batch(weights, config, batch, keep)
    if config["head"] == "mlm":
        last = parts[f"hidden.{config['num_hidden_layers']}"]
        parts["logits"] = mlm_logits(weights, config, last if positions is None else last[positions])
    if config["head"] in ("tokens", "spans"):
        last = parts[f"hidden.{config['num_hidden_layers']}"]
        parts["logits"] = token_logits(weights, config, last if positions is None else last[positions], keep["tokens"])
    hidden = [*layers, len(layers)] if call["hidden"] is None else call["hidden"]
    asked = {f"hidden.{m}" for m in hidden} | {f"scores.{l}" for l in (layers if call["scores"] is None else call["scores"])}
    asked |= {"embedding"} if 0 in hidden else set()
    parts = {name: a for name, a in parts.items() if name in asked or (name in ("pooled", "logits") and call["logits"])}
    return {name: _in_rectangle(a, name, batch) for name, a in parts.items()} if call["rectangle"] else parts


def _in_rectangle(a: Tensor, name: str, batch: Any) -> Tensor:
    """As `Bert.forward` shapes a trace: rows (B, L, d), scores (B, h, L, L)."""
    ((_, B, L),) = batch.runs
    if "scores" in name:
        return a.reshape(B, -1, L, L)
    return a if len(a) == B != B * L else a.reshape(B, L, -1)
