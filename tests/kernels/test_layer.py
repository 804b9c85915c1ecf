"""The layer of few rows against its formula, and that a thread more or another place in memory changes no bit."""

from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.audit import assert_close
from minitinybert.engine import device
from minitinybert.engine.batch import packed, padded
from minitinybert.engine.parallel import Workers
from minitinybert.model import encoder
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

layer = pytest.importorskip("minitinybert.kernels.cpu.layer", reason="needs numba: pip install 'minitinybert[fast]'", exc_type=ImportError)
from minitinybert.kernels.cpu import passes  # noqa: E402

there = dict(device.KERNELS["cpu"])
from minitinybert.kernels.cpu.table import TABLE  # noqa: E402

device.KERNELS["cpu"].clear()  # what its import brings, to all tests of this process
device.KERNELS["cpu"].update(there)

from .test_cpu import TOLERANCE, _laid  # noqa: E402

dtypes = pytest.mark.parametrize("dtype", TOLERANCE)
NOTHING = encoder.Keep(scores=False, cache=False)


def model(d=48, f=80, heads=4, tanh=False, dtype=np.float32, seed=0):
    """Of two layers, its weights large enough for attention to choose."""
    config = Config(
        vocab_size=99, hidden_size=d, num_hidden_layers=2, num_attention_heads=heads, intermediate_size=f, max_position_embeddings=130,
        initializer_range=0.2, hidden_act="gelu_new" if tanh else "gelu", head="classifier", pooler=True,
    )  # fmt: skip
    made = Bert.new(config, seed, dtype)
    made.parameters.flat[...] += np.random.default_rng(seed).normal(0, 0.1, made.parameters.flat.shape)
    return made


def arguments(of, batch, x, rows=None, keep=NOTHING, keys=None):
    return x, encoder.LayerArrays.of(of.parameters, 0), batch, of.config, keys, rows, keep


def batch_of(lengths, rng, pad):
    """Packed, or as a rectangle whose padding is masked."""
    if not pad:
        return packed([rng.integers(0, 99, n) for n in lengths], [np.zeros(n, np.int32) for n in lengths])
    return padded(rng.integers(0, 99, (len(lengths), max(lengths))), np.arange(max(lengths)) < np.array(lengths)[:, None])


@dtypes
@given(data=st.data())
def test_it_is_the_formula(dtype, data):
    draw, rng = data.draw, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    heads, width = draw(st.sampled_from([(1, 32), (4, 12), (3, 26)]))
    lengths = draw(st.sampled_from([[1], [2], [13], [25], [27], [40, 3, 3, 41], [5] * 9, [128]]))
    batch = batch_of(lengths, rng, draw(st.booleans()))
    if len(batch.input_ids) > layer._FEW:
        batch = batch_of(lengths, rng, False)
    of = model(heads * width, draw(st.sampled_from([32, 77, 130])), heads, draw(st.booleans()), dtype, 3)
    rows = draw(st.sampled_from([None, batch.cls_rows]))
    x = rng.standard_normal((len(batch.input_ids), heads * width)).astype(dtype)
    given, threads = x.copy(), draw(st.sampled_from([1, 3]))
    with Workers(threads) as workers:
        ask = lambda _: layer.forward(*arguments(of.for_reading(), batch, x, rows))
        (z, scores, cache), again = workers.map(ask, [0])[0], workers.map(ask, [0])[0]
    expected, _, _ = unwrap(encoder.forward)(*arguments(of.astype(np.float64), batch, x.astype(np.float64), rows))
    assert scores is None and cache is None and z.dtype == dtype and np.array_equal(x, given)
    assert_close("z", z, expected, TOLERANCE[dtype], 1e-3)
    assert np.array_equal(z, again[0]), "asked again, it differs"


@dtypes
def test_products_of_any_height_and_width(dtype):
    rng = np.random.default_rng(0)
    for rows in (1, 2, 5, 6, 7, 12, 13, 14, 26, 27, 60):
        for N in (passes.tile_width(np.dtype(dtype)) + more for more in (0, 1, 7, 31, 32, 100)):
            x, W, b = rng.standard_normal((rows, 37)), rng.standard_normal((N, 37)), rng.standard_normal(N)
            x, W, b = (a.astype(dtype) for a in (x, W, b))
            y = np.full((rows + 1, N), 7, dtype)
            passes.product(x, layer.tiled(W), b, y[:rows])
            assert_close("y", y[:rows], x.astype(np.float64) @ W.T.astype(np.float64) + b, TOLERANCE[dtype], 1e-3)
            assert (y[rows] == 7).all(), "written beyond its end"


@dtypes
def test_neither_threads_nor_neighbours_change_a_bit(dtype):
    """A sentence's answer is the same whoever shares its rows, and whatever else is in its batch."""
    rng = np.random.default_rng(1)
    of = model(dtype=dtype).for_reading()
    alone, beside = batch_of([25], rng, False), batch_of([3, 25], rng, False)
    x = rng.standard_normal((28, 48)).astype(dtype)
    answers = [layer.forward(*arguments(of, beside, x))[0][3:]]
    for threads in (1, 2, 3):
        with Workers(threads) as workers:
            answers += workers.map(lambda _: layer.forward(*arguments(of, alone, x[3:].copy()))[0], [0])
    assert all(np.array_equal(answers[0], z) for z in answers[1:])


@dtypes
def test_where_arrays_lie_changes_no_bit(dtype):
    rng, T, f, runs = np.random.default_rng(2), 11, 48, np.array([(0, 1, 5), (5, 1, 6)])
    for d in (32, 44, 51):
        of = lambda *shape: rng.standard_normal(shape).astype(dtype)
        matrices = [layer.tiled(of(*shape)) for shape in ((d, d), (d, d), (f, d), (d, f), (d, d), (d, d))]
        arrays = [of(T, d), of(d, T), of(T, d), of(T), *matrices, *(of(n) for n in (d, d, f, d, d, d, d, d, d, d)), of(T, d)]
        arrays = [np.ascontiguousarray(a) for a in arrays]
        seen = set()
        for gap in (0, 8, 24, 4096):
            for order in (range(len(arrays)), rng.permutation(len(arrays)), rng.permutation(len(arrays))):
                x, k, v, masked, *W, b_q, b_o, b_1, b_2, g_1, e_1, g_2, e_2, b_k, b_v, z = _laid(arrays, gap, order)
                passes.keys_and_values(x, W[4], b_k, W[5], b_v, 0, T, k, v)
                passes.few_rows(x, k, v, masked, runs, 1, tuple(W[:4]), (b_q, b_o, b_1, b_2), (g_1, e_1, g_2, e_2), 1e-12, False, 0, T, z)
                seen.add(k.tobytes() + v.tobytes() + z.tobytes())
        assert len(seen) == 1, d


@dtypes
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_where_the_formula_shows_it(dtype, bad):
    rng = np.random.default_rng(3)
    batch, of = batch_of([4, 9], rng, False), model(dtype=dtype)
    for name in ("x", "attention.self.key.weight", "intermediate.dense.bias", "output.LayerNorm.weight"):
        spoilt, x = Bert(of.config, of.parameters.astype(dtype)), rng.standard_normal((13, 48)).astype(dtype)
        if name == "x":
            x[5, 17] = bad
        else:
            spoilt.parameters[f"encoder.layer.0.{name}"].reshape(-1)[17] = bad
        with np.errstate(all="ignore"):
            expected = unwrap(encoder.forward)(*arguments(spoilt, batch, x))[0]
        z = layer.forward(*arguments(spoilt.for_reading(), batch, x))[0]
        assert np.array_equal(np.isnan(z), np.isnan(expected)), name
        assert np.array_equal(np.isinf(z), np.isinf(expected)) and not np.isfinite(z).all(), name


def test_what_it_does_not_take_is_left_to_the_formula():
    rng = np.random.default_rng(4)
    of, batch = model(), batch_of([25], rng, False)
    x, reading = rng.standard_normal((25, 48)).astype(np.float32), of.for_reading()
    taken = lambda *given, **more: layer.forward(*arguments(*given, **more)) is not NotImplemented
    assert taken(reading, batch, x)
    assert not taken(of, batch, x), "weights that may change"
    assert not taken(reading, batch, x, keep=encoder.Keep(True, False)) and not taken(reading, batch, x, keep=encoder.Keep(False, True))
    assert not taken(reading, batch, x, keys=np.ones((3, 25), np.uint64)), "dropout"
    assert not taken(reading, batch, x.astype(np.float64)) and not taken(reading, batch, x.astype(np.float16))
    assert not taken(reading, batch, np.asfortranarray(x)) and not taken(reading, batch, x[:, :47].copy())
    assert not taken(model(4, 80, 2).for_reading(), batch, x[:, :4].copy()), "narrower than a tile"
    many = batch_of([layer._FEW + 1], rng, False)
    assert not taken(reading, many, np.ones((layer._FEW + 1, 48), np.float32)), "many rows"


def test_a_model_that_is_read_answers_by_it(monkeypatch):
    """The [CLS] rows alone in the last layer; and as without it."""
    of, rng = model(), np.random.default_rng(5)
    batch, ask = batch_of([7, 25], rng, False), {"hidden": (), "scores": (), "keep_cache": False}
    plain = of.forward_batch(batch, **ask)[0].logits
    answers = []

    def spy(*given):
        answers.append(layer.forward(*given))
        return answers[-1]

    assert TABLE[unwrap(encoder.forward)] is layer.forward
    monkeypatch.setitem(device.KERNELS["cpu"], unwrap(encoder.forward), spy)
    logits = of.for_reading().forward_batch(batch, **ask)[0].logits
    assert [answer[0].shape for answer in answers] == [(32, 48), (2, 48)]
    assert_close("logits", logits, plain, TOLERANCE[np.float32], 1e-3)
