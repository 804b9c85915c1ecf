"""The same model and the same losses in PyTorch, written to be quick: what the benches measure ours against.

reference/'s twin is a judge (given dropout masks, any layout, float64) and not quick. This one has what good eager code has: one QKV
product, F.linear, F.layer_norm, F.gelu, F.dropout, residuals added in place, F.scaled_dot_product_attention where nobody looks at the
scores, fused Adam where it is faster. It shares the teacher's memory with ours. step.py compares its losses and gradients with ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from workload import LEARNING_RATE

from minitinybert.data.batching import EncodedExamples
from minitinybert.distillation.distill import layer_map
from minitinybert.model.bert import Bert

RELEASED_MASK, RELEASED_UNSEEN = -10000.0, -1e2  # how the released code marks padding in the scores, and finds it again


class Rectangle(NamedTuple):
    """A batch with padding."""

    ids: Tensor  # (B, L)
    types: Tensor  # (B, L)
    bias: Tensor | None  # (B, 1, 1, L) added to the scores; None where nothing is padded
    rows: Tensor | None  # (B, L, 1) 1.0 for real tokens
    pairs: Tensor | None  # (B, 1, L, L) 1.0 where query and key are real
    tokens: int  # real ones
    real_pairs: int

    def to(self, device: str) -> Rectangle:
        return Rectangle(*(field.to(device) if isinstance(field, Tensor) else field for field in self))


def rectangle(examples: EncodedExamples, indices: np.ndarray, length: int | None = None) -> Rectangle:
    """Padded to `length`, or to the longest of them."""
    lengths = np.array([len(examples.input_ids[i]) for i in indices])
    L = length or int(lengths.max())
    ids, types = np.zeros((2, len(indices), L), np.int64)
    for row, i in enumerate(indices):
        ids[row, : lengths[row]], types[row, : lengths[row]] = examples.input_ids[i], examples.token_type_ids[i]
    return padded(torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(lengths))


def padded(ids: Tensor, types: Tensor, lengths: Tensor) -> Rectangle:
    tokens, pairs = int(lengths.sum()), int((lengths**2).sum())
    if tokens == ids.numel():
        return Rectangle(ids, types, None, None, None, tokens, pairs)
    real = (torch.arange(ids.shape[1]) < lengths[:, None]).float()
    bias = ((1 - real) * RELEASED_MASK)[:, None, None, :]
    return Rectangle(ids, types, bias, real[:, :, None], real[:, None, :, None] * real[:, None, None, :], tokens, pairs)


class TorchTrace(NamedTuple):
    hidden: list[Tensor | None]
    scores: list[Tensor | None]
    logits: Tensor

    def float(self) -> TorchTrace:
        convert = lambda parts: [None if part is None else part.float() for part in parts]
        return TorchTrace(convert(self.hidden), convert(self.scores), self.logits.float())

    def clone(self) -> TorchTrace:
        """In memory of its own: of a CUDA graph's results the next run takes the place."""
        convert = lambda parts: [None if part is None else part.clone() for part in parts]
        return TorchTrace(convert(self.hidden), convert(self.scores), self.logits.clone())


class TorchBert:
    """minitinybert's parameters in a functional BERT: `p` holds them by name, q, k and v as one. Trainable: copies with gradients.
    `model` lies on the host."""

    def __init__(self, model: Bert, trainable: bool = False, device: str = "cpu", dtype: torch.dtype = torch.float32):
        self.config, layout = model.config, model.parameters.layout
        names = [slot.name for slot in layout.slots]
        there = lambda a: torch.from_numpy(a).to(device, dtype)
        own = lambda a: there(a.copy()).requires_grad_() if trainable else there(a)
        self.p = {name.removeprefix("bert."): own(model.parameters[name]) for name in names}

    def forward(
        self,
        batch: Rectangle,
        training: bool = False,
        hidden: Container[int] | None = None,
        scores: Container[int] | None = None,
        masked_scores: bool = False,
    ) -> TorchTrace:
        """hidden, scores: which to hand out, None all. masked_scores: with the mask added, as the released code's are."""
        c, p = self.config, self.p
        B, L = batch.ids.shape
        heads, d = c.num_attention_heads, c.hidden_size
        dense = lambda x, name: F.linear(x, p[name + ".weight"], p[name + ".bias"])
        norm = lambda x, name: F.layer_norm(x, (d,), p[name + ".weight"], p[name + ".bias"], c.layer_norm_eps)
        drop = lambda x: F.dropout(x, c.hidden_dropout_prob, training) if training else x
        x = F.embedding(batch.ids, p["embeddings.word_embeddings.weight"])
        bias = None if batch.bias is None else batch.bias.to(x.dtype)
        x += p["embeddings.position_embeddings.weight"][:L]
        x += F.embedding(batch.types, p["embeddings.token_type_embeddings.weight"])
        x = drop(norm(x, "embeddings.LayerNorm"))
        seen = lambda value, i, which: value if which is None or i in which else None
        hidden_seen, scores_seen = [seen(x, 0, hidden)], []
        for l in range(c.num_hidden_layers):
            at = f"encoder.layer.{l}."
            q, k, v = dense(x, at + "attention.self.qkv").view(B, L, 3, heads, d // heads).permute(2, 0, 3, 1, 4).unbind(0)
            if scores is None or l in scores:
                A = (q * (d // heads) ** -0.5) @ k.transpose(-1, -2)
                masked = A if bias is None else A + bias
                P = masked.softmax(-1)
                context = (F.dropout(P, c.attention_probs_dropout_prob, training) if training else P) @ v
                scores_seen.append(masked if masked_scores else A)
            else:
                rate = c.attention_probs_dropout_prob if training else 0.0
                context = F.scaled_dot_product_attention(q, k, v, bias, rate)
                scores_seen.append(None)
            a = drop(dense(context.transpose(1, 2).reshape(B, L, d), at + "attention.output.dense"))
            y = norm(a.add_(x), at + "attention.output.LayerNorm")
            u = drop(dense(F.gelu(dense(y, at + "intermediate.dense")), at + "output.dense"))
            x = norm(u.add_(y), at + "output.LayerNorm")
            hidden_seen.append(seen(x, l + 1, hidden))
        pooled = torch.tanh(dense(x[:, 0], "pooler.dense"))
        return TorchTrace(hidden_seen, scores_seen, dense(drop(pooled), "classifier"))


class TorchStep:
    """A distillation step. student: with the maps of its losses among its parameters (a Learner's).

    released  padding counts in every mean, scores of −100 or less are 0, all layers' scores are formed, as the released code has it.
              (Without: padding is left out, as in ours, so that the losses are equal.)
    terms     "intermediate", "prediction" or both
    compiled  torch.compile's mode, "reduce-overhead" for CUDA graphs; None: eager
    teacher_dtype  in which the teacher works; what it says is handed on in the student's
    products  bfloat16: the student's, by autocast
    """

    def __init__(
        self,
        student: Bert,
        teacher: Bert,
        terms: Sequence[str] = ("intermediate", "prediction"),
        released: bool = False,
        fused: bool = True,
        compiled: str | None = None,
        device: str = "cpu",
        teacher_dtype: torch.dtype = torch.float32,
        products: torch.dtype = torch.float32,
    ):
        self.device, self.products = device, products
        self.student, self.teacher = TorchBert(student, True, device), TorchBert(teacher, False, device, teacher_dtype)
        self.terms, self.released = terms, released
        self.map = layer_map("uniform", student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        self.parameters = list(self.student.p.values())
        self.adam = adam(self.student, fused)
        self.graphs = compiled == "reduce-overhead"
        if self.graphs:  # else each run copies all weights to where the graph reads them
            for p in (*self.parameters, *self.teacher.p.values()):
                torch._dynamo.mark_static_address(p)
        wrap: Callable = functools.partial(torch.compile, mode=compiled) if compiled else lambda f: f
        self._teacher, self._losses = wrap(self._teacher_forward), wrap(self.losses)

    def begin(self) -> None:
        """Before the parts of a step: what CUDA graphs gave out in the last one is no longer needed."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()

    def __call__(self, batch: Rectangle) -> None:
        self.begin()
        self.learn(batch, self.ask_teacher(batch))

    def ask_teacher(self, batch: Rectangle) -> TorchTrace:
        with torch.no_grad():  # not inference_mode: mse_loss keeps its target for the backward, which inference tensors refuse
            return self._teacher(batch)

    def learn(self, batch: Rectangle, teacher: TorchTrace) -> None:
        self.gradients(batch, teacher)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()

    def gradients(self, batch: Rectangle, teacher: TorchTrace) -> dict[str, Tensor]:
        for p in self.parameters:
            p.grad = None
        with torch.autocast(self.device.partition(":")[0], self.products, enabled=self.products != torch.float32):
            losses = self._losses(batch, teacher)
        sum(losses.values()).backward()
        return losses

    def _teacher_forward(self, batch: Rectangle) -> TorchTrace:
        if self.released:
            return self.teacher.forward(batch, masked_scores=True).float()
        if "intermediate" not in self.terms:
            return self.teacher.forward(batch, hidden=(), scores=()).float()
        return self.teacher.forward(batch, hidden=(0, *self.map), scores=[n - 1 for n in self.map]).float()

    def losses(self, batch: Rectangle, teacher: TorchTrace, training: bool = True) -> dict[str, Tensor]:
        looks = None if self.released or "intermediate" in self.terms else ()
        S = self.student.forward(batch, training, looks, looks, masked_scores=self.released)
        losses = {}
        if "intermediate" in self.terms:
            M = range(1, len(self.map) + 1)
            losses["embedding"] = self._hidden(batch, S.hidden[0], teacher.hidden[0], "fit_dense_embedding")
            losses["hidden"] = sum(self._hidden(batch, S.hidden[m], teacher.hidden[self.map[m - 1]], "fit_dense_hidden") for m in M)
            losses["attention"] = sum(self._scores(batch, S.scores[m - 1], teacher.scores[self.map[m - 1] - 1]) for m in M)
        if "prediction" in self.terms:
            losses["prediction"] = F.cross_entropy(S.logits, teacher.logits.softmax(-1))
        return losses

    def _hidden(self, batch: Rectangle, x: Tensor, y: Tensor, name: str) -> Tensor:
        p = self.student.p
        if name not in {key.removesuffix(".weight") for key in p}:
            name = "fit_dense"  # the released code's one map, with a bias
        projected = F.linear(x, p[name + ".weight"], p.get(name + ".bias"))
        if self.released or batch.rows is None:
            return F.mse_loss(projected, y)
        return ((projected - y) * batch.rows).square().sum() / (batch.tokens * y.shape[-1])

    def _scores(self, batch: Rectangle, x: Tensor, y: Tensor) -> Tensor:
        if self.released:
            x, y = (torch.where(A <= RELEASED_UNSEEN, 0.0, A) for A in (x, y))
            return F.mse_loss(x, y)
        if batch.pairs is None:
            return F.mse_loss(x, y)
        return ((x - y) * batch.pairs).square().sum() / (batch.real_pairs * x.shape[1])


def adam(model: TorchBert, fused: bool) -> torch.optim.AdamW:
    """BERT's two groups."""
    decays = lambda name: not ("bias" in name or "LayerNorm" in name)
    group = lambda which, decay: {"params": [p for name, p in model.p.items() if decays(name) is which], "weight_decay": decay}
    groups = [group(True, 0.01), group(False, 0.0)]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True) if fused else torch.optim.AdamW(groups, lr=LEARNING_RATE)
