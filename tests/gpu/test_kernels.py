"""Every kernel against the NumPy operation that it replaces: in float64 on the same numbers, over drawn shapes, forward and backward.

Widths have odd ones, one, those that no four divides, and those that need a block a row; arrays have gaps or not. A case calls its
operations with what `up` makes of each array: here float64 on the host, there the kernel's own dtype on the device.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.audit import assert_close, norm
from minitinybert.distillation import scores
from minitinybert.engine import memory, random
from minitinybert.engine.batch import packed, padded
from minitinybert.engine.device import _kernel, array_module
from minitinybert.losses import cross_entropy, mse, prediction
from minitinybert.model import encoder
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.model.parameters import Layout, Parameters
from minitinybert.ops import add_norm, dropout, embed_norm, embedding, gelu, layer_norm, linear
from minitinybert.training import optim

TABLE = pytest.importorskip("minitinybert.kernels.cuda.table", reason="needs CuPy", exc_type=ImportError).TABLE
pytestmark = pytest.mark.gpu

# A result is a few sums, in trees, of up to some thousand terms, of which each was rounded a few times; exp and erf err by two units
# at most, and an exponent of 10 makes ten of one. So 100 units of rounding, of the result's norm (or that of what it is the difference of).
TOLERANCE = {np.float32: 100 * 2.0**-24, np.float64: 100 * 2.0**-53}
ROWS, WIDTHS = st.sampled_from([1, 2, 3, 7, 33, 130]), st.sampled_from([1, 2, 3, 4, 5, 31, 50, 129, 312, 768, 1023, 1025, 1200])
RATES = st.sampled_from([0.0, 0.1, 0.5])


def _gelu(draw, rng):
    x = rng.standard_normal((draw(ROWS), draw(WIDTHS)))
    dy, kind = rng.standard_normal(x.shape), draw(st.sampled_from(["none", "tanh"]))

    def results(up):
        y, cache = gelu.forward(up(3 * x), kind)
        return {"y": y, "dx": gelu.backward(up(dy), cache)}

    return results


def _norm(draw, rng):
    rows, d, rate = draw(ROWS), draw(WIDTHS), draw(RATES)
    a, x, dy = rng.standard_normal((3, rows, d))
    gain, bias = rng.standard_normal((2, d))
    if d == 2:
        x[:, 0] += 10  # not as large as the other: there x̂ jumps from (−1, 1) to (1, −1)
    keys = rng.integers(0, 2**64, rows, np.uint64) if draw(st.booleans()) else None

    def results(up):
        y, cache = add_norm.forward(up(a), up(x), up(gain), up(bias), 1e-5, rate, keys if keys is None else up(keys))
        da, dx, dgain, dbias = add_norm.backward(up(dy), cache)
        z, alone = layer_norm.forward(up(x).reshape(1, rows, d), up(gain), up(bias), 1e-5)
        dz, dgain_2, dbias_2 = layer_norm.backward(up(dy).reshape(1, rows, d), alone)
        narrow = {"da": da, "dx": dx, "dz": dz} if d > 2 else {}  # of one or two columns nothing is left but rounding
        kept = {} if cache.dropout.keep is None else {"keep": cache.dropout.keep}
        sums = {"dγ": dgain, "dβ": dbias, "dγ alone": dgain_2, "dβ alone": dbias_2}
        return {"y": y, "z": z, **sums, "dy": up(dy), **narrow, **kept}  # dy: of it the sums over rows are the differences

    return results


def _embed(draw, rng):
    rows, d, rate = draw(ROWS), draw(WIDTHS), draw(RATES)
    tables = [rng.standard_normal((V, d)) for V in (1100, 7, 2)]
    ids = [rng.integers(0, V, rows).astype(draw(st.sampled_from([np.int32, np.int64, np.uint8]))) for V in (255, 7, 2)]
    gain, bias = rng.standard_normal((2, d))
    dy = rng.standard_normal((rows, d))
    if d == 2:
        tables[0][:, 0] += 10  # as in _norm
    keys = rng.integers(0, 2**64, rows, np.uint64) if draw(st.booleans()) else None

    def results(up):
        given = embedding.Ids(*map(up, ids)), embedding.Tables(*map(up, tables))
        y, cache = embed_norm.forward(*given, up(gain), up(bias), 1e-5, rate, keys if keys is None else up(keys))
        de, dgain, dbias = embed_norm.backward(up(dy), cache)
        kept = {} if cache.dropout.keep is None else {"keep": cache.dropout.keep}
        return {"y": y, "dγ": dgain, "dβ": dbias, "dy": up(dy), **({"de": de} if d > 2 else {}), **kept}

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
        embedding.add_rows(table, up(ids), up(rows))
        return {"table": table}

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


def _compare(draw, rng):
    """All scores, those of real tokens, or those that are visible, with scores of exactly −100 among them; as many heads or not."""
    batch = _batch(rng, draw(st.lists(st.sampled_from([1, 5, 31, 70, 140]), min_size=1, max_size=3)), draw(st.booleans()))
    heads = scores.HeadPairs(*draw(st.sampled_from([(1, 1), (3, 3), (2, 4), (4, 2)])))
    own, other = (np.rint(4 * rng.standard_normal(h * batch.row_pairs)) * 25 for h in (heads.S, heads.T))
    own += rng.choice([0, 0.25], own.shape)
    how = scores.Comparison(heads, draw(st.booleans()), *draw(st.sampled_from([(7.0, 1.0), (333.0, 0.3)])))
    theirs = draw(st.sampled_from([np.float16, np.float32, np.float64]))  # which all have these numbers

    def results(up):
        rows = up(own)
        loss, dscores = scores.compare(rows, up(other).astype(theirs), batch.to(array_module(rows)), how)
        return {"loss": loss, "compared": dscores, "moves": dscores != 0}

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
        stretch = optim.Stretch(state[0], flat, *state[1:])
        optim.update(stretch, optim.scalars_of(preset, 1e-2, t), decay_end, factor if t % 2 else None)
        clipped = up(g * scale).copy()
        optim.clip_tensors(clipped, up(np.stack([bounds[:-1], bounds[1:]], 1)), max_norm)
        return {"factor": factor, "clipped": clipped, **dict(zip("θmv", state, strict=True))}

    return results


def _linear(draw, rng):
    """Rows in one or two axes, with and without a bias, gradients written into arrays or not."""
    shape, inner, outer = draw(st.sampled_from([(1,), (33,), (2, 7)])), draw(WIDTHS), draw(WIDTHS)
    x, W, b, dy = (rng.standard_normal(s) for s in ((*shape, inner), (outer, inner), outer, (*shape, outer)))
    biased, given = draw(st.booleans()), draw(st.booleans())

    def results(up):
        weights = up(W.ravel()).reshape(W.shape) if given else up(W)
        y, cache = linear.forward(up(x), weights, up(b) if biased else None)
        out = (up(0 * W.ravel()).reshape(W.shape), up(0 * b)) if given else None
        dx, dW, db = linear.backward(up(dy), cache, out)
        assert out is None or (dW is out[0] and (not biased or db is out[1]))
        assert (db is not None) is biased
        return {"y": y, "dx": dx, "dW": dW, **({"db": db} if biased else {})}

    return results


def _batch(rng, lengths, is_packed):
    """Sentences packed, or as a rectangle with padding here and there but at its first tokens, and at the ends."""
    ids = [np.ones(n, np.int32) for n in lengths]
    if is_packed:
        return packed(ids, ids)
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    real &= rng.random(real.shape) < 0.9
    real[:, 0] = True
    return padded(np.ones(real.shape, np.int32), real)


def _layer(draw, rng):
    """Packed or padded, all rows or the first of each sentence asking; weights in one flat array, at its beginning or one number further
    on; heads narrow and wide, sentences of which one, some or many are a block's."""
    (heads, d_k), f = draw(st.sampled_from([(12, 1), (1, 4), (3, 5), (1, 26), (2, 64), (3, 65)])), draw(st.sampled_from([7, 8, 130]))
    d, shift, rates = heads * d_k, draw(st.sampled_from([0, 1])), (draw(RATES), draw(RATES))
    lengths = draw(st.lists(st.sampled_from([1, 2, 5, 17, 31, 33, 70, 300]), min_size=1, max_size=4))
    batch = _batch(rng, lengths, draw(st.booleans()))
    few, dropped, act = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(["gelu", "gelu_new"]))
    config = Config(9, d, 1, heads, f, act, *rates, layer_norm_eps=1e-5)
    T, S = len(batch.input_ids), batch.size
    layout, x, dz = Layout(encoder.slots("encoder.layer.0.", d, f)), rng.standard_normal((T, d)), rng.standard_normal((T, d))
    flat = np.zeros(shift + layout.size)
    for view in Parameters(layout, flat[shift:]).values():
        view[...] = rng.standard_normal(view.shape) * (view.shape[-1] ** -0.5 if view.ndim == 2 else 1)
    dz, keys = dz[: S if few else T], rng.integers(0, 2**64, (3, T), np.uint64)
    dscores = rng.standard_normal(heads * (T if few else batch.row_pairs)) if draw(st.booleans()) else None

    def results(up):
        rows = up(x)
        share = batch.to(array_module(rows))
        W, gradients = (Parameters(layout, up(a)[shift:]) for a in (flat, 0 * flat))
        W, dW = (encoder.LayerArrays.of(each, 0) for each in (W, gradients))
        given = rows, W, share, config, up(keys) if dropped else None, share.cls_rows if few else None
        z, scores, cache = encoder.forward(*given, encoder.Keep())
        dx = encoder.backward(up(dz), None if dscores is None else up(dscores), cache, dW)
        alone, *none = encoder.forward(*given, encoder.Keep(scores=False, cache=False))
        assert none == [None, None] and (cache.rows is None) is not few
        seen, nothing = encoder.forward(*given, encoder.Keep(cache=False))[1:]
        assert nothing is None
        dW = {f"d{name}": gradient for name, gradient in gradients.items()}
        probabilities, *others = encoder.masks(cache)
        kept = {f"keep {i}": keep for i, keep in enumerate((*probabilities, *others)) if keep is not None}
        return {"z": z, "alone": alone, "scores": scores, "seen": seen, "dx": dx, **dW, **kept}

    return results


CASES = {
    _layer: (encoder.forward, encoder.backward, encoder.masks),
    _linear: (linear.forward, linear.backward),
    _gelu: (gelu.forward, gelu.backward),
    _norm: (layer_norm.forward, layer_norm.backward, add_norm.forward, add_norm.backward),
    _embed: (embed_norm.forward, embed_norm.backward),
    _tables: (embedding.add_rows,),
    _dropout: (dropout.forward, dropout.backward),
    _keys: (random.site_keys,),
    _added: (memory.added,),
    _compare: (scores.compare,),
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
    "rows for the groups": (_norm, 2500, 5, 0.1, True),
    "rows for the blocks": (_norm, 1300, 1030, 0.1, True),
    "rows for the parts of gelu": (_gelu, 1100, 5, "none"),
    "rows for the parts of a bias": (_linear, (300,), 3, 5, True, False),
    "sentences for a warp": (_layer, (1, 4), 7, 0, 0.1, 0.1, [*35 * [3], *5 * [9]], True, False, True, "gelu", True),
    "rows for the parts of a layer": (_layer, (1, 4), 8, 0, 0.1, 0.0, 9 * [300], False, False, True, "gelu_new", False),
    "blocks for the parts of a loss": (_compare, 30 * [50], False, (3, 3), True, (7.0, 1.0), np.float16),
    "entries for the blocks of a loss": (_compare, 5 * [250], True, (3, 3), False, (333.0, 0.3), np.float32),
    "classes for the registers": (_entropies, 3, 9001, None, np.int32, 2.5),
    "rows for a row of a table": (_tables, 1025, 3000, 33, np.int64, 3),
    "parts for a block": (_optimiser, [300_000, 7], 50.0, 1.0, 70, "bert-adam", 1),
}


@pytest.mark.parametrize("name", LARGE)
def test_loops_that_go_round(cupy, name):
    case, *answers = LARGE[name]
    compare(cupy, answered(case, *answers), np.float32)


def test_where_first_tokens_ask_the_keys_biases_need_not_lie_in_fours(cupy):
    """26 columns behind the queries', though those of keys and values together are 52."""
    compare(cupy, answered(_layer, (1, 26), 8, 0, 0.1, 0.1, [5, 9], True, True, True, "gelu", True), np.float32)


def answered(case, *answers):
    """The case, with these answers to what it draws, in its order."""
    left = iter(answers)
    results = case(lambda strategy: next(left), np.random.default_rng(7))
    assert next(left, None) is None
    return results


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
    x, W, junk = cupy.empty((2, 0, 5), np.float32), cupy.full((3, 5), 7, np.float32), cupy.full(3, 7, np.float32)
    y, cache = linear.forward(x, W, junk)
    dx, dW, db = linear.backward(y, cache, (W.copy(), junk) if given else None)
    assert dx.shape == x.shape and dW.shape == W.shape and not dW.any()
    assert db.shape == (3,) and not db.any() and (db is junk) is given


@pytest.mark.parametrize("apart", ["weights", "biases"])
def test_a_layer_whose_queries_keys_and_values_lie_apart_is_refused(cupy, apart):
    """Instead of products with whatever lies behind the queries'."""
    config, batch = Config(9, 4, 1, 1, 8), packed([np.ones(3, np.int32)], [np.ones(3, np.int32)]).to(cupy)
    W = encoder.LayerArrays.of(Bert.new(config).to(cupy).parameters, 0)
    weight, bias = W.attention.value
    value = (weight.copy(), bias) if apart == "weights" else (weight, bias.copy())
    W = W._replace(attention=W.attention._replace(value=value))
    with pytest.raises(ValueError, match="side by side"):
        encoder.forward(cupy.ones((3, 4), np.float32), W, batch, config, None, None, encoder.Keep())


@pytest.mark.parametrize("T, V", [(1, 1025), (33, 1025), (1025, 65536), (3000, 65537), (2500, 30)])
def test_ids_are_sorted_and_of_one_the_earlier_come_first(cupy, T, V):
    from minitinybert.kernels.cuda.rows import in_order

    ids = np.random.default_rng(T).integers(0, V, T)
    ids[::3] = V - 1
    order = np.argsort(ids, kind="stable")
    for dtype in (np.int32, np.int64):
        assert np.array_equal(in_order(cupy.asarray(ids, dtype), V, np.dtype(np.float32)).get(), np.stack([ids[order], order], 1))


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


@pytest.mark.parametrize("is_packed, count_padding", [(True, False), (False, False), (True, True), (False, True)])
def test_scores_are_compared_in_one_launch(cupy, launched, is_packed, count_padding):
    """By nothing else, and twice the same."""
    batch, rng = _batch(np.random.default_rng(7), [5, 40, 140], is_packed).to(cupy), np.random.default_rng(7)
    how = scores.Comparison(scores.HeadPairs(3, 3), count_padding, 33.0, 0.5)
    own, other = (cupy.asarray(rng.standard_normal(3 * batch.row_pairs), np.float32) for _ in range(2))
    (loss, dscores), (again, same) = (scores.compare(own, other, batch, how) for _ in range(2))
    assert [name for name, *_ in launched] == 2 * ["compare_scores"]
    assert loss == again and (dscores == same).all()


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
