"""Mutants: every backward made wrong by hand, one place at a time, and which of the audit's judges notices.

    python tests/mutants.py [part of a file's name]        prints the table; exit 1 where a mutant lives or no longer applies

A mutant is a replacement in a source file that must match exactly once. The file is compiled in memory with it, and the code of the
one function is exchanged while the audit's cases run; nothing is written. Where no case of the audit goes, there are some here.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from minitinybert import audit
from minitinybert.audit import CASES, MODEL_CASES, Case, Draw, Inputs
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import MaskedLM, Objective, Supervised
from minitinybert.distillation.recipes import Recipe
from minitinybert.engine.batch import Masked, packed, padded
from minitinybert.engine.random import generator
from minitinybert.model.config import Config
from minitinybert.model.trace import Trace

PACKAGE = Path(importlib.import_module("minitinybert").__file__).parent


class Mutant(NamedTuple):
    file: str  # below minitinybert/
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
        ("xp.matmul(rows, W, ", "xp.matmul(rows, -W, "),
        ("xp.matmul(rows, W, ", "xp.matmul(rows[:, ::-1], W, "),
        ("xp.matmul(rows.T, _rows(x), ", "xp.matmul(rows.T, 2 * _rows(x), "),
        ("xp.matmul(rows.T, _rows(x), ", "xp.matmul(rows.T, _rows(x)[:, ::-1], "),
        ("sum_rows(rows, db)", "sum_rows(rows / len(rows), db)"),
        ("sum_rows(rows, db)", "sum_rows(-rows, db)"),
    ),
    *_of(
        "ops/embedding.py",
        "backward",
        "ops.embedding",
        ("add_rows(table, ids.reshape(-1), dy.reshape(-1, d))", "add_rows(table, ids.reshape(-1), -dy.reshape(-1, d))"),
        ("add_rows(table, ids.reshape(-1), dy.reshape(-1, d))", "table[ids.reshape(-1)] += dy.reshape(-1, d)"),
        ("zip(out, cache[:3], strict=True)", "zip(out[:2], cache[:2], strict=True)"),
        ("zip(out, cache[:3], strict=True)", "zip(out[1:], cache[1:3], strict=True)"),
    ),
    *_of(
        "ops/embed_norm.py",
        "backward",
        "ops.embed_norm",
        ("dropout.backward(added(dy, *also), cache.dropout)", "added(dy, *also)"),
        ("dropout.backward(added(dy, *also), cache.dropout)", "-dropout.backward(added(dy, *also), cache.dropout)"),
        ("cache.norm, out)", "cache.norm, out)[::-1]"),
    ),
    *_of(
        "ops/layer_norm.py",
        "backward",
        "ops.layer_norm",
        ("product = xp.multiply(rows_dy[rows], x_hat,", "product = xp.multiply(rows_dy[rows], 1,"),
        ("dgain += product.sum(axis=0)", "dgain += (product * gain).sum(axis=0)"),
        ("dgain += product.sum(axis=0)", "dgain += -product.sum(axis=0)"),
        ("xp.sum(rows_dy, axis=0, out=dbias)", "xp.sum(-rows_dy, axis=0, out=dbias)"),
        ("g = xp.multiply(rows_dy[rows], gain,", "g = xp.multiply(rows_dy[rows], 1,"),
        ("g -= g.mean(axis=-1, keepdims=True)", "pass"),
        ("g -= g.mean(axis=-1, keepdims=True)", "g -= g.sum(axis=-1, keepdims=True)"),
        ("g -= xp.multiply(x_hat, projection, out=product)", "pass"),
        ("g -= xp.multiply(x_hat, projection, out=product)", "g += xp.multiply(x_hat, projection, out=product)"),
        ("g *= inverse_std", "pass"),
        ("g *= inverse_std", "g *= 0"),
    ),
    *_of(
        "ops/add_norm.py",
        "backward",
        "ops.add_norm",
        ("da = dropout.backward(dx, cache.dropout)", "da = dx"),
        (".sum(da, axis=0, out=db), dx", ".sum(dx, axis=0, out=db), dx"),
        (".sum(da, axis=0, out=db), dx", ".sum(da, axis=0, out=db), da"),
        ("return da,", "return -da,"),
        ("dx, dgain, dbias\n", "dx, dbias, dgain\n"),
    ),
    *_of("ops/add_norm.py", "backward", "bert.", ("added(dy, *also)", "dy")),  # only the encoder hands over several terms
    *_of(
        "ops/gelu.py",
        "backward",
        "ops.gelu",
        ("xp.multiply(dy, cache.slope,", "xp.multiply(dy, 1,"),
        ("xp.multiply(dy, cache.slope,", "xp.multiply(-dy, cache.slope,"),
        ("xp.multiply(dy, cache.slope,", "xp.multiply(dy, cache.slope > 0,"),
        ("db = xp.sum(dx.", "db = xp.sum(dy."),
    ),
    *_of(
        "ops/gelu.py",
        "_exact",
        "ops.gelu",
        ("slope += density", "slope -= density"),
        ("slope += density", "pass"),
        ("density *= v\n", "pass\n"),
        ("1 / math.sqrt(2 * math.pi)", "1 / math.sqrt(math.pi)"),
        ("density *= -0.5", "density *= -1"),
    ),
    *_of(
        "ops/gelu.py",
        "_tanh",
        "ops.gelu",
        ("0.5 * (1 + t) + 0.5 * v * (1 - t * t)", "0.5 * (1 + t) - 0.5 * v * (1 - t * t)"),
        ("* (1 - t * t) *", "* (1 - t) *"),
        ("(1 + 3 * cubic * square)", "(1 + cubic * square)"),
        ("(root * (1 + 3 * cubic * square))", "(1 + 3 * cubic * square)"),
    ),
    *_of(
        "ops/softmax.py",
        "backward",
        "ops.softmax",
        ("xp.subtract(dp_rows[rows], along,", "xp.add(dp_rows[rows], along,"),
        ("xp.subtract(dp_rows[rows], along,", "xp.subtract(dp_rows[rows], 0,"),
        ("xp.subtract(dp_rows[rows], along,", "xp.subtract(dp_rows[rows], along / p.shape[-1],"),
        ('"ti,ti->t", dp_rows[rows], p_rows[rows]', '"ti,ti->t", dp_rows[rows], dp_rows[rows]'),
        ("ds_rows[rows] *= p_rows[rows]", "pass"),
        ("dp = dropout.backward(dy, cache.dropout)", "dp = dy"),
        ("return ds", "return 0 * ds"),
    ),
    *_of(  # the forward's own line: difference quotients follow it, PyTorch and the stored answers do not
        "ops/dropout.py",
        "backward",
        "ops.dropout",
        (".multiply(dy, cache.keep,", ".multiply(dy, ~cache.keep,"),
        ("dx *= cache.scale", "pass"),
        ("dx *= cache.scale", "dx *= -cache.scale"),
        ("dx *= cache.scale", "dx /= cache.scale"),
    ),
    *_of(
        "ops/attention.py",
        "backward",
        "ops.attention",
        ("softmax.again(w).swapaxes(-1, -2), dc", "w.p.swapaxes(-1, -2), dc"),
        ("softmax.again(w).swapaxes(-1, -2), dc", "softmax.again(w).swapaxes(-1, -2), -dc"),
        ("xp.matmul(dc, v.swapaxes(-1, -2),", "xp.matmul(dc, k.swapaxes(-1, -2),"),
        ("dA = softmax.backward(", "dA = w.p * ("),
        ("dA += dscores[start : start + dA.size].reshape(dA.shape)", "pass"),
        ("dA += dscores[start : start + dA.size].reshape(dA.shape)", "dA -= dscores[start : start + dA.size].reshape(dA.shape)"),
        ("dA += dscores[start : start + dA.size].reshape(dA.shape)", "dA = dscores[start : start + dA.size].reshape(dA.shape) + 0"),
        ("start += dA.size", "pass"),
        ("dA *= 1 / math.sqrt(d // heads)", "pass"),
        ("dA *= 1 / math.sqrt(d // heads)", "dA *= 1 / math.sqrt(d)"),
        ("dA *= 1 / math.sqrt(d // heads)", "dA *= -1 / math.sqrt(d // heads)"),
        ("xp.matmul(dA, k,", "xp.matmul(-dA, k,"),
        ("xp.matmul(dA, k,", "xp.matmul(dA, v,"),
        ("xp.matmul(dA.swapaxes(-1, -2), q_run,", "xp.matmul(-dA.swapaxes(-1, -2), q_run,"),
        ("xp.matmul(dA.swapaxes(-1, -2), q_run,", "xp.matmul(dA.swapaxes(-1, -2), dc,"),
    ),
    *_of(
        "ops/feed_forward.py",
        "backward",
        "ops.feed_forward",
        ("linear.backward(dy, cache.down", "linear.backward(2 * dy, cache.down"),
        ("gelu.backward(da, cache.activation, db1)", "gelu.backward(-da, cache.activation, db1)"),
        ("linear.backward(du, cache.up", "linear.backward(-du, cache.up"),
        ("return dx, dW1, db1, dW2", "return dx, dW1, 0 * db1, dW2"),
        ("return dx, dW1, db1, dW2", "return dx, dW1, db1, -dW2"),
    ),
    *_of(
        "losses/mse.py",
        "backward",
        "losses.mse",
        ("2 * dloss / cache.n,", "dloss / cache.n,"),
        ("2 * dloss / cache.n,", "-2 * dloss / cache.n,"),
        ("2 * dloss / cache.n,", "2 * dloss,"),
        ("2 * dloss / cache.n,", "2 / cache.n,"),
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
            ("linear.backward(dprojected, cache.projection, out)", "linear.backward(dprojected / 2, cache.projection, out)"),
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
        ("add_norm.backward(dz[0], cache.output_norm", "add_norm.backward(2 * dz[0], cache.output_norm"),
        ("(dy_round,)", "()"),
        ("(dy_round,)", "(-dy_round,)"),
        ("dz[1:])", "())"),
        ("feed_forward.backward(du, ", "feed_forward.backward(-du, "),
        ("linear.backward(da, cache.output", "linear.backward(-da, cache.output"),
        ("return dx, dx_round", "return (dx,)"),
        ("return dx, dx_round", "return dx, dy"),
    ),
    *_of(  # where only the [CLS] rows of the last layer are looked at
        "model/encoder.py",
        "backward",
        "distill.prediction",
        ("dx_rows + dx_round", "dx_rows"),
        ("dx_rows + dx_round", "dx_rows - dx_round"),
        ("dx_rows + dx_round", "dx_round"),
        ("dx_rows + dx_round", "dx_round - dx_rows"),
    ),
    *_of(
        "model/encoder.py",
        "_project_backward",
        "bert.",
        ("attention.backward(dcontext, cache.attention, dscores, (dqkv", "attention.backward(dcontext, cache.attention, None, (dqkv"),
        ("(dqkv[:, :d], dqkv[:, d:])", "(dqkv[:, 2 * d :], dqkv[:, : 2 * d])"),
    ),
    *_of(
        "model/encoder.py",
        "_project_backward",
        "distill.prediction",
        ("return dx, dx_rows", "return dx, None"),
        ("return dx, dx_rows", "return dx_rows, dx"),
        ("linear.backward(dkv, ", "linear.backward(-dkv, "),
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
        ("terms = *terms, dhidden[l + 1]", "terms = *terms, -dhidden[l + 1]"),
        ("in (dhidden[0], ", "in ("),
        ("dhidden[0], dtrace.embedding)", "dhidden[0],)"),
        ("_embedding_norm(grads), terms[1:])", "_embedding_norm(grads), terms[2:])"),
        ("flat = None if dscores[l] is None else", "flat = None if True else"),
        ("flat = None if dscores[l] is None else dscores[l]", "flat = None if dscores[l] is None else -dscores[l]"),
        ("= (self._heads_backward(cache, dtrace, cls_only, grads),)", "= (0 * self._heads_backward(cache, dtrace, cls_only, grads),)"),
        ("embed_norm.backward(terms[0], ", "embed_norm.backward(-terms[0], "),
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
    *_of("model/bert.py", "_embedding_norm", "bert.", ('"embeddings.LayerNorm.weight"], p["', '"embeddings.LayerNorm.bias"], p["')),
    *_of("engine/memory.py", "added", "bert.", ("np.add(x,", "np.subtract(x,"), ("total += term", "total -= term")),
    *_of(
        "model/heads.py",
        "classify_backward",
        "bert.classifier",
        ("dkept = dropout.backward(dkept, cache.dropout)", "pass"),
        ("dkept * (cache.pooled > 0) if cache.relu else dkept", "dkept"),
        ("dkept + dpooled", "dkept - dpooled"),
        ("dkept + dpooled", "dkept"),
        ("through_tanh(total, cache.pooled)", "total"),
    ),
    *_of(
        "model/heads.py",
        "through_tanh",
        "bert.classifier",
        ("(1 - y * y)", "(1 - y)"),
        ("(1 - y * y)", "(1 + y * y)"),
        ("dy * (1", "(1"),
    ),
    *_of(
        "model/heads.py",
        "predict_words_backward",
        "bert.mlm",
        ("gelu.backward(da, cache.gelu, db)", "gelu.backward(-da, cache.gelu, db)"),
        ("linear.backward(du, cache.transform", "linear.backward(-du, cache.transform"),
        ("dx += drows", "dx -= drows"),
        ("array_module(dx).add.at(dx, cache.rows, drows)", "dx[cache.rows] += drows"),
        ("array_module(dx).add.at(dx, cache.rows, drows)", "pass"),
    ),
    *_of(  # what a batch carries through the two steps: losses, their counts, and the gradients handed to the encoder
        "distillation/distill.py",
        "Intermediate.__call__",
        "distill.intermediate",
        ("teacher.hidden[n], batch", "teacher.hidden[m], batch"),
        ("target = self._target(teacher.scores[n], batch)", "target = self._target(teacher.scores[m], batch)"),
        ("dtrace, sums(dprojections))", "dtrace, {})"),
    ),
    *_of(
        "distillation/distill.py",
        "Intermediate._hidden",
        "distill.intermediate",
        ("loss_of.backward(self.weights[term], cache)", "loss_of.backward(1.0, cache)"),
        ('("embedding", embedding) if m == 0 else ("hidden", hidden)', '("hidden", hidden)'),
        ("rows * H_T.shape[-1])", "rows * H_S.shape[-1])"),
        ("rows * H_T.shape[-1])", "rows)"),
        ('dprojections[self.names[m] + ".weight"].append(dW)', 'dprojections[self.names[m] + ".weight"] = [dW]'),
        ('dprojections[self.names[m] + ".bias"].append(db)', 'dprojections[self.names[m] + ".bias"] = [db]'),
    ),
    *_of(
        "distillation/distill.py",
        "Intermediate._target",
        "distill.intermediate",
        ("self.heads.pairs * (batch", "(batch"),
        ('self.weights["attention"], count', "1.0, count"),
    ),
    *_of(
        "distillation/distill.py",
        "Intermediate.attend",
        "distill.intermediate",
        ("target=target(n))", "target=target(m))"),
        ("(teacher.scores[n], batch)  # type: ignore[union-attr", "(-teacher.scores[n], batch)  # type: ignore[union-attr"),
        ("if not self.heads.same:", "if False:"),
    ),
    *_of(  # the audit does not draw padding in each of its ways
        "distillation/distill.py",
        "Intermediate._hidden",
        "own.intermediate",
        ("mask, rows = None, batch.totals.rows", "mask, rows = None, rows"),
        ("mask, rows = None, batch.totals.rows", "rows = batch.totals.rows"),
        ('self.recipe.padding == "count":\n            mask', "False:\n            mask"),
        ('self.recipe.padding == "count":\n            mask', "True:\n            mask"),
    ),
    *_of(  # nor scores that are so low
        "distillation/distill.py",
        "Intermediate._target",
        "own.intermediate",
        ("(batch.totals.row_pairs if counts else batch.totals.pairs)", "batch.totals.pairs"),
        ("(batch.totals.row_pairs if counts else batch.totals.pairs)", "batch.totals.row_pairs"),
        ('weights["attention"], count, counts)', 'weights["attention"], count, not counts)'),
    ),
    *_of(
        "losses/attention.py",
        "compare",
        "distill.intermediate",
        ("heads.average(A_S), heads.average(A_T), target, keys", "heads.average(A_T), heads.average(A_S), target, keys"),
    ),
    *_of(
        "losses/attention.py",
        "compare",
        "own.intermediate",
        ("if attention_mask is None and heads.same and", "if heads.same and"),
        ("A_S, seen_S = seen(A_S, keys)", "_, seen_S = seen(A_S, keys)"),
        ("A_T, _ = seen(A_T, keys)", "pass"),
        ("keys & keys.swapaxes(-1, -2))", "keys)"),
        ("keys & keys.swapaxes(-1, -2))", "None)"),
        ("multiply(heads.spread(dA_seen), seen_S, out=dA)", "multiply(heads.spread(dA_seen), 1, out=dA)"),
        ("multiply(heads.spread(dA_seen), seen_S, out=dA)", "multiply(heads.spread(dA_seen), keys, out=dA)"),
    ),
    *_of(
        "losses/attention.py",
        "_loss_and_gradient",
        "distill.intermediate",
        ("backward(target.weight, cache)", "backward(1.0, cache)"),
        ("backward(target.weight, cache)", "backward(-target.weight, cache)"),
        ("forward(A_S, A_T, mask, target.entries)", "forward(A_T, A_S, mask, target.entries)"),
        ("forward(A_S, A_T, mask, target.entries)", "forward(A_S, A_T, mask)"),
    ),
    *_of(
        "ops/attention.py",
        "real_keys",
        "own.intermediate",
        ("mask[run.start : run.stop].reshape(", "(mask[run.start : run.stop] | True).reshape("),
    ),
    *_of(
        "losses/attention.py",
        "seen",
        "own.intermediate",
        ("keys & (A > UNSEEN)", "keys"),
        ("keys & (A > UNSEEN)", "A > UNSEEN"),
        ("return A * seen, seen", "return A, seen"),
    ),
    *_of(
        "losses/attention.py",
        "HeadPairs.average",
        "distill.intermediate",
        (".mean(axis=2)", ".sum(axis=2)"),
        ("heads // self.pairs, L, L).mean(axis=2)", "heads // self.pairs, L, L)[:, :, 0]"),
        ("self.pairs, heads // self.pairs, L, L).mean(axis=2)", "heads // self.pairs, self.pairs, L, L).mean(axis=1)"),
    ),
    *_of(  # no student of the audit has more heads than its teacher
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
        ("self.recipe.temperature, count", "1.0, count"),
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
        ("batch.masked.labels, batch.totals.masked)", "batch.masked.labels)"),
        ("batch.masked.labels, batch.totals.masked)", "batch.masked.labels, batch.totals.sentences)"),
        ('"mlm": entropy}, Trace(logits=cross_entropy.backward(1.0, c))', '"mlm": entropy}, Trace(logits=cross_entropy.backward(0.5, c))'),
    ),
]


# ---------------------------------------------------------------------------------------------------------------- cases of our own
# What the audit's cases do not reach: the objectives of labels, numbers and masked words; attention scores of −100 and less; a student
# with more heads than its teacher; and padding in each of its two ways, of which the audit draws one or the other. Each is the objective
# on drawn logits or traces, as a share of a larger batch, so that a mean over the share is not the batch's. Their judges: finite
# differences as for any case, and the loss written out in NumPy.

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


def _entropy(z: np.ndarray, labels: np.ndarray) -> Any:
    return -np.log(np.exp(z) / np.exp(z).sum(1, keepdims=True))[np.arange(4), labels].sum()


_REAL = np.arange(3) < np.array([2, 3, 1, 3])[:, None]
_SHAPE = {"num_hidden_layers": 1, "vocab_size": 5, "hidden_size": 12}
_SIX_HEADS, _TWO_HEADS = (Config(**_SHAPE, num_attention_heads=heads) for heads in (6, 2))


def _of_trace(padding: str, student: Config) -> Case:
    """The first step on a padded batch's drawn traces, of one layer."""
    recipe = Recipe(padding=padding, heads="average", projection="shared", projection_bias=True)
    objective = Intermediate(student, _TWO_HEADS, recipe)
    heads = student.num_attention_heads

    def draw(draw: Draw) -> Inputs:
        states = {name: draw.normal(12, 12) for name in ("E_S", "E_T", "H_S", "H_T", "W")}
        scores = {"A_S": draw.normal(4 * heads * 9, scale=100), "A_T": draw.normal(4 * 2 * 9, scale=100)}
        return Inputs({**states, "b": draw.normal(12), **scores}, {})

    def forward(E_S, E_T, H_S, H_T, W, b, A_S, A_T):
        batch = padded(np.zeros((4, 3), np.int32), _REAL)
        batch = replace(batch, totals=batch.totals._replace(**WHOLE))
        maps = {"fit_dense.weight": W, "fit_dense.bias": b}
        terms = objective(Trace(hidden=[E_S, H_S], scores=[A_S]), batch, Trace(hidden=[E_T, H_T], scores=[A_T]), maps)
        return {"loss": sum(terms.losses.values())}, terms

    def backward(dy, terms):
        (dE, dH), (dA,), (dW, db) = terms.dtrace.hidden, terms.dtrace.scores, terms.dprojections.values()
        return {name: dy["loss"] * d for name, d in {"E_S": dE, "H_S": dH, "W": dW, "b": db, "A_S": dA}.items()}

    return Case(f"own.intermediate, padding {padding}", "", draw, forward, backward, draws=3)


def _excluded(E_S, E_T, H_S, H_T, W, b, A_S, A_T) -> Any:
    """What is real, and pairs of it."""
    square = lambda x, y: ((x @ W.T + b - y)[_REAL.reshape(-1)] ** 2).sum() / (WHOLE["tokens"] * 12)
    pairs = _REAL[:, None, :, None] & _REAL[:, None, None, :]
    return square(E_S, E_T) + square(H_S, H_T) + ((A_S - A_T).reshape(4, 2, 3, 3) ** 2 * pairs).sum() / (2 * WHOLE["pairs"])


def _counted(E_S, E_T, H_S, H_T, W, b, A_S, A_T) -> Any:
    """Everything; scores that are not seen as 0, and the student's heads 1 to 3 against the teacher's first, 4 to 6 against its second."""
    square = lambda x, y: ((x @ W.T + b - y) ** 2).sum() / (WHOLE["rows"] * 12)
    seen = lambda A: np.where(_REAL[:, None, None, :] & (A > -100), A, 0)
    S, T = seen(A_S.reshape(4, 6, 3, 3)), seen(A_T.reshape(4, 2, 3, 3))
    scores = sum(((S[:, first : first + 3].mean(1) - T[:, head]) ** 2).sum() for head, first in enumerate((0, 3)))
    return square(E_S, E_T) + square(H_S, H_T) + scores / (2 * WHOLE["row_pairs"])


_LABELS = Recipe(regression_target="labels")
_MSE = lambda z, target: ((z[:, 0] - target) ** 2).sum() / WHOLE["sentences"]

OWN_CASES = (
    _of_logits("supervised by classes", Supervised(), _classes),
    _of_logits("supervised by numbers", Supervised(regression=True), _numbers),
    _of_logits("regression to the teacher", Prediction(regression=True), _numbers),
    _of_logits("regression to the labels", Prediction(_LABELS, regression=True), _numbers),
    _of_logits("mlm", MaskedLM(), _classes),
    _of_trace("exclude", _TWO_HEADS),
    _of_trace("count", _SIX_HEADS),
)
FORMULAS: dict[str, Callable[..., Any]] = {
    "own.supervised by classes": lambda z, labels: _entropy(z, labels) / WHOLE["sentences"],
    "own.supervised by numbers": lambda z, labels, z_T: _MSE(z, labels),
    "own.regression to the teacher": lambda z, labels, z_T: _MSE(z, z_T[:, 0]),
    "own.regression to the labels": lambda z, labels, z_T: _MSE(z, labels),
    "own.mlm": lambda z, labels: _entropy(z, labels) / WHOLE["masked"],
    "own.intermediate, padding exclude": _excluded,
    "own.intermediate, padding count": _counted,
}


# ---------------------------------------------------------------------------------------------------------------- judging


class NoLongerApplies(Exception):
    pass


@contextlib.contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Within the block the function does what the mutant says."""
    path = PACKAGE / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise NoLongerApplies(f"{mutant.file}: {mutant.old!r} occurs {source.count(mutant.old)} times, not once")
    code = compile(source.replace(mutant.old, mutant.new), str(path), "exec", dont_inherit=True)
    function = importlib.import_module(f"minitinybert.{mutant.file.removesuffix('.py').replace('/', '.')}")
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


TOLERANCES = {**audit.TOLERANCES, "formula": audit.TOLERANCES["PyTorch"]}


def killers(cases: list[Case], all_judges: bool = True) -> list[str]:
    """The judges that notice, on the audit's own draws, or the first that does; with an error's name where a call raises it."""
    judges = {"stored": _by_store, "PyTorch": _by_twin, "formula": _by_formula, "finite differences": _by_differences}  # the slowest last
    found = []
    for judge, deviations in judges.items():
        tolerance = TOLERANCES[judge]
        try:
            if any(deviation.error > tolerance for case in cases for deviation in deviations(case)):
                found.append(judge)
        except (ValueError, IndexError, TypeError, AttributeError, FloatingPointError) as error:
            found.append(f"{judge} ({type(error).__name__})")
        if found and not all_judges:
            break
    return found


def _draws(case: Case) -> Iterator[Draw]:
    for number in range(case.draws):
        yield Draw(generator(0, *case.name.encode(), number), large=number == 0)


def _by_differences(case: Case) -> Iterator[audit.Deviation]:
    for draw in _draws(case):
        yield from audit.check_vjp(case, case.draw(draw).cast(np.float64), draw, {})


def _by_twin(case: Case) -> Iterator[audit.Deviation]:
    twin, _ = audit.reference_twin()
    for draw in _draws(case) if twin is not None and case.name not in FORMULAS else ():
        yield from audit.check_twin(case, case.draw(draw).cast(np.float64), draw, twin)


def _by_store(case: Case) -> Iterator[audit.Deviation]:
    for example in audit.stored(case.name) if case.name not in FORMULAS else ():
        yield from audit.check_stored(case, example)


def _by_formula(case: Case) -> Iterator[audit.Deviation]:
    for draw in _draws(case) if case.name in FORMULAS else ():
        inputs = case.draw(draw).cast(np.float64)
        yield audit.compare("loss", case.run(inputs)[0]["loss"], FORMULAS[case.name](**inputs.arrays))


def judge(mutant: Mutant, all_judges: bool = True) -> list[str]:
    """Who kills it; [] where it lives. NoLongerApplies where the source has moved on."""
    with applied(mutant):
        return killers([case for case in (*CASES, *MODEL_CASES, *OWN_CASES) if case.name.startswith(mutant.cases)], all_judges)


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
