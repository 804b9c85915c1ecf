"""The released TinyBERT code (huawei-noah, 2019: task_distill.py, transformer/modeling.py): what
the recipe huawei-2019 has to be.

Written as it is written there, without switches and without counts: −10,000 is added to the scores
of padding, entries of −100 or less become 0 on both sides (real scores that are so low, too), and
`MSELoss` is the mean of whatever lies in the tensors, padding included. Of the twin it takes the
encoder's layers; dropout's masks are given, for the teacher as well, which is never put into eval
mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import MSELoss

from minitinybert.audit.models import dropout_masks
from minitinybert.engine.random import key

from . import step, twin

MASKED = -10000.0
UNTOUCHED = ("bert.pooler", "classifier")  # of the intermediate step: without a gradient, so BertAdam passes over them, decay and all


class Answer(NamedTuple):
    """What `TinyBertForSequenceClassification.forward` returns."""

    logits: Tensor  # (B, C)
    atts: list[Tensor]  # a layer (B, h, L, L), masked
    reps: list[Tensor]  # the embeddings' output and each layer's (B, L, d)


def forward(tensors: Mapping[str, Tensor], config: Mapping[str, Any], batch: Any, keep: Mapping[str, Any], is_student: bool) -> Answer:
    """The model on a rectangular batch. The student's states all go through one `fit_dense`,
    whatever their width."""
    (_, B, L) = batch.runs[0]
    ids, types, mask = (twin.tensor(a).reshape(B, L) for a in (batch.input_ids, batch.token_type_ids, batch.attention_mask))
    keep = {**keep, "layers": [{**layer, "probabilities": layer["probabilities"][0]} for layer in keep["layers"]]}
    parts = twin.bert_trace(tensors, config, ids, mask, types, keep, MASKED)
    extended_mask = (1.0 - mask[:, None, None, :].to(parts["hidden.0"].dtype)) * MASKED
    layers = config["num_hidden_layers"]
    reps = [parts[f"hidden.{i}"] for i in range(layers + 1)]
    if is_student and "fit_dense.weight" in tensors:
        reps = [F.linear(rep, tensors["fit_dense.weight"], tensors["fit_dense.bias"]) for rep in reps]
    logits = F.linear(torch.relu(parts["pooled"]), tensors["classifier.weight"], tensors["classifier.bias"])
    return Answer(logits, [parts[f"scores.{i}"] + extended_mask for i in range(layers)], reps)


def intermediate(student: Answer, teacher: Answer, labels: Tensor) -> twin.Outputs:
    """att_loss and rep_loss; the latter's first term, the embeddings', apart."""
    per_block = len(teacher.atts) // len(student.atts)
    att_loss = 0.0
    for student_att, teacher_att in zip(student.atts, teacher.atts[per_block - 1 :: per_block], strict=True):
        student_att = torch.where(student_att <= -1e2, torch.zeros_like(student_att), student_att)
        teacher_att = torch.where(teacher_att <= -1e2, torch.zeros_like(teacher_att), teacher_att)
        att_loss += MSELoss()(student_att, teacher_att)
    rep_losses = [MSELoss()(rep, other) for rep, other in zip(student.reps, teacher.reps[::per_block], strict=True)]
    return {"embedding": rep_losses[0], "hidden": sum(rep_losses[1:]), "attention": att_loss}


def prediction(student: Answer, teacher: Answer, labels: Tensor) -> twin.Outputs:
    """soft_cross_entropy at temperature 1: its mean is over sentences and classes."""
    student_likelihood, targets_prob = F.log_softmax(student.logits, -1), F.softmax(teacher.logits, -1)
    return {"prediction": (-targets_prob * student_likelihood).mean()}


def regression(student: Answer, teacher: Answer, labels: Tensor) -> twin.Outputs:
    """The teacher is not listened to."""
    return {"prediction": MSELoss()(student.logits.view(-1), labels.view(-1))}


STAGES = {"intermediate": intermediate, "prediction": prediction, "regression": regression}


def imitate(stage: str, student: Any, teacher: Any, batch: Any, seed: int, rates: Sequence[float]):
    """What a minitinybert Learner with the recipe huawei-2019 and BertAdam should do from here, as
    `step.imitate`: the losses of each step by name, the weights at the end, and the last step's
    gradients of all tensors that have one.

    student: the learner's own, `fit_dense` among its parameters. Dropout's masks are those that the
    learner draws.
    """
    own, fixed = ({name: twin.tensor(model.parameters[name]) for name in model.parameters} for model in (student, teacher))
    learned = {name: p.requires_grad_() for name, p in own.items() if stage != "intermediate" or not name.startswith(UNTOUCHED)}
    labels = twin.tensor(batch.labels)
    padding_idx = torch.arange(student.config.vocab_size)[:, None] == student.config.pad_token_id  # whose row has no gradient
    own["bert.embeddings.word_embeddings.weight"].register_hook(lambda gradient: gradient.masked_fill(padding_idx, 0))

    def step_losses(i: int) -> twin.Outputs:
        keeps = [dropout_masks(model.forward_batch(batch, key(seed, i, *of))[1]) for model, of in ((student, ()), (teacher, (1,)))]
        with torch.no_grad():
            T = forward(fixed, teacher.config.to_hf(), batch, keeps[1], is_student=False)
        return STAGES[stage](forward(own, student.config.to_hf(), batch, keeps[0], is_student=True), T, labels)

    history, last, _ = step.train(step_losses, learned, "bert-adam", rates)
    return history, {name: p.detach().numpy() for name, p in own.items()}, {name: g.numpy() for name, g in last.items()}
