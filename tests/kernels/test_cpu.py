"""Every kernel of the CPU against the formula that it replaces: in float64 on the same numbers, over drawn shapes, forward and backward.

A case calls what `ops` has under the operations' names, with what `up` makes of each array.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.audit import assert_close, norm
from minitinybert.distillation.scores import Comparison
from minitinybert.engine.batch import packed
from minitinybert.losses.attention import HeadPairs
from minitinybert.training.optim import PRESETS, Stretch, scalars_of

from . import formulas

operations = pytest.importorskip(
    "minitinybert.kernels.cpu.operations", reason="needs numba: pip install 'minitinybert[fast]'", exc_type=ImportError
)

# As in tests/gpu/test_kernels.py: 100 units of rounding, of a result's norm.
TOLERANCE = {np.float32: 100 * 2.0**-24, np.float64: 1e-12}
ROWS, WIDTHS = st.sampled_from([1, 2, 3, 7, 33, 130]), st.sampled_from([1, 2, 3, 4, 5, 31, 64, 129, 312, 1025])
RATES = st.sampled_from([0.0, 0.1, 0.5])


def _keys(draw, rng, shape):
    return rng.integers(0, 2**64, shape, np.uint64) if draw(st.booleans()) else None


def _gelu(draw, rng):
    x, dy = rng.standard_normal((2, draw(ROWS), draw(WIDTHS)))
    scale, kind = draw(st.sampled_from([1e-6, 1.0, 3.0, 50.0, 1e4])), draw(st.sampled_from(["none", "tanh"]))

    def results(ops, up):
        y, cache = ops.gelu_forward(up(scale * x), kind)
        return {"y": y, "phi": cache.phi, "dx": ops.gelu_backward(up(dy), cache)}

    return results


def _dropout(draw, rng):
    x, dy = rng.standard_normal((2, draw(ROWS), draw(WIDTHS)))
    keys, rate = _keys(draw, rng, len(x)), draw(RATES)

    def results(ops, up):
        y, cache = ops.dropout_forward(up(x), rate, up(keys))
        return {"y": y, "dx": ops.dropout_backward(up(dy), cache), "keep": cache.keep, "scale": cache.scale}

    return results


def _norm(draw, rng):
    rows, d, rate = draw(ROWS), draw(WIDTHS), draw(RATES)
    a, x, dy = rng.standard_normal((3, rows, d))
    gain, bias = rng.standard_normal((2, d))
    if d == 2:
        x[:, 0] += 10  # not as large as the other: there x̂ jumps from (−1, 1) to (1, −1)
    keys = _keys(draw, rng, rows)

    def results(ops, up):
        y, cache = ops.add_norm_forward(up(a), up(x), up(gain), up(bias), 1e-5, rate, up(keys))
        da, dx, dgain, dbias = ops.add_norm_backward(up(dy), cache)
        z, alone = ops.layer_norm_forward(up(x[None]), up(gain), up(bias), 1e-5)
        dz, dgain_2, dbias_2 = ops.layer_norm_backward(up(dy[None]), alone)
        narrow = {"da": da, "dx": dx, "dz": dz} if d > 2 else {}  # of one or two columns nothing is left but rounding
        kept = {"keep": cache.dropout.keep, "scale": cache.dropout.scale}
        return {"y": y, "dγ": dgain, "dβ": dbias, "z": z, "dγ alone": dgain_2, "dβ alone": dbias_2, "dy": up(dy), **narrow, **kept}

    return results


def _weigh(draw, rng):
    n, h, L = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2, 3, 7, 16, 25, 70, 300]))
    Q, rate, scale = draw(st.sampled_from([1, L])), draw(RATES), draw(st.sampled_from([1.0, 10.0, 1e4]))
    A, dD = rng.standard_normal((2, n, h, Q, L))
    keys = _keys(draw, rng, (n, h, Q))
    real = (np.arange(L) < rng.integers(0, L + 1, (n, 1, 1, 1))) if draw(st.booleans()) else None  # none at all is real, too
    if draw(st.booleans()):
        A[..., 0] = -1e20

    def results(ops, up):
        D, cache = ops.weigh(up(scale * A), up(real), rate, up(keys))
        dA = {"dA": ops.weigh_backward(up(dD), cache)} if L > 1 else {}
        kept = {"keep": cache.dropout.keep, "scale": cache.dropout.scale}
        return {"D": D, "P": cache.softmax.p, "again": ops.weighed(cache), "dD": up(dD), **dA, **kept}

    return results


def _losses(draw, rng):
    lengths = draw(st.lists(st.sampled_from([1, 2, 7, 25, 70]), min_size=1, max_size=3))
    heads, entries, weight = HeadPairs(2, 2), draw(st.sampled_from([1.0, 300.0])), draw(st.sampled_from([0.5, 1.0, 3.0]))
    batch = packed(ids := [np.ones(n, np.int32) for n in lengths], ids)
    x, y = rng.standard_normal((2, heads.S * batch.row_pairs))
    how, count = Comparison(heads, False, entries, weight), draw(st.sampled_from([None, 17.0]))

    def results(ops, up):
        loss, cache = ops.mse_forward(up(x[None]), up(y[None]), None, count)
        flat, dA = ops.compare(up(x), up(y), batch, how)
        dx = formulas.mse_backward(weight, cache)
        return {"loss": np.asarray(loss), "dx": dx, "L_attn": np.asarray(flat), "dA": dA, "dy": up(x)}

    return results


def _tables(draw, rng):
    V, T, d = draw(st.sampled_from([1, 2, 9, 1024])), draw(st.sampled_from([1, 5, 257])), draw(WIDTHS)
    W, rows = rng.standard_normal((V, d)), rng.standard_normal((T, d))
    ids = rng.integers(0, V, T).astype(draw(st.sampled_from([np.int32, np.int64])))

    def results(ops, up):
        table = up(W).copy()
        ops.add_rows(table, up(ids), up(rows))
        return {"table": table}

    return results


def _optimiser(draw, rng):
    size, decay_end = draw(st.sampled_from([1, 7, 64, 5000, 20_000])), draw(st.sampled_from([-3, 0, 5, 64, 30_000]))
    theta, g, m, v = rng.standard_normal((4, size))
    for a in draw(st.sampled_from([(), (g,), (g, m), (g, m, v)])):  # of rows of a table that nothing looks up
        a[size // 3 :] = 0
    factor = draw(st.sampled_from([None, 0.3]))
    scale, preset, t = draw(st.sampled_from([1e-3, 1.0, 50.0])), PRESETS[draw(st.sampled_from(sorted(PRESETS)))], draw(st.integers(1, 9))

    def results(ops, up):
        gradient = up(g * scale)
        state = [up(a).copy() for a in (theta, m, v * v)]
        stretch, scaled = Stretch(state[0], gradient, *state[1:]), factor if factor is None else gradient.dtype.type(factor)
        ops.update(stretch, scalars_of(preset, 1e-2, t), decay_end, scaled)
        return dict(zip("θmv", state, strict=True))

    return results


CASES = [_gelu, _dropout, _norm, _weigh, _losses, _tables, _optimiser]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


def cast(dtype):
    return lambda a: a if a is None or a.dtype.kind != "f" else a.astype(dtype)


@each
@pytest.mark.parametrize("dtype", TOLERANCE)
@given(data=st.data())
def test_a_kernel_s_numbers_are_its_formula_s(case, dtype, data):
    results = case(data.draw, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed")))
    given = []  # what a kernel was handed, and a copy

    def up(a):
        given.append((a := cast(dtype)(a), None if a is None else a.copy()))
        return a

    expected = results(formulas, lambda a: cast(np.float64)(cast(dtype)(a)))
    got = results(operations, up)
    assert got.keys() == expected.keys()
    scale = max(1e-3, norm(a for name, a in expected.items() if name in ("dy", "dD")))
    for name, a in got.items():
        if np.asarray(expected[name]).dtype.kind != "f" or name == "scale":
            assert np.array_equal(a, expected[name]), name
            continue
        assert a.dtype == dtype and a.shape == np.shape(expected[name]), name
        assert_close(name, a, expected[name], TOLERANCE[dtype], 1e-1 * scale if name[0] == "d" else 1e-3)
    assert all(a is None or np.array_equal(a, kept) for a, kept in given), "an input was changed"
    again = results(operations, cast(dtype))
    assert all(np.array_equal(a, again[name]) for name, a in got.items()), "asked again, it differs"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["none", "tanh"])
def test_phi_is_right_everywhere(dtype, kind):
    """To a few units of rounding, absolutely; the tails too, where it is 0 or 1. The tanh's slope has a factor 1 − Φ, and what multiplies
    its rounding grows as x³."""
    x = np.concatenate([np.linspace(-14, 14, 100_001), [-1e30, -1e5, -0.0, 0.0, 1e5, 1e30]]).astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        _, expected = formulas.gelu_forward(x.astype(np.float64), kind)
        slope = formulas.gelu_backward(np.ones(x.shape), expected)
    _, cache = operations.gelu_forward(x, kind)
    dx = operations.gelu_backward(np.ones_like(x), cache)
    unit = np.finfo(dtype).eps / 2
    assert np.abs(cache.phi - expected.phi).max() < 4 * unit
    finite = np.abs(x) < 1e6
    assert np.abs(dx - slope)[finite].max() < {"none": 8, "tanh": 200}[kind] * unit


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_where_the_formula_shows_it(dtype, bad):
    """The same places are NaN, +∞ or −∞, in whatever argument one such number stands; where its element is dropped as well."""
    rng = np.random.default_rng(0)
    shape, d = (5, 67), 67
    keys, dy, x, a = rng.integers(0, 2**64, 5, np.uint64), *rng.standard_normal((3, *shape))
    gain, bias = rng.standard_normal((2, d))
    scores = rng.standard_normal((2, 2, 5, d))
    weigh_keys = rng.integers(0, 2**64, (2, 2, 5), np.uint64)
    batch, how = packed([np.ones(5, np.int32)], [np.zeros(5, np.int32)]), Comparison(HeadPairs(1, 1), False, 7.0, 0.5)
    places = [0, 17, 63, 66]  # in whole vectors of the processor and in what is left of a row

    def through(ops, spoil):
        s = lambda name, array: spoil(name, array.astype(dtype))
        for kind in ("none", "tanh"):
            y, cache = ops.gelu_forward(s("x", x), kind)
            yield from (y, ops.gelu_backward(s("dy", dy), cache))
        y, cache = ops.dropout_forward(s("x", x), 0.5, keys)
        yield from (y, ops.dropout_backward(s("dy", dy), cache))
        for rate in (0.0, 0.5):
            y, cache = ops.add_norm_forward(s("a", a), s("x", x), s("gain", gain), s("bias", bias), 1e-5, rate, keys)
            yield from (y, *ops.add_norm_backward(s("dy", dy), cache))
            D, cache = ops.weigh(s("x", scores), None, rate, weigh_keys)
            yield from (D, ops.weigh_backward(s("dy", scores), cache))
        loss, cache = ops.mse_forward(s("x", x), s("dy", dy))
        yield from (np.asarray(loss), cache.difference)
        yield from map(np.asarray, ops.compare(s("x", x).ravel(), s("dy", dy).ravel(), batch, how))
        theta, m, v = (array.astype(dtype).ravel() for array in (x, a, dy * dy))
        ops.update(Stretch(theta, s("dy", dy).ravel(), m, v), scalars_of(PRESETS["adamw"], 1e-3, 2), 100, None)
        yield from (theta, m, v)

    for name in ("x", "a", "gain", "bias", "dy"):
        for place in places:

            def spoil(at, array, name=name, place=place):
                if at == name:
                    array[..., place] = bad
                return array

            with np.errstate(all="ignore"):
                wanted = list(through(formulas, spoil))
            for number, (ours, formula) in enumerate(zip(through(operations, spoil), wanted, strict=True)):
                assert np.array_equal(np.isnan(ours), np.isnan(formula)), f"{number}: NaN elsewhere, {bad} in {name}"
                assert np.array_equal(np.isposinf(ours), np.isposinf(formula)) and np.array_equal(np.isneginf(ours), np.isneginf(formula))
            assert any(not np.isfinite(array).all() for array in wanted)


@pytest.mark.parametrize("settings, lr, factor", [({"eps": 0.0}, 1e-3, 1.0), ({}, np.nan, 1.0), ({}, 1e-3, np.nan), ({}, np.inf, 0.5)])
def test_what_makes_no_number_of_zeros_is_not_passed_over(settings, lr, factor):
    scalars = scalars_of(replace(PRESETS["adamw"], **settings), lr, 1)
    after = []
    for ops in (formulas, operations):
        theta, g, m, v = np.ones(3000, np.float32), *np.zeros((3, 3000), np.float32)
        with np.errstate(all="ignore"):
            ops.update(Stretch(theta, g, m, v), scalars, 100, np.float32(factor))
        after.append(np.array([theta, m, v]))
    assert np.array_equal(*after, equal_nan=True) and np.isnan(after[0]).any()


def gaps(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


STRANGE = {
    "gaps": gaps,
    "backwards": lambda a: np.ascontiguousarray(a)[..., ::-1],
    "float16": lambda a: a.astype(np.float16),
    "other bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "empty": lambda a: a[:0],
    "a list of rows": lambda a: a[..., None],
}


@pytest.mark.parametrize("kind", STRANGE)
def test_arrays_that_do_not_fit_are_left_to_the_formula(kind):
    """Whichever of the arguments it is; one of another shape would be read beyond its end."""
    strange, o = STRANGE[kind], operations
    x, row, keys, keep, flat = (
        np.ones((3, 4), np.float32),
        np.ones(4, np.float32),
        np.ones(3, np.uint64),
        np.ones((3, 4), bool),
        np.ones(12),
    )
    A, mask, of_A = np.ones((2, 1, 3, 4), np.float32), np.ones((2, 1, 1, 4), bool), np.ones((2, 1, 3), np.uint64)
    batch = packed([np.ones(3, np.int32)], [np.zeros(3, np.int32)])
    dropped, norm = formulas.Dropout(keep, 2.0), formulas.Norm(x, np.ones((3, 1), np.float32), row)
    weights = formulas.Weights(formulas.Softmax(A), formulas.Dropout(np.ones(A.shape, bool), 2.0))
    calls = [
        (o.gelu_backward, (x, formulas.Gelu(x, x, "none"))),
        (o.dropout_forward, (x, 0.5, keys)),
        (o.dropout_backward, (x, dropped)),
        (o.layer_norm_forward, (x, row, row, 1e-5)),
        (o.layer_norm_backward, (x, norm)),
        (o.add_norm_forward, (x, x, row, row, 1e-5, 0.5, keys)),
        (o.add_norm_backward, (x, formulas.AddNorm(dropped, norm))),
        (o.weigh, (A, mask, 0.5, of_A)),
        (o.weigh_backward, (A, weights)),
        (o.add_rows, (x, np.ones(3, np.int64), x)),
        (o.mse_forward, (x, x)),
        (o.compare, (flat, flat, batch, Comparison(HeadPairs(1, 1), False, 1.0, 1.0))),
    ]
    stretch, scalars = Stretch(flat, flat, flat, flat), scalars_of(PRESETS["adamw"], 1e-3, 1)
    for field in Stretch._fields:
        if not alike(odd := strange(flat), flat):
            assert o.update(stretch._replace(**{field: odd}), scalars, 0, None) is NotImplemented, field
    for operation, arguments in calls:
        for place, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray) and not alike(odd := strange(argument), argument):
                given = arguments[:place] + (odd,) + arguments[place + 1 :]
                assert operation(*given) is NotImplemented, f"{operation.__name__}, argument {place}"
    for field in ("x_hat", "gain"):
        assert o.layer_norm_backward(x, norm._replace(**{field: strange(getattr(norm, field))})) is NotImplemented


def alike(a, b):
    """What is one wide has no gaps, whatever its strides, and bytes have no order."""
    return a.shape == b.shape and a.dtype == b.dtype and a.flags.carray


def test_an_id_out_of_range_changes_nothing():
    table = np.zeros((3, 2), np.float32)
    for bad in (-1, 3):
        with pytest.raises(IndexError, match="out of its table's range"):
            operations.add_rows(table, np.array([0, bad]), np.ones((2, 2), np.float32))
    assert not table.any()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_of_one_column_has_a_gradient_of_exactly_zero(dtype):
    """1/σ is 1/√ε there, which would make a gradient of the last bit's rounding."""
    x, dy, gain = (a.astype(dtype) for a in np.random.default_rng(0).standard_normal((3, 50, 1)))
    _, cache = operations.layer_norm_forward(x, gain[0], gain[1], 1e-12)
    assert not operations.layer_norm_backward(dy, cache)[0].any()


def _laid(arrays, gap, order):
    """Copies in one stretch of memory, in this order, `gap` bytes between them."""
    starts, end = {}, 0
    for i in order:
        starts[i], end = end, -(-(end + arrays[i].nbytes + gap) // 8) * 8
    memory = np.zeros(end, np.uint8)
    laid = [memory[starts[i] : starts[i] + a.nbytes].view(a.dtype).reshape(a.shape) for i, a in enumerate(arrays)]
    for copy, array in zip(laid, arrays, strict=True):
        copy[...] = array
    return laid


@pytest.mark.parametrize("d", [3, 8, 13, 16, 31, 48])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_arrays_lie_changes_no_bit(d, dtype):
    """Small arrays often lie side by side, and the compiler's loops ask whether they overlap."""
    from minitinybert.kernels.cpu import passes

    rng, T = np.random.default_rng(d), 5
    rows, row = (lambda: rng.standard_normal((T, d)).astype(dtype)), (lambda: rng.standard_normal(d).astype(dtype))
    keep, none, keys = rng.random((T, d)) < 0.9, np.empty((0, d), bool), rng.integers(0, 2**64, T, np.uint64)
    column = abs(rng.standard_normal(T)).astype(dtype)
    P = rng.random((1, T, d)).astype(dtype)
    state = [abs(rng.standard_normal(97)).astype(dtype) for _ in range(4)]
    scalars = tuple(map(dtype, (0.5, 0.9, 0.1, 0.999, 0.001, 1.0, 1e-6, 1e-3, 0.99)))
    jobs = {  # the arrays, and what is done with them
        "gelu": ([rows(), rows(), rows()], lambda x, y, phi: passes.gelu_forward(x.reshape(-1), y.reshape(-1), phi.reshape(-1))),
        "layer_norm": ([rows(), row(), row(), rows(), rows(), column], lambda x, g, b, *o: passes.layer_norm_forward(x, g, b, 1e-5, *o)),
        "add_norm": (
            [rows(), rows(), row(), row(), keys, rows(), rows(), column, keep],
            lambda a, x, g, b, keys, *out: passes.add_norm_forward(a, x, g, b, 1e-5, keys, 6554, 1.1, *out),
        ),
        "norm_backward": (
            [rows(), rows(), column, row(), rows(), row(), row(), keep, rows()],
            lambda *a: passes.norm_backward(*a[:8], 1.1, a[8]),
        ),
        "weigh": ([rows()[None], keys[None], P, P.copy(), keep[None]], lambda A, k, P, D, m: passes.weigh(A, none, k, 6554, 1.1, P, D, m)),
        "weigh_backward": ([rows(), P[0], keep, rows()], lambda dD, P, m, dA: passes.weigh_backward(dD, P, m, 1.1, dA)),
        "squared_difference": (
            [P.reshape(-1), rows().reshape(-1), rows().reshape(-1), row()],
            lambda x, y, out, total: total.fill(passes.squared_difference(x, y, 2.0, out)),
        ),
        "adam": (state, lambda *a: passes.adam(*a, 50, scalars)),
    }
    for name, (arrays, job) in jobs.items():
        seen = set()
        for gap in (0, 8, 24, 4096):
            for order in (range(len(arrays)), rng.permutation(len(arrays)), rng.permutation(len(arrays))):
                job(*(laid := _laid(arrays, gap, order)))
                seen.add(b"".join(a.tobytes() for a in laid))
        assert len(seen) == 1, name
