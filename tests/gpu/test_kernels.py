"""Every kernel against the NumPy operation that it replaces: in float64 on the same numbers, over drawn shapes, forward and backward.

Widths have odd ones, one, those that no four divides, and those that need a block a row; arrays have gaps or not. A case calls its
operations with what `up` makes of each array: here float64 on the host, there the kernel's own dtype on the device.
"""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.audit import assert_close, norm
from minitinybert.engine import memory, random
from minitinybert.engine.batch import Run, packed, padded_to
from minitinybert.engine.device import _kernel, array_module
from minitinybert.losses import attention as attention_loss
from minitinybert.losses import cross_entropy, mse, prediction
from minitinybert.model import encoder, heads
from minitinybert.model.parameters import ALIGN
from minitinybert.ops import add_norm, attention, dropout, embed_norm, gelu, layer_norm, linear
from minitinybert.training import optim

TABLE = pytest.importorskip("minitinybert.kernels.cuda.table", reason="needs CuPy", exc_type=ImportError).TABLE
pytestmark = pytest.mark.gpu

# A result is a few sums, in trees, of up to some thousand terms, of which each was rounded a few times; exp and erf err by two units
# at most, and an exponent of 10 makes ten of one. So 100 units of rounding, of the result's norm (or that of what it is the difference of).
TOLERANCE = {np.float32: 100 * 2.0**-24, np.float64: 100 * 2.0**-53}
ROWS, WIDTHS = st.sampled_from([1, 2, 3, 7, 33, 130]), st.sampled_from([1, 2, 3, 4, 5, 31, 50, 129, 312, 768, 1023, 1025, 1200])
RATES = st.sampled_from([0.0, 0.1, 0.5])


def _gelu(draw, rng):
    x, b = rng.standard_normal((draw(ROWS), draw(WIDTHS))), draw(st.booleans())
    bias, dy, kind = rng.standard_normal(x.shape[1]), rng.standard_normal(x.shape), draw(st.sampled_from(["none", "tanh"]))

    def results(up):
        y, cache = gelu.forward(up(3 * x), up(bias) if b else None, kind)
        out = up(0 * bias) if b and kind == "none" else None
        dx, db = gelu.backward(up(dy), cache, out)
        alone, _ = gelu.forward(up(x), None, kind, keep_cache=False)
        assert out is None or db is out
        return {"y": y, "dx": dx, "alone": alone, **({"db": db} if b else {})}

    return results


def _norm(draw, rng):
    rows, d, rate, terms = draw(ROWS), draw(WIDTHS), draw(RATES), draw(st.integers(0, 3))
    a, x, dy, *more = (rng.standard_normal((rows, d)) for _ in range(3 + terms))
    b, gain, bias = rng.standard_normal((3, d))
    if d == 2:
        x[:, 0] += 10  # not as large as the other: there x̂ jumps from (−1, 1) to (1, −1)
    keys = rng.integers(0, 2**64, rows, np.uint64) if draw(st.booleans()) else None

    def results(up):
        given = up(a), up(b), up(x), up(gain), up(bias), 1e-5, rate, keys if keys is None else up(keys)
        y, cache = add_norm.forward(*given)
        again, few = add_norm.forward(*given, keep_cache=False)
        assert few.norm.x_hat is None and few.norm.inverse_std is None
        out = tuple(up(0 * b) for _ in range(3)) if terms else None
        da, db, dx, dgain, dbias = add_norm.backward(up(dy), cache, out, tuple(up(m) for m in more))
        z, alone = layer_norm.forward(up(x).reshape(1, rows, d), up(gain), up(bias), 1e-5)
        dz, dgain_2, dbias_2 = layer_norm.backward(up(dy).reshape(1, rows, d), alone)
        narrow = {"da": da, "dx": dx, "dz": dz} if d > 2 else {}  # of one or two columns nothing is left but rounding
        kept = {} if cache.dropout.keep is None else {"keep": cache.dropout.keep}
        sums = {"db": db} if d > 2 else {}
        sums["dy"] = up(dy)  # of which the sums over rows are the differences
        alike = {"y": y, "again": again, "dγ": dgain, "dβ": dbias, "z": z, "dγ alone": dgain_2, "dβ alone": dbias_2}
        return {**alike, **narrow, **kept, **sums}

    return results


def _runs(draw, lengths):
    """Runs of sentences, and how many rows they have."""
    runs, start = [], 0
    for _ in range(draw(st.integers(1, 3))):
        runs.append(Run(start, draw(st.integers(1, 3)), draw(st.sampled_from(lengths))))
        start = runs[-1].stop
    return runs, start


def _real(rng, runs):
    return np.concatenate([np.arange(run.length) < rng.integers(1, run.length + 1) for run in runs for _ in range(run.n)])


def _attention(draw, rng):
    """Packed (several runs) and padded, with the last rows of a sentence not real; all ask, or the first token of each sentence."""
    runs, start = _runs(draw, [1, 2, 5, 31, 33, 70, 300])
    heads, d_k, rate = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 26, 64, 65])), draw(RATES)
    d, starts = heads * d_k, np.concatenate([run.start + run.length * np.arange(run.n) for run in runs])
    one = draw(st.booleans())
    qkv, bias = rng.standard_normal((start, 3 * d)), rng.standard_normal(3 * d) if draw(st.booleans()) else None
    asking = starts if one else np.arange(start)
    real = keys = dscores = None
    if draw(st.booleans()):
        real = _real(rng, runs)
    if draw(st.booleans()):
        keys = rng.integers(0, 2**64, len(asking), np.uint64)
    if draw(st.booleans()):
        dscores = rng.standard_normal(heads * sum(run.n * run.length * (1 if one else run.length) for run in runs))
    dcontext, given_starts = rng.standard_normal((len(asking), d)), draw(st.booleans())

    def results(up):
        opt = lambda a: None if a is None else up(a)
        whole, rows = up(qkv), up(asking)
        q, kv = whole[:, :d], whole[:, d:]  # rows with gaps between, as the encoder hands them over
        q = q[rows] if one else q
        places = opt(starts) if given_starts else None
        context, scores, cache = attention.forward(q, kv, runs, heads, opt(real), rate, opt(keys), places, opt(bias))
        dqkv = up((0 * qkv).ravel()).reshape(qkv.shape)
        out = None if one else (dqkv[:, :d], dqkv[:, d:])
        dq, dkv = attention.backward(up(dcontext), cache, opt(dscores), out)
        again = up(qkv)
        q = again[:, :d][rows] if one else again[:, :d]
        alone, *few = attention.forward(q, again[:, d:], runs, heads, opt(real), rate, opt(keys), places, opt(bias), False, False)
        assert few[0] is None and few[1].weights == []
        p = {f"p {i}": w.p for i, w in enumerate(cache.weights)}
        keep = {f"keep {i}": w.dropout.keep for i, w in enumerate(cache.weights) if w.dropout.keep is not None}
        return {"context": context, "alone": alone, "scores": scores, "dq": dq, "dkv": dkv, **p, **keep}

    return results


def _attend(draw, rng):
    """Scores compared as they are made: all, of real tokens, or those that are seen; the last with scores of exactly −100, too."""
    runs, start = _runs(draw, [1, 5, 31, 70, 140])
    heads, d_k, whole, counts = draw(st.integers(1, 3)), draw(st.sampled_from([1, 4, 26, 64])), draw(st.booleans()), draw(st.booleans())
    qkv, teacher = rng.standard_normal((start, 3 * heads * d_k)), rng.standard_normal(heads * sum(n * L * L for _, n, L in runs))
    if counts and d_k != 26:  # of integers, and √d_k a power of two, they are exact
        qkv, teacher = np.rint(qkv * {1: 12, 4: 8, 64: 4}[d_k]), np.rint(2 * teacher) * 50
    real = None if whole else _real(rng, runs)
    weight, entries, rate = draw(st.sampled_from([1.0, 0.3])), draw(st.sampled_from([7.0, 333.0])), draw(RATES)
    keys, starts = rng.integers(0, 2**64, start, np.uint64), np.concatenate([run.start + run.length * np.arange(run.n) for run in runs])

    def results(up):
        q, kv = up(qkv)[:, : heads * d_k], up(qkv)[:, heads * d_k :]
        given = runs, heads, None if real is None else up(real), rate, up(keys), up(starts), None
        target = attention_loss.Target(up(teacher), weight, entries, counts)
        context, compared, cache = attention_loss.attend(q, kv, *given, target)
        p = {f"p {i}": w.p for i, w in enumerate(cache.weights)}
        return {"context": context, "loss": compared.loss, "compared": compared.dscores, **p}

    return results


def _embed(draw, rng):
    rows, d, rate, terms = draw(ROWS), draw(WIDTHS), draw(RATES), draw(st.integers(0, 3))
    tables = [rng.standard_normal((V, d)) for V in (1100, 7, 2)]
    ids = [rng.integers(0, V, rows).astype(draw(st.sampled_from([np.int32, np.int64, np.uint8]))) for V in (255, 7, 2)]
    gain, bias = rng.standard_normal((2, d))
    dy, *more = rng.standard_normal((1 + terms, rows, d))
    if d == 2:
        tables[0][:, 0] += 10  # as in _norm
    keys = rng.integers(0, 2**64, rows, np.uint64) if draw(st.booleans()) else None

    def results(up):
        arguments = *map(up, ids), *map(up, tables), up(gain), up(bias), 1e-5, rate, keys if keys is None else up(keys)
        y, cache = embed_norm.forward(*arguments)
        out = tuple(up(0 * gain) for _ in range(2)) if terms else None
        de, dgain, dbias = embed_norm.backward(up(dy), cache, out, tuple(map(up, more)))
        alone, few = embed_norm.forward(*arguments, keep_cache=False)
        assert few.norm.x_hat is None
        kept = {} if cache.dropout.keep is None else {"keep": cache.dropout.keep}
        return {"y": y, "alone": alone, "dγ": dgain, "dβ": dbias, "dy": up(dy), **({"de": de} if d > 2 else {}), **kept}

    return results


def _dropout(draw, rng):
    x, dy = rng.standard_normal((2, draw(ROWS), draw(WIDTHS)))
    keys, rate = rng.integers(0, 2**64, len(x), np.uint64), draw(RATES)

    def results(up):
        y, cache = dropout.forward(up(x), rate, up(keys))
        return {"y": y, "dx": dropout.backward(up(dy), cache), **({} if cache.keep is None else {"keep": cache.keep})}

    return results


def _keys(draw, rng):
    rows, parent = rng.integers(0, 2**64, draw(ROWS), np.uint64), draw(st.integers(0, 2**64 - 1))
    sites = draw(st.integers(1, 14))
    return lambda up: {"site keys": random.site_keys(parent, up(rows), sites)}


def _tables(draw, rng):
    V, T, d = draw(st.sampled_from([1, 2, 9, 1024, 1025, 3000])), draw(st.sampled_from([1, 5, 257, 600])), draw(WIDTHS)
    W, rows = rng.standard_normal((V, d)), rng.standard_normal((T, d))
    ids = rng.integers(0, V, T).astype(draw(st.sampled_from([np.int32, np.int64])))
    ids[:: draw(st.sampled_from([1, 2, 3]))] = V // 2  # as often as padding is

    def results(up):
        table = up(W).copy()
        memory.add_rows(table, up(ids), up(rows))
        return {"table": table, "sum": memory.sum_rows(up(rows)), "out": memory.sum_rows(up(rows), up(rows[0]).copy()), "dy": up(rows)}

    return results


def _added(draw, rng):
    shape, count = draw(st.sampled_from([(), (3,), (7, 312)])), draw(st.integers(1, 17))
    terms = rng.standard_normal((count, *shape))
    return lambda up: {"sum": memory.added(*map(up, terms))}


def _mse(draw, rng):
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 17, 65]), min_size=1, max_size=4)))
    x, y = rng.standard_normal((2, *shape))
    mask = rng.random((*shape[:-1], draw(st.sampled_from([1, shape[-1]])))) < 0.7 if draw(st.booleans()) else None
    count, dloss = draw(st.sampled_from([None, 7, 33.5])), draw(st.sampled_from([1.0, -0.3]))
    if mask is not None:
        mask.flat[0] = True

    def results(up):
        loss, cache = mse.forward(up(x), up(y), mask if mask is None else up(mask), count)
        return {"loss": loss, "dx": mse.backward(dloss, cache), "again": mse.backward(2.5, cache)}

    return results


def _seen(draw, rng):
    n, h, L = (draw(st.sampled_from(sizes)) for sizes in ([1, 3], [1, 4], [1, 5, 33]))
    A, keys = 100 * rng.standard_normal((n, h, L, L)), rng.random((n, 1, 1, L)) < 0.7

    def results(up):
        scores, seen = attention_loss.seen(up(A), up(keys))
        return {"scores": scores, "seen": seen}

    return results


def _entropies(draw, rng):
    n, C, count = draw(ROWS), draw(WIDTHS), draw(st.sampled_from([None, 5, 33.5]))
    z, z_T = 3 * rng.standard_normal((2, n, C))
    labels = rng.integers(0, min(C, 128), n).astype(draw(st.sampled_from([np.int32, np.int64, np.uint8])))
    t = draw(st.sampled_from([1.0, 2.5]))

    def results(up):
        loss, cache = cross_entropy.forward(up(z), up(labels), count)
        soft, soft_cache = prediction.forward(up(z), up(z_T), t, count)
        gradients = {"dz": cross_entropy.backward(0.7, cache), "dz soft": prediction.backward(0.7, soft_cache)} if C > 1 else {}
        return {"loss": loss, "soft": soft, **gradients}

    return results


def _optimiser(draw, rng):
    lengths = draw(st.lists(st.sampled_from([1, 7, 64, 1000, 5000]), min_size=1, max_size=4))
    bounds = np.cumsum([0, *lengths])
    theta, g, m, v = rng.standard_normal((4, bounds[-1]))
    scale, max_norm, decay_end = draw(st.sampled_from([1e-3, 1.0, 50.0])), draw(st.sampled_from([0.5, 1.0])), draw(st.integers(-3, 70))
    preset, t = optim.PRESETS[draw(st.sampled_from(sorted(optim.PRESETS)))], draw(st.integers(1, 9))

    def results(up):
        flat = up(g * scale).copy()
        factor = optim.norm_factor(flat, max_norm)
        state = [up(a).copy() for a in (theta, m, v * v)]
        optim.update(state[0], flat, *state[1:], factor if t % 2 else None, 1e-2, decay_end, t, preset)
        clipped = up(g * scale).copy()
        optim.clip_tensors(clipped, up(np.stack([bounds[:-1], bounds[1:]], 1)), max_norm)
        return {"factor": factor, "clipped": clipped, **dict(zip("θmv", state, strict=True))}

    return results


def _tanh(draw, rng):
    y, dy = rng.uniform(-1, 1, (2, draw(ROWS), draw(WIDTHS)))
    b = rng.standard_normal(y.shape[1])
    return lambda up: {"y": heads.biased_tanh(up(y).copy(), up(b)), "dx": heads.through_tanh(up(dy), up(y))}


def _linear(draw, rng):
    """Rows in one or two axes, with and without a bias, which is added at once or later, gradients written into arrays or not."""
    shape, inner, outer = draw(st.sampled_from([(1,), (33,), (2, 7)])), draw(WIDTHS), draw(WIDTHS)
    x, W, b, dy = (rng.standard_normal(s) for s in ((*shape, inner), (outer, inner), outer, (*shape, outer)))
    biased, add, given = (draw(st.booleans()) for _ in range(3))

    def results(up):
        weights = up(W.ravel()).reshape(W.shape) if given else up(W)
        y, cache = linear.forward(up(x), weights, up(b) if biased else None, add)
        out = (up(0 * W.ravel()).reshape(W.shape), up(0 * b) if biased else None) if given else None
        dx, dW, db = linear.backward(up(dy), cache, out)
        assert out is None or (dW is out[0] and db is out[1])
        return {"y": y, "dx": dx, "dW": dW, **({"db": db} if biased else {})}

    return results


def _layer(draw, rng):
    """Packed or padded, all rows or the first of each sentence asking; weights in one flat array, at its beginning or one number further
    on; up to four terms of dz."""
    heads, d_k, f = draw(st.sampled_from([1, 3])), draw(st.sampled_from([4, 5, 6])), draw(st.sampled_from([7, 8]))
    d, shift, rates = heads * d_k, draw(st.sampled_from([0, 1])), (draw(RATES), draw(RATES))
    lengths = draw(st.lists(st.sampled_from([1, 5, 17, 40]), min_size=1, max_size=4))
    ids = [np.ones(n, np.int32) for n in lengths]
    batch = packed(ids, ids) if draw(st.booleans()) else padded_to(40, ids, ids)
    few, dropped, kind = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(["none", "tanh"]))
    T, S = len(batch.input_ids), batch.size
    shapes = [(3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,), (d,), (d,)]
    starts = shift + np.cumsum([0, *(-(-math.prod(shape) // ALIGN) * ALIGN for shape in shapes)])  # as Parameters has them, or one further
    bounds = [(start, start + math.prod(shape)) for start, shape in zip(starts, shapes, strict=False)]
    flat, x = rng.standard_normal(starts[-1]), rng.standard_normal((T, d))
    for (i, j), shape in zip(bounds, shapes, strict=True):  # scores of about 1: of large ones, softmax makes large errors of small
        flat[i:j] /= shape[-1] ** (0.5 if len(shape) == 2 else 0)
    terms = rng.standard_normal((draw(st.integers(1, 4)), S if few else T, d))
    keys = rng.integers(0, 2**64, (3, T), np.uint64)
    dscores = rng.standard_normal(heads * (T if few else batch.row_pairs)) if draw(st.booleans()) else None

    def arrays(flat):
        parts = [flat[i:j].reshape(shape) for (i, j), shape in zip(bounds, shapes, strict=True)]
        return encoder.LayerArrays(tuple(parts[:2]), parts[2], tuple(parts[3:6]), tuple(parts[6:9]), tuple(parts[9:]))

    def results(up):
        rows = up(x)
        share = batch.to(array_module(rows))
        drop = encoder.Dropout(*rates, up(keys)) if dropped else encoder.NO_DROPOUT
        asked = share.cls_rows if few else None
        given = share, heads, 1e-5, kind, drop, asked
        W, gradients = arrays(up(flat)), up(0 * flat)
        z, scores, cache = encoder.forward(rows, W, *given)
        dx = encoder.backward(tuple(up(term) for term in terms), None if dscores is None else up(dscores), cache, arrays(gradients))
        alone, none, _ = encoder.forward(rows, W, *given, keep_cache=False, keep_scores=False)
        assert none is None and (cache.rows is None) is not few
        seen = encoder.forward(rows, W, *given, keep_cache=False)[1]
        names = ["qkv", "b_qkv", "o", "b_o", "gain_1", "bias_1", "W_1", "b_1", "W_2", "b_2", "gain_2", "bias_2"]
        dW = {f"d{name}": gradients[i:j] for name, (i, j) in zip(names, bounds, strict=True)}
        probabilities, *others = encoder.masks(cache)
        kept = {f"keep {i}": keep for i, keep in enumerate((*probabilities, *others)) if keep is not None}
        return {"z": z, "alone": alone, "scores": scores, "seen": seen, "dx": sum(dx[1:], dx[0]), **dW, **kept}

    return results


CASES = {
    _layer: (encoder.forward, encoder.backward, encoder.masks),
    _linear: (linear.forward, linear.backward),
    _tanh: (heads.biased_tanh, heads.through_tanh),
    _gelu: (gelu.forward, gelu.backward),
    _norm: (layer_norm.forward, layer_norm.backward, add_norm.forward, add_norm.backward),
    _embed: (embed_norm.forward, embed_norm.backward),
    _attention: (attention.forward, attention.backward),
    _attend: (attention_loss.attend,),
    _dropout: (dropout.forward, dropout.backward),
    _keys: (random.site_keys,),
    _tables: (memory.add_rows, memory.sum_rows),
    _added: (memory.added,),
    _seen: (attention_loss.seen,),
    _mse: (mse.forward, mse.backward),
    _entropies: (cross_entropy.forward, cross_entropy.backward, prediction.forward, prediction.backward),
    _optimiser: (optim.norm_factor, optim.clip_tensors, optim.update),
}
TESTED = {unwrap(operation) for operations in CASES.values() for operation in operations}


@pytest.mark.parametrize("operation", TABLE, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_every_kernel_has_a_case_and_is_what_runs(operation):
    assert operation in TESTED
    assert _kernel(operation, "cuda") is TABLE[operation]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=min(25, settings().max_examples))
@given(data=st.data())
def test_a_kernel_s_numbers_are_its_operation_s(cupy, case, dtype, data):
    rng, gaps = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed")), data.draw(st.booleans(), "gaps")
    compare(cupy, case(data.draw, rng), dtype, gaps)


# What is more than a kernel's threads come to in one go, so that their loops go round; with the answers to what a case draws, in its order.
LARGE = {
    "rows for the groups": (_norm, 2500, 5, 0.1, 2, True),
    "rows for the blocks": (_norm, 1300, 1030, 0.1, 2, True),
    "rows for the parts of gelu": (_gelu, 1100, 5, True, "none"),
    "sentences for a warp": (_attention, 3, 30, 1, 25, 5, 15, 2, 2, 3, 0.1, False, True, True, True, True, True),
    "a width that no four divides, though its double": (_layer, 1, 6, 8, 0, 0.1, 0.1, [1, 5], True, True, True, "none", 2, False),
    "blocks for the parts of a loss": (_attend, 1, 50, 1, 3, 4, False, True, 0.3, 7.0, 0.1),
    "classes for the registers": (_entropies, 3, 9001, None, np.int32, 2.5),
    "rows for a row of a table": (_tables, 1025, 3000, 33, np.int64, 3),
    "parts for a block": (_optimiser, [300_000, 7], 50.0, 1.0, 70, "bert-adam", 1),
}


@pytest.mark.parametrize("name", LARGE)
def test_loops_that_go_round(cupy, name):
    case, *answers = LARGE[name]
    left = iter(answers)
    compare(cupy, case(lambda strategy: next(left), np.random.default_rng(7)), np.float32)
    assert next(left, None) is None


def compare(cupy, results, dtype, gaps=False):
    """results(up), of the operations on the host and of their kernels; gaps: in arrays that have them."""

    def there(a):
        a = cupy.asarray(a.astype(dtype) if a.dtype.kind == "f" else a)
        if not gaps or a.dtype.kind != "f" or a.ndim < 2:
            return a
        wide = cupy.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]

    expected = results(lambda a: a.astype(dtype).astype(np.float64) if a.dtype.kind == "f" else a)
    got = results(there)
    assert got.keys() == expected.keys()
    scale = max(1.0, norm(a for name, a in expected.items() if name[0] == "d"))
    for name, a in got.items():
        assert isinstance(a, cupy.ndarray) and a.shape == np.shape(expected[name]), name
        if np.asarray(expected[name]).dtype.kind != "f":
            assert np.array_equal(a.get(), expected[name]), name
            continue
        assert a.dtype == dtype
        assert_close(name, a, expected[name], TOLERANCE[dtype], 1e-1 * scale if name[0] == "d" else 1e-3)


@pytest.mark.parametrize("given", [False, True])
def test_a_bias_of_no_rows_has_a_gradient_of_zero(cupy, given):
    x, junk = cupy.empty((2, 0, 5), np.float32), cupy.full(5, 7, np.float32)
    _, cache = gelu.forward(x, junk)
    _, db = gelu.backward(x, cache, junk if given else None)
    assert db.shape == (5,) and not db.any() and (db is junk) is given


@pytest.mark.parametrize("T, V", [(1, 1025), (33, 1025), (1025, 65536), (3000, 65537), (2500, 30)])
def test_ids_are_sorted_and_of_one_the_earlier_come_first(cupy, T, V):
    from minitinybert.kernels.cuda.rows import in_order

    ids = np.random.default_rng(T).integers(0, V, T)
    ids[::3] = V - 1
    order = np.argsort(ids, kind="stable")
    for dtype in (np.int32, np.int64):
        assert np.array_equal(in_order(cupy.asarray(ids, dtype), V, np.dtype(np.float32)).get(), np.stack([ids[order], order], 1))


@pytest.mark.parametrize("dtype, theirs", [(np.float32, np.float32), (np.float32, np.float16), (np.float64, np.float32)])
@pytest.mark.parametrize("padding, whole", [(False, True), (False, False), (True, True), (True, False)])
@settings(max_examples=min(5, settings().max_examples))
@given(data=st.data())
def test_scores_are_compared_in_one_launch(cupy, dtype, theirs, padding, whole, data):
    """All, those of real tokens, or those that are seen, with scores of exactly −100 among them; twice the same."""
    from minitinybert.kernels.cuda.losses import compare_scores

    rng, (runs, _) = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), _runs(data.draw, [1, 5, 31, 70, 140])
    heads, weight, entries = data.draw(st.integers(1, 3)), *data.draw(st.sampled_from([(1.0, 7.0), (0.3, 333.0)]))
    own, other = (np.rint(4 * rng.standard_normal(heads * sum(n * L * L for _, n, L in runs))) * 25 for _ in range(2))
    own, other = (own + rng.choice([0, 0.25], own.shape)).astype(dtype), other.astype(theirs)
    starts = np.concatenate([run.start + run.length * np.arange(run.n) for run in runs])
    real = None if whole else _real(rng, runs)
    target = attention_loss.Target(other.astype(np.float64), weight, entries, padding)
    loss, dscores = attention_loss.compare(own.astype(np.float64), target, runs, attention_loss.HeadPairs(heads, heads), real)
    mask = None if whole else cupy.asarray(real)
    called = cupy.asarray(own), cupy.asarray(other), runs, heads, cupy.asarray(starts), mask, weight, entries, padding
    (got, dgot), (again, dagain) = compare_scores(*called), compare_scores(*called)
    assert got.dtype == dgot.dtype == dtype and got.shape == () and dgot.shape == own.shape
    assert_close("loss", got, loss, TOLERANCE[dtype], 1e-3)
    assert_close("dscores", dgot, dscores, TOLERANCE[dtype], 1e-3)
    assert np.array_equal(dgot.get() == 0, dscores == 0)
    assert (got == again).all() and (dgot == dagain).all()


@pytest.fixture
def launched(cupy, monkeypatch):
    """[(kernel's name, arguments, constants)] of what is launched."""
    from minitinybert.kernels.cuda.launch import Kernel

    seen, launch = [], Kernel.launch

    def noted(kernel, grid, block, dtype, arguments, **constants):
        seen.append((kernel.name, arguments, constants))
        return launch(kernel, grid, block, dtype, arguments, **constants)

    monkeypatch.setattr(Kernel, "launch", noted)
    return seen


def test_rows_are_read_in_fours_wherever_their_keys_lie(cupy, launched):
    """In twos where fours do not lie so; one by one where they do not either."""
    keys, flat = cupy.arange(4, dtype=np.uint64)[1:], cupy.ones(26, np.float32)
    for x in (flat[:24].reshape(3, 8), flat[2:].reshape(3, 8), flat[1:25].reshape(3, 8), flat[:18].reshape(3, 6), flat[:15].reshape(3, 5)):
        dropout.forward(x, 0.5, keys)
    assert [constants["ALIGNED"] for *_, constants in launched] == [1, 2, 0, 2, 0]


def test_what_may_run_at_once_counts_for_itself(cupy):
    """Under per-thread default streams, the current stream has one address in all threads, and is another in each."""
    from minitinybert.kernels.cuda.launch import counters

    def of_thread(_):
        with one_by_one, cupy.cuda.Stream.ptds:
            own = counters(), counters()
        both_here.wait(10)
        with cupy.cuda.Stream() as other:
            return *own, counters(), other

    one_by_one, both_here = threading.Lock(), threading.Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        (a, again, b, _), (c, _, d, _) = threads.map(of_thread, range(2))
    assert a is again and not a.any()
    assert len({x.data.ptr for x in (a, b, c, d)}) == 4


def test_as_many_scores_as_there_are_have_a_loss(cupy, launched):
    """More than 2**31 of them too: every size that the kernel is told has 64 bits."""
    x = cupy.ones((2, 3), np.float32)
    mse.forward(x, x)
    ((_, arguments, _),) = launched
    assert sum(isinstance(a, np.int64) for a in arguments) == 8 and not any(isinstance(a, (int, np.int32)) for a in arguments)
