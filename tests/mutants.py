"""Mutants: every backward made wrong by hand, one place at a time, and which of the audit's judges notices. The page is made wrong
likewise (`PAGE`): then it is the page that differs from the package, and no other judge is asked.

    python tests/mutants.py [part of a file's name]        prints the table; exit 1 where a mutant lives or no longer applies

A mutant is a replacement in a source file that must match exactly once. The file is compiled in memory with it, and the code of the
one function is exchanged while the audit's cases run; nothing is written. Where no case of the audit goes, there are some here.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from minitinybert import audit
from minitinybert.audit import CASES, MODEL_CASES, Case, Draw, Inputs
from minitinybert.distillation.distill import Intermediate, Prediction, WithWords
from minitinybert.distillation.objectives import MaskedLM, Objective, Supervised
from minitinybert.distillation.recipes import Recipe
from minitinybert.distillation.tokens import SupervisedSpans, SupervisedTokens
from minitinybert.engine.batch import Batch, Masked, packed, padded
from minitinybert.engine.parallel import Workers
from minitinybert.engine.random import key
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.model.trace import Trace
from minitinybert.training import cut
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import NOBODY, Running

PACKAGE = Path(importlib.import_module("minitinybert").__file__).parent


PAGE = "reference/tinybert.py"


class Mutant(NamedTuple):
    file: str  # below minitinybert/, or PAGE
    function: str  # "backward", "Bert.backward"
    old: str
    new: str
    cases: str  # the beginning of the names of the cases that must notice


def _of(file: str, function: str, cases: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, function, old, new, cases) for old, new in changes]


MUTANTS = [
    *_of(
        "ops/linear.py",
        "backward",
        "ops.linear",
        ("(rows @ W)", "(rows @ -W)"),
        ("(rows @ W)", "(rows[:, ::-1] @ W)"),
        ("matmul(rows.T, _rows(x), ", "matmul(rows.T, 2 * _rows(x), "),
        ("matmul(rows.T, _rows(x), ", "matmul(rows.T, _rows(x)[:, ::-1], "),
        ("rows.sum(axis=0, out=db)", "(rows / len(rows)).sum(axis=0, out=db)"),
        ("rows.sum(axis=0, out=db)", "(-rows).sum(axis=0, out=db)"),
    ),
    *_of("ops/linear.py", "backward", "bert.", ("out=dW)", "out=None)"), ("out=db)", "out=None)")),  # only the encoder says where
    *_of(
        "ops/embedding.py",
        "backward",
        "ops.embedding",
        ("add_rows(table, ids.reshape(-1), dy.reshape(-1, d))", "add_rows(table, ids.reshape(-1), -dy.reshape(-1, d))"),
        ("add_rows(table, ids.reshape(-1), dy.reshape(-1, d))", "table[ids.reshape(-1)] += dy.reshape(-1, d)"),
        ("zip(out, cache.ids, strict=True)", "zip(out[:2], cache.ids[:2], strict=True)"),
        ("zip(out, cache.ids, strict=True)", "zip(out[1:], cache.ids[1:], strict=True)"),
    ),
    *_of(
        "ops/embedding.py",
        "add_rows",
        "ops.embedding",
        ("+= xp.add", "-= xp.add"),
        ("reduceat(rows[order]", "reduceat(rows"),
        ("table[ordered[starts]]", "table[ids[starts]]"),
    ),
    *_of("ops/embedding.py", "add_rows", "bert.mlm", ("+= xp.add", "= xp.add")),  # the tied decoder's share is there first
    *_of(
        "ops/embed_norm.py",
        "backward",
        "ops.embed_norm",
        ("dropout.backward(dy, cache.dropout)", "dy"),
        ("dropout.backward(dy, cache.dropout)", "-dropout.backward(dy, cache.dropout)"),
        (
            "return layer_norm.backward(dropout.backward(dy, cache.dropout), cache.norm)",
            "de, dgain, dbias = layer_norm.backward(dropout.backward(dy, cache.dropout), cache.norm)\n    return de, dbias, dgain",
        ),
        (
            "return layer_norm.backward(dropout.backward(dy, cache.dropout), cache.norm)",
            "de, dgain, dbias = layer_norm.backward(dropout.backward(dy, cache.dropout), cache.norm)\n    return dy, dgain, dbias",
        ),
    ),
    *_of(
        "ops/layer_norm.py",
        "backward",
        "ops.layer_norm",
        ("(dy * x_hat).sum(axis=axes)", "(dy * 1).sum(axis=axes)"),
        ("(dy * x_hat).sum(axis=axes)", "(g * x_hat).sum(axis=axes)"),
        ("(dy * x_hat).sum(axis=axes)", "-(dy * x_hat).sum(axis=axes)"),
        (" dy.sum(axis=axes)", " -dy.sum(axis=axes)"),
        (" dy.sum(axis=axes)", " g.sum(axis=axes)"),
        ("g = gain * dy", "g = 1 * dy"),
        ("(g - g.mean(axis=-1, keepdims=True) -", "(g -"),
        ("(g - g.mean(axis=-1, keepdims=True) -", "(g - g.sum(axis=-1, keepdims=True) -"),
        (" - x_hat * (g * x_hat).mean(axis=-1, keepdims=True)", ""),
        ("- x_hat * (g * x_hat)", "+ x_hat * (g * x_hat)"),
        ("- x_hat * (g * x_hat)", "- x_hat * g"),
        ("- x_hat * (g * x_hat)", "- x_hat * (dy * x_hat)"),
        ("(g * x_hat).mean(", "(g * x_hat).sum("),
        ("keepdims=True)) * inverse_std", "keepdims=True))"),
        ("keepdims=True)) * inverse_std", "keepdims=True)) / inverse_std"),
        ("keepdims=True)) * inverse_std", "keepdims=True)) * 0"),
    ),
    *_of(
        "ops/add_norm.py",
        "backward",
        "ops.add_norm",
        ("return dropout.backward(ds, cache.dropout), ds", "return ds, ds"),
        ("return dropout.backward(ds, cache.dropout), ds", "return dropout.backward(dy, cache.dropout), ds"),
        ("return dropout.backward(ds, cache.dropout), ds", "return ds, dropout.backward(ds, cache.dropout)"),
        ("return dropout.backward(ds, cache.dropout), ds", "return -dropout.backward(ds, cache.dropout), ds"),
        ("return dropout.backward(ds, cache.dropout), ds", "return dropout.backward(ds, cache.dropout), dy"),
        ("ds, dgain, dbias\n", "ds, dbias, dgain\n"),
    ),
    *_of(
        "ops/gelu.py",
        "backward",
        "ops.gelu",
        ("return dy * (phi + x * dphi)", "return phi + x * dphi"),
        ("return dy * (phi + x * dphi)", "return -dy * (phi + x * dphi)"),
        ("return dy * (phi + x * dphi)", "return dy * (phi + x * dphi > 0)"),
        ("return dy * (phi + x * dphi)", "return dy * (phi - x * dphi)"),
        ("return dy * (phi + x * dphi)", "return dy * (phi + dphi)"),
        ("return dy * (phi + x * dphi)", "return dy * (x * dphi)"),
        ("return dy * (phi + x * dphi)", "return dy * phi"),
        ("(1 / math.sqrt(2 * math.pi))", "(1 / math.sqrt(math.pi))"),
        ("exp(-0.5 * x * x)", "exp(-x * x)"),
        ("2 * phi * (1 - phi)", "phi * (1 - phi)"),
        ("2 * phi * (1 - phi)", "2 * phi"),
        ("2 * phi * (1 - phi)", "2 * phi * (1 + phi)"),
        ("(1 + 3 * _CUBIC * x * x)", "(1 + _CUBIC * x * x)"),
        ("(_ROOT * (1 + 3", "((1 + 3"),
        ('if approximate == "tanh":', 'if approximate == "none":'),
    ),
    *_of(  # the forward's: difference quotients follow it, PyTorch and the stored answers do not
        "ops/gelu.py",
        "_exact",
        "ops.gelu",
        ("erf(x * math.sqrt(0.5))", "erf(x)"),
        ("P *= square", "P *= near"),
        ("P += coefficient", "P -= coefficient"),
        ("xp.tanh(near * P)", "xp.tanh(P)"),
    ),
    *_of(
        "ops/gelu.py",
        "_tanh",
        "ops.gelu",
        ("_ROOT * x * (1 + _CUBIC", "x * (1 + _CUBIC"),
        ("_ROOT * x * (1 + _CUBIC", "_ROOT * x * (1 + 3 * _CUBIC"),
        ("_ROOT * x * (1 + _CUBIC", "_ROOT * x * (1 - _CUBIC"),
    ),
    *_of(
        "ops/softmax.py",
        "backward",
        "ops.softmax",
        ("(dp - (dp * p)", "(dp + (dp * p)"),
        ("(dp - (dp * p).sum(axis=-1, keepdims=True))", "dp"),
        ("(dp - (dp * p).sum(", "(dp - (dp * p).mean("),
        ("(dp - (dp * p)", "(dp - (dp * dp)"),
        ("(dp - (dp * p)", "(dp - dp"),
        ("return p * (dp", "return (dp"),
        ("return p * (dp", "return -p * (dp"),
        ("return p * (dp", "return 0 * p * (dp"),
    ),
    *_of(  # the forward's own line: difference quotients follow it, PyTorch and the stored answers do not
        "ops/dropout.py",
        "backward",
        "ops.dropout",
        ("dy * cache.keep * cache.scale", "dy * ~cache.keep * cache.scale"),
        ("dy * cache.keep * cache.scale", "dy * cache.keep"),
        ("dy * cache.keep * cache.scale", "dy * cache.keep * -cache.scale"),
        ("dy * cache.keep * cache.scale", "dy * cache.keep / cache.scale"),
        ("dy * cache.keep * cache.scale", "dy * cache.scale"),
    ),
    *_of(
        "ops/attention.py",
        "backward",
        "ops.attention",
        ("weighed(weights).swapaxes(-1, -2) @ dcontext", "weights.softmax.p.swapaxes(-1, -2) @ dcontext"),
        ("weighed(weights).swapaxes(-1, -2) @ dcontext", "weighed(weights).swapaxes(-1, -2) @ -dcontext"),
        ("weighed(weights).swapaxes(-1, -2) @ dcontext", "weighed(weights) @ dcontext"),
        ("dcontext @ v.swapaxes(-1, -2)", "dcontext @ k.swapaxes(-1, -2)"),
        ("dcontext @ v.swapaxes(-1, -2)", "-dcontext @ v.swapaxes(-1, -2)"),
        ("weigh_backward(dcontext @ v.swapaxes(-1, -2), weights)", "weights.softmax.p * (dcontext @ v.swapaxes(-1, -2))"),
        ("dA = dA + dscores", "pass"),
        ("dA = dA + dscores", "dA = dA - dscores"),
        ("dA = dA + dscores", "dA = dscores"),
        ("dA = dA * (1 / math.sqrt(q.shape[-1]))", "pass"),
        ("dA = dA * (1 / math.sqrt(q.shape[-1]))", "dA = dA * (1 / math.sqrt(q.shape[1] * q.shape[-1]))"),
        ("dA = dA * (1 / math.sqrt(q.shape[-1]))", "dA = dA * (1 / q.shape[-1])"),
        ("dA = dA * (1 / math.sqrt(q.shape[-1]))", "dA = dA * (-1 / math.sqrt(q.shape[-1]))"),
        ("return dA @ k", "return -dA @ k"),
        ("return dA @ k", "return dA @ v"),
        ("return dA @ k", "return dA.swapaxes(-1, -2) @ k"),
        ("dA.swapaxes(-1, -2) @ q, dv", "-dA.swapaxes(-1, -2) @ q, dv"),
        ("dA.swapaxes(-1, -2) @ q, dv", "dA.swapaxes(-1, -2) @ dcontext, dv"),
        ("dA.swapaxes(-1, -2) @ q, dv", "dA @ q, dv"),
        ("dA.swapaxes(-1, -2) @ q, dv", "dv, dA.swapaxes(-1, -2) @ q"),
    ),
    *_of(  # again the forward's own lines
        "ops/attention.py",
        "weigh",
        "ops.attention",
        ("if mask is not None:", "if False:"),
        ("xp.where(mask,", "xp.where(~mask,"),
        ("softmax.forward(A)", "softmax.forward(-A)"),
    ),
    *_of(
        "ops/attention.py",
        "weighed",
        "ops.attention",
        ("dropout.backward(cache.softmax.p, cache.dropout)", "cache.softmax.p"),
        ("dropout.backward(cache.softmax.p, cache.dropout)", "-dropout.backward(cache.softmax.p, cache.dropout)"),
        ("dropout.backward(cache.softmax.p, cache.dropout)", "cache.softmax.p * cache.dropout.keep"),
    ),
    *_of(
        "ops/attention.py",
        "weigh_backward",
        "ops.attention",
        ("dropout.backward(dD, cache.dropout)", "dD"),
        ("softmax.backward(dropout.backward(dD, cache.dropout), cache.softmax)", "dropout.backward(dD, cache.dropout)"),
        (
            "softmax.backward(dropout.backward(dD, cache.dropout), cache.softmax)",
            "dropout.backward(softmax.backward(dD, cache.softmax), cache.dropout)",
        ),
        ("return softmax.backward(dropout", "return -softmax.backward(dropout"),
    ),
    *_of(
        "ops/feed_forward.py",
        "backward",
        "ops.feed_forward",
        ("linear.backward(dy, cache.down", "linear.backward(2 * dy, cache.down"),
        ("gelu.backward(da, cache.activation)", "gelu.backward(-da, cache.activation)"),
        ("gelu.backward(da, cache.activation)", "da"),
        ("linear.backward(du, cache.up", "linear.backward(-du, cache.up"),
        ("linear.backward(du, cache.up", "linear.backward(da, cache.up"),
        ("return dx, dW1, db1, dW2", "return dx, dW1, 0 * db1, dW2"),
        ("return dx, dW1, db1, dW2", "return dx, dW1, db1, -dW2"),
    ),
    *_of(  # only the encoder says where
        "ops/feed_forward.py",
        "backward",
        "bert.",
        ("cache.down, down)", "cache.down)"),
        ("cache.up, up)", "cache.up)"),
    ),
    *_of(
        "losses/mse.py",
        "backward",
        "losses.mse",
        ("(2 * dloss / cache.n)", "(dloss / cache.n)"),
        ("(2 * dloss / cache.n)", "(-2 * dloss / cache.n)"),
        ("(2 * dloss / cache.n)", "(2 * dloss)"),
        ("(2 * dloss / cache.n)", "(2 / cache.n)"),
    ),
    *_of(
        "losses/attention.py",
        "backward",
        "losses.attention",
        ("return mse.backward(dloss, cache)", "return -mse.backward(dloss, cache)"),
        ("return mse.backward(dloss, cache)", "return mse.backward(1.0, cache)"),
        ("return mse.backward(dloss, cache)", "return mse.backward(dloss, cache).swapaxes(-1, -2)"),
    ),
    *(
        mutant
        for cases in ("losses.hidden", "losses.embedding")  # one backward under two names
        for mutant in _of(
            "losses/hidden.py",
            "backward",
            cases,
            ("mse.backward(dloss, cache.error)", "-mse.backward(dloss, cache.error)"),
            ("mse.backward(dloss, cache.error)", "mse.backward(1.0, cache.error)"),
            ("return dprojected, None, None", "return 2 * dprojected, None, None"),
            ("linear.backward(dprojected, cache.projection)", "linear.backward(dprojected / 2, cache.projection)"),
        )
    ),
    *_of(
        "losses/prediction.py",
        "backward",
        "losses.prediction",
        ("(cache.p_S - cache.p_T)", "(cache.p_T - cache.p_S)"),
        ("(cache.p_S - cache.p_T)", "cache.p_S"),
        ("(cache.n * cache.temperature)", "cache.n"),
        ("(cache.n * cache.temperature)", "(cache.n * cache.temperature**2)"),
        ("(dloss / (cache.n * cache.temperature))", "(dloss / cache.temperature)"),
    ),
    *_of(
        "losses/cross_entropy.py",
        "backward",
        "losses.cross_entropy",
        ("dz = cache.p.copy()", "dz = 0 * cache.p"),
        ("cache.labels] -= 1", "cache.labels] += 1"),
        ("cache.labels] -= 1", "cache.labels] = 1"),
        ("dz *= dloss / cache.n", "dz *= dloss"),
        ("dz *= dloss / cache.n", "dz *= 1 / cache.n"),
    ),
    *_of(
        "losses/mlm.py",
        "backward",
        "losses.mlm",
        ("cross_entropy.backward(dloss, cache.entropy)", "cross_entropy.backward(2 * dloss, cache.entropy)"),
        ("xp.zeros(cache.shape", "xp.ones(cache.shape"),
        ("[cache.rows] = dz_rows", "[cache.rows] = -dz_rows"),
        ("[cache.rows] = dz_rows", "[cache.rows[::-1]] = dz_rows"),
    ),
    *_of(
        "model/encoder.py",
        "backward",
        "bert.",
        ("add_norm.backward(dz, cache.output_norm", "add_norm.backward(2 * dz, cache.output_norm"),
        ("dbias = dW.output_norm", "dbias = dW.attention_norm"),
        ("dbias = dW.attention_norm", "dbias = dW.output_norm"),
        ("dgain, dbias = dW.output_norm", "dbias, dgain = dW.output_norm"),
        ("dgain, dbias = dW.attention_norm", "dbias, dgain = dW.attention_norm"),
        ("feed_forward.backward(dw, ", "feed_forward.backward(-dw, "),
        ("feed_forward.backward(dw, ", "feed_forward.backward(dy_round, "),
        ("(dW.up, dW.down)", "(dW.down, dW.up)"),
        ("dy + dy_round", "dy"),
        ("dy + dy_round", "dy - dy_round"),
        ("dy + dy_round", "dy_round"),
        ("self_attention.backward(da, dscores,", "self_attention.backward(-da, dscores,"),
        ("self_attention.backward(da, dscores,", "self_attention.backward(dx_round, dscores,"),
        ("self_attention.backward(da, dscores,", "self_attention.backward(da, None,"),
        ("dx += dasking + dx_round", "dx += dasking"),
        ("dx += dasking + dx_round", "dx += dx_round"),
        ("dx += dasking + dx_round", "dx += dasking - dx_round"),
        ("dx += dasking + dx_round", "dx += dasking + dy"),
        ("dx += dasking + dx_round", "dx = dasking + dx_round"),
    ),
    *_of(  # where only the [CLS] rows of the last layer are looked at
        "model/encoder.py",
        "backward",
        "distill.prediction",
        ("dx[cache.rows] += dasking + dx_round", "dx[cache.rows] += dasking"),
        ("dx[cache.rows] += dasking + dx_round", "dx[cache.rows] += dasking - dx_round"),
        ("dx[cache.rows] += dasking + dx_round", "dx[cache.rows] += dx_round"),
        ("dx[cache.rows] += dasking + dx_round", "dx[cache.rows] += dx_round - dasking"),
        ("dx[cache.rows] += dasking + dx_round", "dx[cache.rows] = dasking + dx_round"),
        ("dx[cache.rows] += dasking + dx_round", "dx[cache.rows[::-1]] += dasking + dx_round"),
    ),
    *_of(
        "model/self_attention.py",
        "backward",
        "bert.",
        ("linear.backward(da, cache.output", "linear.backward(-da, cache.output"),
        ("attend_backward(dcontext, dscores, cache", "attend_backward(dcontext, None, cache"),
        ("dq, dk, dv = attend_backward(", "dk, dq, dv = attend_backward("),
        ("dq, dk, dv = attend_backward(", "dq, dv, dk = attend_backward("),
        ("linear.backward(dq, cache.q", "linear.backward(-dq, cache.q"),
        ("linear.backward(dk, cache.k", "linear.backward(-dk, cache.k"),
        ("linear.backward(dv, cache.v", "linear.backward(-dv, cache.v"),
        ("cache.q, dW.query)", "cache.q, dW.key)"),
        ("(dk, cache.k, ", "(dk, cache.v, "),
        ("return dx_key + dx_value, dasking", "return dx_key, dasking"),
        ("return dx_key + dx_value, dasking", "return dx_value, dasking"),
        ("return dx_key + dx_value, dasking", "return dx_key - dx_value, dasking"),
        ("return dx_key + dx_value, dasking", "return dx_key + dx_value, -dasking"),
    ),
    *_of(
        "model/self_attention.py",
        "backward",
        "distill.prediction",
        ("return dx_key + dx_value, dasking", "return dx_key + dx_value, 0 * dasking"),
        ("linear.backward(dk, cache.k", "linear.backward(-dk, cache.k"),
        ("linear.backward(dv, cache.v", "linear.backward(-dv, cache.v"),
    ),
    *_of(
        "model/self_attention.py",
        "attend_backward",
        "ops.attention",
        ("(start := start + P.size)]", "start + P.size]"),
        ("None if dscores is None else dscores[", "None if dscores is None else -dscores["),
        ("None if dscores is None else dscores[", "None if True else dscores["),
        ("split(dcontext[rows], run.n", "split(-dcontext[rows], run.n"),
        ("split(dcontext[rows], run.n", "split(dcontext[: rows.stop - rows.start], run.n"),
        ("rectangle, dA)", "cache.rectangles[0], dA)"),
        ("gradients.append([join", "gradients.insert(0, [join"),
        ("join(gradient)", "gradient.reshape(gradient.shape[0] * gradient.shape[2], -1)"),
        ("dq, dk, dv = (side_by_side", "dk, dq, dv = (side_by_side"),
        ("dq, dk, dv = (side_by_side", "dq, dv, dk = (side_by_side"),
    ),
    *_of(  # both ways go through these, and difference quotients with them; PyTorch does not
        "model/self_attention.py",
        "split",
        "ops.attention",
        ("heads, -1).swapaxes(1, 2)", "-1, heads).transpose(0, 3, 1, 2)"),
    ),
    *_of("model/self_attention.py", "join", "ops.attention", ("by_head.swapaxes(1, 2).reshape", "by_head.reshape")),
    *_of("model/self_attention.py", "real_tokens", "ops.attention", ("run.start : run.stop].reshape", ": run.stop - run.start].reshape")),
    *_of(
        "model/self_attention.py",
        "_rows_that_ask",
        "distill.prediction",
        ("slice(end - run.n, end)", "slice(0, run.n)"),
    ),
    *_of(
        "model/bert.py",
        "Bert.backward",
        "bert.",
        ("self.look_up_backward(self.backward_to_look_up(", "_ = (self.backward_to_look_up("),
        ("self.look_up_backward(self.backward_to_look_up(", "self.look_up_backward(2 * self.backward_to_look_up("),
        ("self.look_up_backward(self.backward_to_look_up(cache, dtrace,", "self.look_up_backward(self.backward_to_look_up(cache, Trace(),"),
    ),
    *_of(
        "model/bert.py",
        "Bert.backward_to_look_up",
        "bert.",
        ("for l in reversed(range(len(cache.layers)))", "for l in range(len(cache.layers))"),
        ("if dhidden[l + 1] is not None:", "if False:"),
        ("dx + dhidden[l + 1]", "dx - dhidden[l + 1]"),
        ("dx = dx + dhidden[l + 1]", "dx = dhidden[l + 1]"),
        ("in (dhidden[0], ", "in (None, "),
        ("dhidden[0], dtrace.embedding)", "dhidden[0],)"),
        ("dx + seen.reshape", "dx - seen.reshape"),
        ("dx = dx + seen.reshape", "dx = seen.reshape"),
        ("flat = None if dscores[l] is None else", "flat = None if True else"),
        ("flat = None if dscores[l] is None else dscores[l]", "flat = None if dscores[l] is None else -dscores[l]"),
        ("dx = self._heads_backward(", "dx = 0 * self._heads_backward("),
        ("LayerArrays.of(grads, l))", "LayerArrays.of(grads, 0))"),
        ("embed_norm.backward(dx, ", "embed_norm.backward(-dx, "),
        ("dgain, dbias = _embedding_norm(grads)", "dbias, dgain = _embedding_norm(grads)"),
    ),
    *_of(
        "model/bert.py",
        "Bert._heads_backward",
        "bert.classifier",
        ("cls_rows] += dfirst", "cls_rows] -= dfirst"),
        ("cls_rows] += dfirst", "cls_rows[::-1]] += dfirst"),
        ("classify_backward(dtrace.pooled, dlogits,", "classify_backward(None, dlogits,"),
        ("classify_backward(dtrace.pooled, dlogits,", "classify_backward(dtrace.pooled, None,"),
    ),
    *_of(
        "model/bert.py",
        "Bert._heads_backward",
        "bert.mlm",
        ("predict_words_backward(dtrace.logits,", "predict_words_backward(-dtrace.logits,"),
    ),
    *_of(
        "model/bert.py",
        "Bert._heads_backward",
        "distill.prediction",
        ("return dfirst", "return -dfirst"),
        ("return dfirst", "return 0 * dfirst"),
    ),
    *_of(
        "model/bert.py",
        "Bert.look_up_backward",
        "bert.",
        ("embedding.backward(de, ", "embedding.backward(-de, "),
        ("embedding.backward(de, ", "embedding.backward(de[::-1], "),
        ("embedding.backward(de, ", "embedding.backward(0 * de, "),
    ),
    *_of("model/bert.py", "tables", "bert.", ('("word", "position", "token_type")', '("word", "position", "position")')),
    *_of("model/bert.py", "_embedding_norm", "bert.", ('"embeddings.LayerNorm.weight"], P["', '"embeddings.LayerNorm.bias"], P["')),
    *_of(
        "engine/memory.py",
        "added",
        "distill.intermediate",
        ("lambda a, b: a + b", "lambda a, b: a - b"),
        ("lambda a, b: a + b", "lambda a, b: b"),
        ("terms, x)", "terms[1:], x)"),
    ),
    *_of(
        "model/heads.py",
        "classify_backward",
        "bert.classifier",
        ("linear.backward(dlogits, cache.classifier", "linear.backward(-dlogits, cache.classifier"),
        ("dkept = dropout.backward(dkept, cache.dropout)", "pass"),
        ("dkept * (cache.pooled > 0) if cache.relu else dkept", "dkept"),
        ("dkept + dpooled", "dkept - dpooled"),
        ("dkept + dpooled", "dkept"),
        ("total * (1 - cache.pooled * cache.pooled)", "total"),
        ("total * (1 - cache.pooled * cache.pooled)", "total * (1 - cache.pooled)"),
        ("total * (1 - cache.pooled * cache.pooled)", "total * (1 + cache.pooled * cache.pooled)"),
        ("total * (1 - cache.pooled * cache.pooled)", "(1 - cache.pooled * cache.pooled)"),
    ),
    *_of(
        "model/heads.py",
        "predict_words_backward",
        "bert.mlm",
        ("linear.backward(dlogits.reshape", "linear.backward(-dlogits.reshape"),
        ("dgain[...], dbias[...] = layer_norm", "dbias[...], dgain[...] = layer_norm"),
        ("layer_norm.backward(dt, cache.norm)", "layer_norm.backward(-dt, cache.norm)"),
        ("gelu.backward(da, cache.gelu)", "gelu.backward(-da, cache.gelu)"),
        ("gelu.backward(da, cache.gelu)", "da"),
        ("linear.backward(du, cache.transform", "linear.backward(-du, cache.transform"),
        ("dx += drows", "dx -= drows"),
        ("array_module(dx).add.at(dx, cache.rows, drows)", "dx[cache.rows] += drows"),
        ("array_module(dx).add.at(dx, cache.rows, drows)", "pass"),
    ),
    *_of(
        "model/heads.py",
        "label_tokens_backward",
        "bert.tokens",
        ("linear.backward(rows, cache.map", "linear.backward(-rows, cache.map"),
        ("dasked = dropout.backward(dkept, cache.dropout)", "dasked = dkept"),
        ("dx += dasked", "dx -= dasked"),
        ("array_module(dx).add.at(dx, cache.rows, dasked)", "dx[cache.rows] += dasked"),
    ),
    *_of("model/heads.py", "label_tokens_backward", "bert.spans", ("dx += dasked", "dx += 2 * dasked")),
    *_of(
        "distillation/tokens.py",
        "SupervisedTokens.__call__",
        "own.supervised by words",
        ("batch.masked.labels, batch.totals.masked)", "batch.masked.labels)"),
        ("batch.masked.labels, batch.totals.masked)", "batch.masked.labels, batch.totals.sentences)"),
        ("batch.totals.masked)\n        return Terms({\"cross_entropy\": entropy}, Trace(logits=cross_entropy.backward(1.0, c)),",
         "batch.totals.masked)\n        return Terms({\"cross_entropy\": entropy}, Trace(logits=cross_entropy.backward(-1.0, c)),"),
    ),
    *_of(
        "distillation/tokens.py",
        "TokenPrediction.__call__",
        "distill.tokens",
        ('n * student.logits.shape[-1] if self.recipe.prediction_mean == "elements" else n', "n"),
        ("n = batch.totals.masked", "n = batch.totals.sentences"),
        ("teacher.logits, self.recipe.temperature, count", "teacher.logits, 1.0, count"),
        ("Trace(logits=prediction.backward(1.0, c))", "Trace(logits=prediction.backward(2.0, c))"),
    ),
    *_of(
        "distillation/tokens.py",
        "SupervisedSpans.__call__",
        "own.supervised by spans",
        ("batch.labels.reshape(-1), 2 * batch.totals.sentences", "batch.labels.reshape(-1), batch.totals.sentences"),
        ("batch.labels.reshape(-1), 2", "batch.labels.T.reshape(-1), 2"),
        ("by_row(cross_entropy.backward(1.0, c), batch)", "by_row(cross_entropy.backward(0.5, c), batch)"),
    ),
    *_of(
        "distillation/tokens.py",
        "SpanPrediction.__call__",
        "distill.spans",
        ('2 * (batch.totals.rows if self.recipe.prediction_mean == "elements" else batch.totals.sentences)', "2 * batch.totals.sentences"),
        ("prediction.forward(z_S, z_T, self.recipe.temperature, count)", "prediction.forward(z_S, z_T, 1.0, count)"),
        ("by_row(prediction.backward(1.0, c), batch)", "by_row(prediction.backward(-1.0, c), batch)"),
    ),
    *_of(
        "distillation/tokens.py",
        "by_place",
        "own.supervised by spans",
        ("if batch.attention_mask is not None:", "if False:"),
        ("xp.full((batch.size, 2, batch.longest), _NO_PLACE", "xp.full((batch.size, 2, batch.longest), 0"),
        ("batch.attention_mask[:, None], z, z.dtype.type(_NO_PLACE)", "batch.attention_mask[:, None], z, z.dtype.type(0)"),
        ("rectangle[sentence, :, place] = z", "rectangle[sentence, :, place] = z[:, ::-1]"),
    ),
    *_of(
        "distillation/tokens.py",
        "by_row",
        "distill.spans",
        ("[sentence, :, place]\n\n\ndef _places", "[sentence, ::-1, place]\n\n\ndef _places"),
        ("dz.reshape(batch.size, 2, -1)", "dz.reshape(batch.size, 2, -1)[::-1]"),
        ("dz.reshape(batch.size, 2, -1)", "-dz.reshape(batch.size, 2, -1)"),
    ),
    *_of(  # what a batch carries through the two steps: losses, their counts, and the gradients handed to the encoder
        "distillation/distill.py",
        "Intermediate.__call__",
        "distill.intermediate",
        ("teacher.hidden[n], batch", "teacher.hidden[m], batch"),
        ("teacher.scores[n], batch", "teacher.scores[m], batch"),
        ("teacher.scores[n], batch", "-teacher.scores[n], batch"),
        ("loss, dtrace.scores[m] = compared(", "loss, dtrace.scores[m - 1] = compared("),
        ("dtrace, {name: added(*values) for name, values in dprojections.items()}, _by_layer(losses))", "dtrace, {}, _by_layer(losses))"),
        ("dprojections[name].append(gradient)", "dprojections[name] = [gradient]"),
        ('losses["hidden" if m else "embedding"][m] = loss', 'losses["hidden"][m] = loss'),
    ),
    *_of(
        "distillation/distill.py",
        "Intermediate._hidden",
        "distill.intermediate",
        ("term.backward(weight, cache)", "term.backward(1.0, cache)"),
        ('(embedding, self._weight("embedding", 0)) if m == 0', '(hidden, self._weight("hidden", m)) if m == 0'),
        ("rows * H_T.shape[-1])", "rows * H_S.shape[-1])"),
        ("rows * H_T.shape[-1])", "rows)"),
        ("return weight * loss, dH_S, named", "return weight * loss, -dH_S, named"),
        ("return weight * loss, dH_S, named", "return weight * loss, dH_S, {}"),
        ("zip(names, gradients, strict=False)", "zip(names[:1], gradients, strict=False)"),
    ),
    *_of(
        "distillation/distill.py",
        "Intermediate._comparison",
        "distill.intermediate",
        ("self.heads.pairs * (batch", "(batch"),
        ('entries, self._weight("attention", m))', "entries, 1.0)"),
    ),
    *_of(  # the audit does not draw padding in each of its ways, nor a λ on the way forward
        "distillation/distill.py",
        "Intermediate._hidden",
        "own.intermediate",
        ("mask, rows = None, batch.totals.rows", "mask, rows = None, rows"),
        ("mask, rows = None, batch.totals.rows", "rows = batch.totals.rows"),
        ('self.recipe.padding == "count":\n            mask', "False:\n            mask"),
        ('self.recipe.padding == "count":\n            mask', "True:\n            mask"),
        ("return weight * loss, dH_S", "return loss, dH_S"),
    ),
    *_of(  # nor scores that are so low
        "distillation/distill.py",
        "Intermediate._comparison",
        "own.intermediate",
        ("(batch.totals.row_pairs if counts else batch.totals.pairs)", "batch.totals.pairs"),
        ("(batch.totals.row_pairs if counts else batch.totals.pairs)", "batch.totals.row_pairs"),
        ("Comparison(self.heads, counts,", "Comparison(self.heads, not counts,"),
    ),
    *_of(
        "distillation/scores.py",
        "compare",
        "distill.intermediate",
        ("average(A_S), how.heads.average(A_T), how, both)", "average(A_T), how.heads.average(A_S), how, both)"),
        ("average(A_S), how.heads.average(A_T), how, None)", "average(A_T), how.heads.average(A_S), how, None)"),
        ("how.heads.same and not how.count_padding", "not how.count_padding"),
        ("added(*losses)", "losses[0]"),
        ("side_by_side(gradients)", "side_by_side(gradients[::-1])"),
    ),
    *_of(
        "distillation/scores.py",
        "compare",
        "own.intermediate",
        ("if batch.attention_mask is None and how.heads.same and", "if how.heads.same and"),
        ("how.heads.same and not how.count_padding:", "how.heads.same:"),
        ("(A_S, moves), (A_T, _)", "(_, moves), (A_T, _)"),
        ("(A_S, moves), (A_T, _)", "(A_S, moves), _"),
        ("real & real.swapaxes(-1, -2)", "real"),
        ("real & real.swapaxes(-1, -2)", "real | real.swapaxes(-1, -2)"),
        ("real & real.swapaxes(-1, -2)", "None"),
        ("if how.count_padding:", "if True:"),
        ("if how.count_padding:", "if False:"),
        ("spread(dA) * moves", "spread(dA)"),
        ("spread(dA) * moves", "spread(dA) * real"),
        ("dA = how.heads.spread(dA)\n", "pass\n"),
        ("dA = how.heads.spread(dA)\n", "dA = how.heads.spread(dA) * how.heads.S\n"),
    ),
    *_of(
        "distillation/scores.py",
        "compare_probabilities",
        "own.intermediate",
        ("softmax.backward(how.heads.spread(dP), cache)", "how.heads.spread(dP)"),
        ("softmax.backward(how.heads.spread(dP), cache)", "softmax.backward(-how.heads.spread(dP), cache)"),
        ("xp.where(real, A.astype(A_S.dtype, copy=False), -xp.inf)", "A.astype(A_S.dtype, copy=False)"),
        ("None if how.count_padding else real.swapaxes(-1, -2)", "None"),
        ("None if how.count_padding else real.swapaxes(-1, -2)", "real.swapaxes(-1, -2)"),
        ("average(P_S), how.heads.average(P_T), how, counted)", "average(P_T), how.heads.average(P_S), how, counted)"),
    ),
    *_of(
        "distillation/scores.py",
        "_loss_and_gradient",
        "distill.intermediate",
        ("backward(how.weight, cache)", "backward(1.0, cache)"),
        ("backward(how.weight, cache)", "backward(-how.weight, cache)"),
        ("forward(A_S, A_T, mask, how.entries)", "forward(A_T, A_S, mask, how.entries)"),
        ("forward(A_S, A_T, mask, how.entries)", "forward(A_S, A_T, mask)"),
    ),
    *_of("distillation/scores.py", "_loss_and_gradient", "own.intermediate", ("return how.weight * loss", "return loss")),
    *_of("model/self_attention.py", "split_runs", "distill.intermediate", ("start = stop", "pass")),
    *_of(
        "model/self_attention.py",
        "real_tokens",
        "own.intermediate",
        ("mask[run.start : run.stop].reshape(", "(mask[run.start : run.stop] | True).reshape("),
    ),
    *_of(
        "losses/attention.py",
        "visible",
        "own.intermediate",
        ("real & (A > UNSEEN)", "real"),
        ("real & (A > UNSEEN)", "A > UNSEEN"),
        ("return A * above, above", "return A, above"),
    ),
    *_of(
        "losses/attention.py",
        "HeadPairs.average",
        "distill.intermediate",
        (".mean(axis=2)", ".sum(axis=2)"),
        ("heads // self.pairs, L, L).mean(axis=2)", "heads // self.pairs, L, L)[:, :, 0]"),
        ("self.pairs, heads // self.pairs, L, L).mean(axis=2)", "heads // self.pairs, self.pairs, L, L).mean(axis=1)"),
    ),
    *_of(
        "losses/attention.py",
        "HeadPairs.spread",
        "own.intermediate",
        ("repeat(dA, g, axis=1) / g", "repeat(dA, g, axis=1)"),
        ("repeat(dA, g, axis=1) / g", "repeat(dA, g, axis=1) / self.S"),
        ("repeat(dA, g, axis=1) / g", "tile(dA, (1, g, 1, 1)) / g"),
    ),
    *_of(
        "distillation/distill.py",
        "Prediction.__call__",
        "distill.prediction",
        ("prediction.backward(1.0, c)", "prediction.backward(2.0, c)"),
        ('n * z_S.shape[-1] if self.recipe.prediction_mean == "elements" else n', "n"),
        ('n * z_S.shape[-1] if self.recipe.prediction_mean == "elements" else n', "n * z_S.shape[-1]"),
        ("loss, c = prediction.forward(z_S, z_T, self.recipe.temperature", "loss, c = prediction.forward(z_S, z_T, 1.0"),
    ),
    *_of(
        "distillation/distill.py",
        "WithWords.__call__",
        "own.prediction of words",
        ("loss, cache = prediction.forward(z_S, z_T, self.recipe.temperature", "loss, cache = prediction.forward(z_S, z_T, 1.0"),
        ("prediction.backward(weight, cache)", "prediction.backward(1.0, cache)"),
        ('"prediction": weight * loss', '"prediction": loss'),
        ("rows: float = batch.totals.masked", "rows: float = batch.totals.tokens"),
    ),
    *_of(
        "distillation/distill.py",
        "Prediction.__call__",
        "own.regression",
        ("mse.backward(1.0, cache)", "mse.backward(2.0, cache)"),
        ("mse.forward(z_S, z_T, count=n)", "mse.forward(z_S, z_T)"),
        ('self.recipe.regression_target == "labels"', "True"),
        ('self.recipe.regression_target == "labels"', "False"),
        ("if self.regression:", "if False:"),
    ),
    *_of(
        "distillation/objectives.py",
        "Supervised.__call__",
        "own.supervised",
        ("mse.forward(student.logits, labels, count=n)", "mse.forward(student.logits, labels)"),
        ("mse.backward(1.0, cache)", "mse.backward(-1.0, cache)"),
        ("cross_entropy.forward(student.logits, batch.labels, n)", "cross_entropy.forward(student.logits, batch.labels)"),
        ('"cross_entropy": entropy}, Trace(logits=cross_entropy.backward(1.0, c))', '"cross_entropy": entropy}, Trace(logits=2 * c.p)'),
    ),
    *_of(
        "distillation/objectives.py",
        "MaskedLM.__call__",
        "own.mlm",
        ("batch.masked.labels, max(batch.totals.masked, 1))", "batch.masked.labels)"),
        ("batch.masked.labels, max(batch.totals.masked, 1))", "batch.masked.labels, batch.totals.sentences)"),
        ('"mlm": entropy}, Trace(logits=cross_entropy.backward(1.0, c))', '"mlm": entropy}, Trace(logits=cross_entropy.backward(0.5, c))'),
    ),
    *_of(
        "training/shares.py",
        "Learner._of_rank",
        "own.step",
        ("total = self._sum(len(turns))", "total = self._gradients[0]"),
        ("self._clear_tables(total)", "pass"),
        ("        for result in results:\n", "        for result in results[1:]:\n"),
        ("look_up_backward(result.dlookup,", "look_up_backward(-result.dlookup,"),
        ("look_up_backward(result.dlookup,", "look_up_backward(result.dlookup[::-1],"),
        ("for result in results if name in result.losses)) for name", "for result in results[1:] if name in result.losses)) for name"),
    ),
    *_of(
        "training/shares.py",
        "Learner._sum",
        "own.step",
        ("total[piece] += other[piece]", "total[piece] -= other[piece]"),
        ("total[piece] += other[piece]", "total[piece] = other[piece]"),
        ("[slice(i, i + length) for", "[slice(i, i + length - 1) for"),
    ),
    *_of(
        "training/shares.py",
        "Learner._clear_tables",
        "own.step",
        ("if self._first:", "if True:"),
        ("words[ids] = 0", "pass"),
        ("table.fill(0)", "pass"),
    ),
    *_of(
        "training/shares.py",
        "Learner._of_thread",
        "own.step",
        ("for share in shares[1:]", "for share in shares[2:]"),
        ("self._of_share(share, more, number)", "self._of_share(shares[0], more, number)"),
        ("total += more.flat[self._first :]", "pass"),
        ("total += more.flat[self._first :]", "total -= more.flat[self._first :]"),
    ),
    *_of(
        "training/shares.py",
        "Learner._of_share",
        "own.step",
        ("grads.flat[self._first :] = 0", "pass"),
        ("(student.backward_to_look_up(cache, dtrace, grads), ", "(-student.backward_to_look_up(cache, dtrace, grads), "),
        ("(self.seed, number), grads", "(self.seed, 1), grads"),
    ),
    *_of(
        "training/step.py",
        "step",
        "own.step",
        ("gradients[name][...] = gradient if name in own else gradients[name] + gradient", "pass"),
        ("= gradient if name in own", "= -gradient if name in own"),
        ("taught, key(*at))", "taught, key(at[0], 1))"),
        ("backward(student, cache, terms.dtrace, gradients, objective.padding_gradient)", "pass"),
    ),
    *_of(
        "training/shares.py",
        "Learner.__init__",
        "own.step",
        ("self._first = 0 if tied else", "self._first = 0 if False else"),
    ),
    *_of("training/step.py", "terms_of", "own.step", ("student.forward_batch(batch, dropout_key, ", "student.forward_batch(batch, None, ")),
    # The page, forwards too: what it computes is held against nothing but the package.
    *_of(PAGE, "linear", "ops.linear", ("].T + P.get(", "].T - P.get(")),
    *_of(
        PAGE,
        "linear_backward",
        "ops.linear",
        ("+= rows.T @ x.reshape", "+= rows.T @ -x.reshape"),
        ('".bias"] += rows.sum(0)', '".bias"] += rows.mean(0)'),
        ("return dy @ P[", "return 2 * dy @ P["),
    ),
    *_of(PAGE, "lookup_backward", "ops.embedding", ('np.add.at(G[name + ".weight"], ids, dy)', 'G[name + ".weight"][ids] += dy')),
    *_of(PAGE, "layer_norm", "ops.layer_norm", (".mean(-1, keepdims=True) + eps)", ".mean(-1, keepdims=True))")),
    *_of(
        PAGE,
        "layer_norm_backward",
        "ops.layer_norm",
        ("g - g.mean(-1, keepdims=True) - x_hat", "g - x_hat"),
        ("- x_hat * (g", "+ x_hat * (g"),
        ("+= (dy * x_hat)", "+= (dy * sigma)"),
    ),
    *_of(PAGE, "gelu_backward", "ops.gelu", (" + x * density", ""), ("math.sqrt(2 * math.pi)", "math.sqrt(math.pi)")),
    *_of(PAGE, "softmax_backward", "ops.softmax", ("(dp - (dp", "(dp + (dp")),
    *_of(PAGE, "attention", "ops.attention", (", A, -np.inf)", ", A, 0)")),
    *_of(
        PAGE,
        "attention_backward",
        "ops.attention",
        ("(dA + softmax_backward", "(softmax_backward"),
        ("p)) / math.sqrt(q.shape[-1])", "p)) / q.shape[-1]"),
        ("join(dA @ k), join(dA.swapaxes(-1, -2) @ q)", "join(dA.swapaxes(-1, -2) @ k), join(dA @ q)"),
    ),
    *_of(
        PAGE,
        "layer_backward",
        "bert.",
        ("dy = dw + linear_backward", "dy = linear_backward"),
        ("return da + sum(", "return sum("),
        ("linear_backward(dw, gelu(u),", "linear_backward(dw, u,"),
    ),
    *_of(PAGE, "bert_backward", "bert.", ("dx + dhidden[0]", "dx"), ("dscores[l]", "dscores[0]")),
    *_of(PAGE, "classify_backward", "bert.classifier", ("(1 - pooled**2)", "(1 - pooled)")),
    *_of(PAGE, "guess_words_backward", "bert.mlm", ("G[WORDS] +=", "0 *")),
    *_of(PAGE, "mse", "losses.mse", ("real.sum(), 2 * real", "real.sum(), real")),
    *_of(PAGE, "attention_loss", "losses.attention", (" & mask[:, None, None, :]", "")),
    *_of(PAGE, "hidden_loss", "losses.hidden", ("H_T, mask[..., None]", "H_T, 1.0")),
    *_of(PAGE, "prediction_loss", "losses.prediction", ("/ (B * t)", "/ B")),
    *_of(PAGE, "cross_entropy", "losses.cross_entropy", ("dz[chosen] -= 1 / n", "dz[chosen] -= 1")),
    *_of(PAGE, "layer_map", "distill.intermediate", ("for m in range(1, M + 1)", "for m in range(M)")),
    *_of(
        PAGE,
        "intermediate",
        "distill.intermediate",
        ('T["hidden"][n]', 'T["hidden"][m]'),
        ('T["scores"][n - 1]', 'T["scores"][-n]'),
        ("linear_backward(λ * dprojected", "linear_backward(dprojected"),
    ),
    *_of(PAGE, "prediction", "distill.prediction", ('T["logits"], t)', 'T["logits"], 1.5)')),
]


# ---------------------------------------------------------------------------------------------------------------- cases of our own
# What the audit's cases come to through whole models only, or among much else, by itself: the objectives of labels, numbers and masked
# words; attention scores of −100 and less; a student with more heads than its teacher; padding in each of its two ways. Each is the
# objective on drawn logits or traces, as a share of a larger batch, so that a mean over the share is not the batch's. Their judges:
# finite differences as for any case, and the loss written out in NumPy.

WHOLE = {"sentences": 9, "tokens": 20, "pairs": 50, "rows": 30, "row_pairs": 90, "masked": 11}  # of the batch of which 4 sentences are here


def _of_logits(name: str, objective: Objective, draw: Callable[[Draw], dict[str, np.ndarray]]) -> Case:
    """An objective on the drawn logits z of four sentences, or of four masked rows."""

    def forward(z, labels, z_T=None):
        ids = [np.zeros(1, np.int32)] * len(labels)
        batch = packed(ids, ids, labels=labels)
        masked = Masked(np.arange(len(labels)), labels, np.arange(1, len(labels) + 1))
        batch = replace(batch, masked=masked, totals=batch.totals._replace(**WHOLE))
        terms = objective(Trace(logits=z), batch, None if z_T is None else Trace(logits=z_T), {})
        return {"loss": sum(terms.losses.values())}, terms.dtrace.logits

    return Case(f"own.{name}", "", lambda d: Inputs(draw(d), {}), forward, lambda dy, dz: {"z": dy["loss"] * dz}, draws=3)


def _classes(draw: Draw) -> dict[str, np.ndarray]:
    return {"z": draw.normal(4, 5), "labels": draw.ids(5, 4)}


def _numbers(draw: Draw) -> dict[str, np.ndarray]:
    return {"z": draw.normal(4, 1), "labels": draw.normal(4), "z_T": draw.normal(4, 1)}


_LENGTHS = (1, 2, 2, 3)


def _of_spans(name: str, real: np.ndarray | None = None) -> tuple[Case, Callable[..., Any]]:
    """Fine-tuning by answers' first and last pieces in four sentences: packed, or in a rectangle of which `real` is no padding."""
    rows = [np.zeros(n, np.int32) for n in _LENGTHS]
    batch = packed(rows, rows) if real is None else padded(np.zeros((4, 3), np.int32), real)
    batch = replace(batch, totals=batch.totals._replace(**WHOLE))
    starts = np.concatenate([[0], np.cumsum(batch.lengths)])

    def draw(draw: Draw) -> Inputs:
        labels = np.array([[draw.integer(0, n - 1) for _ in range(2)] for n in _LENGTHS])
        return Inputs({"z": draw.normal(int(starts[-1]), 2), "labels": labels}, {})

    def forward(z, labels):
        terms = SupervisedSpans()(Trace(logits=z), replace(batch, labels=labels), None, {})
        return {"loss": sum(terms.losses.values())}, terms.dtrace.logits

    def loss(z, labels):
        total = 0.0
        for b, n in enumerate(_LENGTHS):
            for end in range(2):
                own = z[starts[b] : starts[b] + n, end]
                total = total - own[labels[b, end]] + np.log(np.exp(own).sum())
        return total / (2 * WHOLE["sentences"])

    return Case(f"own.{name}", "", draw, forward, lambda dy, dz: {"z": dy["loss"] * dz}, draws=3), loss


_SPANS = (
    _of_spans("supervised by spans"),
    _of_spans("supervised by spans, padded", np.arange(3) < np.array(_LENGTHS)[:, None]),
)


def _shares(z: np.ndarray) -> Any:
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def _entropy(z: np.ndarray, labels: np.ndarray) -> Any:
    return -np.log(_shares(z))[np.arange(4), labels].sum()


_REAL = np.arange(3) < np.array([2, 3, 1, 3])[:, None]
_ALL_REAL = np.ones((4, 3), bool)  # where no mask is needed, scores may be too low to be seen all the same
_SHAPE = {"num_hidden_layers": 1, "vocab_size": 5, "hidden_size": 12}
_SIX_HEADS, _TWO_HEADS = (Config(**_SHAPE, num_attention_heads=heads) for heads in (6, 2))
_WEIGHTS = {"embedding": 0.6, "hidden": 1.3, "attention": 0.7}


def _of_trace(padding: str, student: Config, real: np.ndarray = _REAL, target: str = "scores") -> Case:
    """The first step on a padded batch's drawn traces, of one layer."""
    recipe = Recipe(padding=padding, heads="average", projection="shared", projection_bias=True, attention_target=target)
    objective = Intermediate(student, _TWO_HEADS, recipe, _WEIGHTS)
    heads = student.num_attention_heads

    def draw(draw: Draw) -> Inputs:
        states = {name: draw.normal(12, 12) for name in ("E_S", "E_T", "H_S", "H_T", "W")}
        scale = 100 if target == "scores" else 1
        scores = {"A_S": draw.normal(4 * heads * 9, scale=scale), "A_T": draw.normal(4 * 2 * 9, scale=scale)}
        return Inputs({**states, "b": draw.normal(12), **scores}, {})

    def forward(E_S, E_T, H_S, H_T, W, b, A_S, A_T):
        batch = padded(np.zeros((4, 3), np.int32), real)
        batch = replace(batch, totals=batch.totals._replace(**WHOLE))
        maps = {"fit_dense.weight": W, "fit_dense.bias": b}
        terms = objective(Trace(hidden=[E_S, H_S], scores=[A_S]), batch, Trace(hidden=[E_T, H_T], scores=[A_T]), maps)
        return {"loss": sum(terms.losses.values())}, terms

    def backward(dy, terms):
        (dE, dH), (dA,), (dW, db) = terms.dtrace.hidden, terms.dtrace.scores, terms.dprojections.values()
        return {name: dy["loss"] * d for name, d in {"E_S": dE, "H_S": dH, "W": dW, "b": db, "A_S": dA}.items()}

    name = (
        f"own.intermediate, padding {padding}, {heads} heads" + ", all real" * bool(real.all()) + ", probabilities" * (target != "scores")
    )
    return Case(name, "", draw, forward, backward, draws=3)


def _weighted(embedding: Any, hidden: Any, attention: Any) -> Any:
    return _WEIGHTS["embedding"] * embedding + _WEIGHTS["hidden"] * hidden + _WEIGHTS["attention"] * attention


def _in_two(A: np.ndarray) -> np.ndarray:
    """Of six heads the means of 1 to 3 and of 4 to 6, which are held against the teacher's first and second; of two heads themselves."""
    first, second = np.split(A, 2, axis=1)
    return np.stack([first.mean(1), second.mean(1)], axis=1)


def _excluded(E_S, E_T, H_S, H_T, W, b, A_S, A_T) -> Any:
    """What is real, and pairs of it."""
    square = lambda x, y: ((x @ W.T + b - y)[_REAL.reshape(-1)] ** 2).sum() / (WHOLE["tokens"] * 12)
    pairs = _REAL[:, None, :, None] & _REAL[:, None, None, :]
    S, T = _in_two(A_S.reshape(4, -1, 3, 3)), A_T.reshape(4, 2, 3, 3)
    return _weighted(square(E_S, E_T), square(H_S, H_T), ((S - T) ** 2 * pairs).sum() / (2 * WHOLE["pairs"]))


def _counted(E_S, E_T, H_S, H_T, W, b, A_S, A_T, real=_REAL) -> Any:
    """Everything; scores that are not seen as 0."""
    square = lambda x, y: ((x @ W.T + b - y) ** 2).sum() / (WHOLE["rows"] * 12)
    seen = lambda A: np.where(real[:, None, None, :] & (A > -100), A, 0)
    S, T = _in_two(seen(A_S.reshape(4, -1, 3, 3))), seen(A_T.reshape(4, 2, 3, 3))
    return _weighted(square(E_S, E_T), square(H_S, H_T), ((S - T) ** 2).sum() / (2 * WHOLE["row_pairs"]))


def _attended(E_S, E_T, H_S, H_T, W, b, A_S, A_T, counted: bool) -> Any:
    """The scores' losses with softmax(A) in the place of A: of real queries, or of all."""

    def softmax(A):
        e = np.exp(A) * _REAL[:, None, None, :]
        return e / e.sum(-1, keepdims=True)

    rest = (_counted if counted else _excluded)(E_S, E_T, H_S, H_T, W, b, 0 * A_S, 0 * A_T)
    S, T = _in_two(softmax(A_S.reshape(4, -1, 3, 3))), softmax(A_T.reshape(4, 2, 3, 3))
    queries = 1 if counted else _REAL[:, None, :, None]
    return rest + _weighted(0, 0, ((S - T) ** 2 * queries).sum() / (2 * WHOLE["row_pairs" if counted else "pairs"]))


# A step in shares: its gradient is asked of all parameters at once. A step with other words comes before, whose gradient must be gone.

_LEARNED = Config(
    **{**_SHAPE, "vocab_size": 9, "num_hidden_layers": 2}, num_attention_heads=2, intermediate_size=7, max_position_embeddings=4,
    head="classifier", layer_norm_eps=1e-2, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2,
)  # fmt: skip
_TEACHER = Bert.new(replace(_LEARNED, hidden_size=14, num_hidden_layers=3, initializer_range=0.5), 1, np.float64)


def _words(low: int) -> Batch:
    """Six sentences of four of the words, a label for each, and in each but the last its first word masked."""
    ids = [low + (np.arange(n) * 3 + n) % 4 for n in (1, 2, 2, 3, 3, 4)]
    batch = packed(ids, [np.zeros_like(row) for row in ids], labels=np.array([0, 1, 1, 0, 1, 0]))
    masked = Masked(batch.cls_rows[:5], np.arange(5), np.array([1, 2, 3, 4, 5, 5]))
    return replace(batch, masked=masked, totals=batch.totals._replace(masked=5))


def _learner(objective: Objective, config: Config, flat: np.ndarray, workers: Workers) -> Learner:
    learner = Learner(Bert.new(config, 0, np.float64), objective, workers, Running(_TEACHER) if objective.teacher_view else NOBODY)
    learner.student.parameters.flat[...] = flat
    return learner


def _of_step(name: str, objective: Objective, config: Config = _LEARNED) -> tuple[Case, Callable[..., Any]]:
    """A step of two threads with three shares each, and its loss as that of the whole batch."""
    size = _learner(objective, config, np.zeros(1), Workers(1)).student.parameters.flat.size

    def forward(flat):
        rows, cut._ROWS = cut._ROWS, 2
        try:
            learner = _learner(objective, config, flat, Workers(2))
            with learner.workers:
                learner.gradients(_words(5), 1)
                losses, gradient = learner.gradients(_words(1), 2)
        finally:
            cut._ROWS = rows
        return {"loss": sum(losses.values())}, gradient.flat

    def loss(flat):
        learner, batch = _learner(objective, config, flat, Workers(1)), _words(1)
        view = objective.teacher_view
        teacher = None if view is None else _TEACHER.forward_batch(batch, **view.arguments(batch))[0]
        trace, _ = learner.student.forward_batch(batch, key(0, 2), **objective.student_view.arguments(batch))
        return sum(objective(trace, batch, teacher, learner.student.parameters).losses.values())

    draw = lambda source: Inputs({"flat": source.normal(size)}, {})
    return Case(f"own.step, {name}", "", draw, forward, lambda dy, gradient: {"flat": dy["loss"] * gradient}, draws=2), loss


_STEPS = (
    _of_step("intermediate", Intermediate(_LEARNED, _TEACHER.config)),
    _of_step("classes", Supervised()),
    _of_step("words", MaskedLM(), replace(_LEARNED, head="mlm", pooler=False)),
)

_LABELS = Recipe(regression_target="labels")
_MSE = lambda z, target: ((z[:, 0] - target) ** 2).sum() / WHOLE["sentences"]

def _words_alone() -> WithWords:
    """Of general distillation's objective the prediction of masked words alone."""
    nothing = dict.fromkeys(("embedding", "hidden", "attention"), 0.0)
    config = Config(**_SHAPE, num_attention_heads=2)
    return WithWords(config, config, Recipe(general_prediction=0.7, temperature=2.0), nothing)


OWN_CASES = (
    _of_logits("supervised by classes", Supervised(), _classes),
    _of_logits("supervised by numbers", Supervised(regression=True), _numbers),
    _of_logits("regression to the teacher", Prediction(regression=True), _numbers),
    _of_logits("regression to the labels", Prediction(_LABELS, regression=True), _numbers),
    _of_logits("mlm", MaskedLM(), _classes),
    _of_logits("prediction of words", _words_alone(), lambda draw: {**_classes(draw), "z_T": draw.normal(4, 5)}),
    _of_logits("supervised by words", SupervisedTokens(), _classes),
    *(case for case, _ in _SPANS),
    *(_of_trace(padding, student) for padding in ("exclude", "count") for student in (_TWO_HEADS, _SIX_HEADS)),
    _of_trace("count", _TWO_HEADS, _ALL_REAL),
    _of_trace("exclude", _SIX_HEADS, target="probabilities"),
    _of_trace("count", _TWO_HEADS, target="probabilities"),
    *(case for case, _ in _STEPS),
)
FORMULAS: dict[str, Callable[..., Any]] = {
    "own.supervised by classes": lambda z, labels: _entropy(z, labels) / WHOLE["sentences"],
    "own.supervised by numbers": lambda z, labels, z_T: _MSE(z, labels),
    "own.regression to the teacher": lambda z, labels, z_T: _MSE(z, z_T[:, 0]),
    "own.regression to the labels": lambda z, labels, z_T: _MSE(z, labels),
    "own.prediction of words": lambda z, labels, z_T: -0.7 * (_shares(z_T / 2) * np.log(_shares(z / 2))).sum() / WHOLE["masked"],
    "own.mlm": lambda z, labels: _entropy(z, labels) / WHOLE["masked"],
    "own.supervised by words": lambda z, labels: _entropy(z, labels) / WHOLE["masked"],
    **{case.name: loss for case, loss in _SPANS},
    **{f"own.intermediate, padding exclude, {heads} heads": _excluded for heads in (2, 6)},
    **{f"own.intermediate, padding count, {heads} heads": _counted for heads in (2, 6)},
    "own.intermediate, padding count, 2 heads, all real": partial(_counted, real=_ALL_REAL),
    "own.intermediate, padding exclude, 6 heads, probabilities": partial(_attended, counted=False),
    "own.intermediate, padding count, 2 heads, probabilities": partial(_attended, counted=True),
    **{case.name: loss for case, loss in _STEPS},
}


# ---------------------------------------------------------------------------------------------------------------- judging


class NoLongerApplies(Exception):
    pass


@contextlib.contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Within the block the function does what the mutant says."""
    module, path = _module(mutant.file)
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise NoLongerApplies(f"{mutant.file}: {mutant.old!r} occurs {source.count(mutant.old)} times, not once")
    code = compile(source.replace(mutant.old, mutant.new), str(path), "exec", dont_inherit=True)
    function: Any = module
    for name in mutant.function.split("."):
        code = next(const for const in code.co_consts if isinstance(const, CodeType) and const.co_name == name)
        function = inspect.unwrap(getattr(function, name))
    original = function.__code__
    if code.co_code == original.co_code and code.co_consts == original.co_consts and code.co_names == original.co_names:
        raise NoLongerApplies(f"{mutant.file}: {mutant.old!r} is not in {mutant.function}")
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = original


def _module(file: str) -> tuple[ModuleType, Path]:
    name = file.removesuffix(".py").replace("/", ".")
    module = importlib.import_module(f"minitinybert_{name}" if file == PAGE else f"minitinybert.{name}")
    return module, Path(str(module.__file__))


TOLERANCES = {**audit.TOLERANCES, "formula": audit.TOLERANCES["PyTorch"]}


def killers(cases: list[Case], all_judges: bool = True, asked: Iterable[str] = ()) -> list[str]:
    """The judges that notice, on the audit's own draws, or the first that does; with an error's name where a call raises it.
    asked: by name, the judges that are; without it all."""
    found = []
    for judge, deviations in JUDGES.items():
        if asked and judge not in asked:
            continue
        tolerance = TOLERANCES[judge]
        try:
            if any(deviation.error > tolerance for case in cases for deviation in deviations(case)):
                found.append(judge)
        except (ValueError, IndexError, TypeError, AttributeError, FloatingPointError) as error:
            found.append(f"{judge} ({type(error).__name__})")
        if found and not all_judges:
            break
    return found


def _by_differences(case: Case) -> Iterator[audit.Deviation]:
    for number, draw in enumerate(case.sources(0)):
        yield from audit.check_vjp(case, case.draw(draw).cast(np.float64), draw, {}, apart=number < case.apart)


def _by_twin(case: Case) -> Iterator[audit.Deviation]:
    twin, _ = audit.reference_twin()
    for draw in case.sources(0) if twin is not None and case.name not in FORMULAS else ():
        yield from audit.check_twin(case, case.draw(draw).cast(np.float64), draw, twin)


def _by_page(case: Case) -> Iterator[audit.Deviation]:
    page, _ = audit.reference_page()
    for draw in case.sources(0) if page is not None and case.name not in (*FORMULAS, *page.SILENT) else ():
        yield from audit.check_page(case, case.draw(draw).cast(np.float64), draw, page)


def _by_store(case: Case) -> Iterator[audit.Deviation]:
    for example in audit.stored(case.name) if case.name not in FORMULAS else ():
        yield from audit.check_stored(case, example)


def _by_formula(case: Case) -> Iterator[audit.Deviation]:
    for draw in case.sources(0) if case.name in FORMULAS else ():
        inputs = case.draw(draw).cast(np.float64)
        yield audit.compare("loss", case.run(inputs)[0]["loss"], FORMULAS[case.name](**inputs.arrays))


JUDGES = {  # the slowest last
    "stored": _by_store,
    "the page": _by_page,
    "PyTorch": _by_twin,
    "formula": _by_formula,
    "finite differences": _by_differences,
}


def judge(mutant: Mutant, all_judges: bool = True) -> list[str]:
    """Who kills it; [] where it lives. NoLongerApplies where the source has moved on."""
    with applied(mutant):
        cases = [case for case in (*CASES, *MODEL_CASES, *OWN_CASES) if case.name.startswith(mutant.cases)]
        return killers(cases, all_judges, ["the page"] if mutant.file == PAGE else ())


def main(part: str = "") -> int:
    rows, bad = [], 0
    for mutant in (mutant for mutant in MUTANTS if part in mutant.file):
        try:
            verdict = ", ".join(judge(mutant)) or "LIVES"
        except NoLongerApplies as error:
            verdict = f"NO LONGER APPLIES: {error}"
        bad += verdict.isupper() or verdict.startswith("NO LONGER")
        rows.append([f"{mutant.file}:{mutant.function}", _short(mutant.old), _short(mutant.new), verdict])
    print(tabulate(rows, ["function", "was", "becomes", "killed by"], disable_numparse=True))
    print(f"{len(rows)} mutants, {bad} not killed")
    return 1 if bad or not rows else 0


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 48 else line[:47] + "…"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
