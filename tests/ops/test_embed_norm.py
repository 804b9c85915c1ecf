import numpy as np

from minitinybert.ops import dropout, embed_norm, embedding, layer_norm


def test_it_is_its_parts_and_adds_up_what_is_said_of_it():
    rng = np.random.default_rng(0)
    W, P, S = (rng.standard_normal((rows, 5)) for rows in (9, 4, 2))
    ids = [rng.integers(0, rows, 7) for rows in (9, 4, 2)]
    gain, bias = rng.standard_normal((2, 5))
    keys = np.arange(7, dtype=np.uint64)
    y, cache = embed_norm.forward(*ids, W, P, S, gain, bias, 1e-5, 0.3, keys)
    z, c_norm = layer_norm.forward(W[ids[0]] + P[ids[1]] + S[ids[2]], gain, bias, 1e-5)
    expected, c_drop = dropout.forward(z, 0.3, keys)
    assert np.allclose(y, expected, rtol=1e-12)
    dy = rng.standard_normal((3, *y.shape))
    out = np.full(5, np.nan), np.full(5, np.nan)
    de, dgain, dbias = embed_norm.backward(dy[0], cache, out, tuple(dy[1:]))
    expected, dgain_2, dbias_2 = layer_norm.backward(dropout.backward(dy.sum(0), c_drop), c_norm)
    assert np.allclose(de, expected) and np.allclose(dgain, dgain_2) and np.allclose(dbias, dbias_2)
    assert dgain is out[0] and dbias is out[1]
    dW, _, _ = embedding.backward(de, cache.lookup)
    assert np.allclose(dW[ids[0][0]], de[ids[0] == ids[0][0]].sum(0))


def test_for_a_forward_pass_alone_nothing_is_kept():
    rng = np.random.default_rng(1)
    arguments = *(np.arange(2),) * 3, *rng.standard_normal((3, 2, 5)), *rng.standard_normal((2, 5)), 1e-5
    y, cache = embed_norm.forward(*arguments, keep_cache=False)
    assert np.array_equal(y, embed_norm.forward(*arguments)[0]) and cache.norm.x_hat is None
