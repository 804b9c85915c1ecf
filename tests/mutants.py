"""Mutants: every backward made wrong by hand, one place at a time, and which of the audit's judges notices.

    python tests/mutants.py [part of a file's name]        prints the table; exit 1 where a mutant lives or no longer applies

A mutant is a replacement in a source file that must match exactly once. The file is compiled in memory with it, and the code of the
one function is exchanged while the audit's cases run; nothing is written.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from minitinybert import audit
from minitinybert.audit import CASES, MODEL_CASES, Case, Draw
from minitinybert.random import generator

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
        ("db = xp.sum(rows, axis=0, out=db)", "db = xp.mean(rows, axis=0, out=db)"),
        ("db = xp.sum(rows, axis=0, out=db)", "db = xp.sum(-rows, axis=0, out=db)"),
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
    *_of(  # only the encoder hands over several terms
        "ops/add_norm.py",
        "backward",
        "bert.",
        (".add(dy, term,", ".subtract(dy, term,"),
        ("for term in also:", "for term in ():"),
    ),
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
        "encoder.py",
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
        "encoder.py",
        "backward",
        "distill.prediction",
        ("dx_rows + dx_round", "dx_rows"),
        ("dx_rows + dx_round", "dx_rows - dx_round"),
        ("dx_rows + dx_round", "dx_round"),
        ("dx_rows + dx_round", "dx_round - dx_rows"),
    ),
    *_of(
        "encoder.py",
        "_project_backward",
        "bert.",
        ("attention.backward(dcontext, cache.attention, dscores, (dqkv", "attention.backward(dcontext, cache.attention, None, (dqkv"),
        ("(dqkv[:, :d], dqkv[:, d:])", "(dqkv[:, 2 * d :], dqkv[:, : 2 * d])"),
    ),
    *_of(
        "encoder.py",
        "_project_backward",
        "distill.prediction",
        ("return dx, dx_rows", "return dx, None"),
        ("return dx, dx_rows", "return dx_rows, dx"),
        ("linear.backward(dkv, ", "linear.backward(-dkv, "),
    ),
    *_of(
        "bert.py",
        "Bert.backward",
        "bert.",
        ("self.look_up_backward(self.backward_to_look_up(", "_ = (self.backward_to_look_up("),
        ("self.look_up_backward(self.backward_to_look_up(", "self.look_up_backward(2 * self.backward_to_look_up("),
        ("self.look_up_backward(self.backward_to_look_up(cache, dtrace,", "self.look_up_backward(self.backward_to_look_up(cache, Trace(),"),
    ),
    *_of(
        "bert.py",
        "Bert.backward_to_look_up",
        "bert.",
        ("for l in reversed(range(len(cache.layers)))", "for l in range(len(cache.layers))"),
        ("if dhidden[l + 1] is not None:", "if False:"),
        ("terms = *terms, dhidden[l + 1]", "terms = *terms, -dhidden[l + 1]"),
        ("(*rest, dhidden[0], ", "(*rest, "),
        ("dhidden[0], dtrace.embedding)", "dhidden[0])"),
        ("(*rest, dhidden[0],", "(dhidden[0],"),
        ("flat = None if dscores[l] is None else", "flat = None if True else"),
        ("flat = None if dscores[l] is None else dscores[l]", "flat = None if dscores[l] is None else -dscores[l]"),
        ("dx = self._heads_backward(", "dx = 0 * self._heads_backward("),
        ("dropout.backward(dx, cache.embedding.dropout)", "dx"),
    ),
    *_of(
        "bert.py",
        "Bert._heads_backward",
        "bert.classifier",
        ("cls_rows] += dfirst", "cls_rows] -= dfirst"),
        ("cls_rows] += dfirst", "cls_rows[::-1]] += dfirst"),
        ("classify_backward(dtrace.pooled, dtrace.logits,", "classify_backward(None, dtrace.logits,"),
        ("classify_backward(dtrace.pooled, dtrace.logits,", "classify_backward(dtrace.pooled, None,"),
    ),
    *_of(
        "bert.py",
        "Bert._heads_backward",
        "bert.mlm",
        ("predict_words_backward(dtrace.logits,", "predict_words_backward(-dtrace.logits,"),
    ),
    *_of(
        "bert.py", "Bert._heads_backward", "distill.prediction", ("return dfirst", "return -dfirst"), ("return dfirst", "return 0 * dfirst")
    ),
    *_of(
        "bert.py",
        "Bert.look_up_backward",
        "bert.",
        ("embedding.backward(de, ", "embedding.backward(-de, "),
        ("embedding.backward(de, ", "embedding.backward(de[::-1], "),
        ("embedding.backward(de, ", "embedding.backward(0 * de, "),
    ),
    *_of("bert.py", "tables", "bert.", ('("word", "position", "token_type")', '("word", "position", "position")')),
    *_of("bert.py", "_add", "bert.", ("total += part.reshape", "total -= part.reshape")),
    *_of(
        "heads.py",
        "classify_backward",
        "bert.classifier",
        ("dkept = dropout.backward(dkept, cache.dropout)", "pass"),
        ("dkept * (cache.pooled > 0) if cache.relu else dkept", "dkept"),
        ("dkept + dpooled", "dkept - dpooled"),
        ("dkept + dpooled", "dkept"),
        ("through_tanh(total, cache.pooled)", "total"),
    ),
    *_of(
        "heads.py",
        "through_tanh",
        "bert.classifier",
        ("(1 - y * y)", "(1 - y)"),
        ("(1 - y * y)", "(1 + y * y)"),
        ("dy * (1", "(1"),
    ),
    *_of(
        "heads.py",
        "predict_words_backward",
        "bert.mlm",
        ("gelu.backward(da, cache.gelu, db)", "gelu.backward(-da, cache.gelu, db)"),
        ("linear.backward(du, cache.transform", "linear.backward(-du, cache.transform"),
        ("dx += drows", "dx -= drows"),
        ("array_module(dx).add.at(dx, cache.rows, drows)", "dx[cache.rows] += drows"),
        ("array_module(dx).add.at(dx, cache.rows, drows)", "pass"),
    ),
]


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


def killers(cases: list[Case], all_judges: bool = True) -> list[str]:
    """The judges that notice, on the audit's own draws, or the first that does; with an error's name where a call raises it."""
    judges = {"finite differences": _by_differences, "PyTorch": _by_twin, "stored": _by_store}
    found = []
    for judge, deviations in judges.items():
        tolerance = audit.TOLERANCES[judge]
        try:
            if any(deviation.error > tolerance for case in cases for deviation in deviations(case)):
                found.append(judge)
        except (ValueError, IndexError, TypeError, FloatingPointError) as error:
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
    for draw in _draws(case) if twin is not None else ():
        yield from audit.check_twin(case, case.draw(draw).cast(np.float64), draw, twin)


def _by_store(case: Case) -> Iterator[audit.Deviation]:
    for example in audit.stored(case.name):
        yield from audit.check_stored(case, example)


def judge(mutant: Mutant, all_judges: bool = True) -> list[str]:
    """Who kills it; [] where it lives. NoLongerApplies where the source has moved on."""
    with applied(mutant):
        return killers([case for case in (*CASES, *MODEL_CASES) if case.name.startswith(mutant.cases)], all_judges)


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
