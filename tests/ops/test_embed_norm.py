import numpy as np

from minitinybert.ops import dropout, embed_norm, embedding, layer_norm
from minitinybert.ops.embedding import Ids, Tables


def test_it_is_its_parts():
    rng = np.random.default_rng(0)
    tables = Tables(*(rng.standard_normal((rows, 5)) for rows in (9, 4, 2)))
    ids = Ids(*(rng.integers(0, rows, 7) for rows in (9, 4, 2)))
    gain, bias = rng.standard_normal((2, 5))
    keys = np.arange(7, dtype=np.uint64)
    y, cache = embed_norm.forward(ids, tables, gain, bias, 1e-5, 0.3, keys)
    e = tables.words[ids.words] + tables.positions[ids.positions] + tables.segments[ids.segments]
    z, c_norm = layer_norm.forward(e, gain, bias, 1e-5)
    expected, c_drop = dropout.forward(z, 0.3, keys)
    assert np.allclose(y, expected, rtol=1e-12)
    dy = rng.standard_normal(y.shape)
    de, dgain, dbias = embed_norm.backward(dy, cache)
    expected, dgain_2, dbias_2 = layer_norm.backward(dropout.backward(dy, c_drop), c_norm)
    assert np.allclose(de, expected) and np.allclose(dgain, dgain_2) and np.allclose(dbias, dbias_2)
    dW, _, _ = embedding.backward(de, cache.lookup)
    assert np.allclose(dW[ids.words[0]], de[ids.words == ids.words[0]].sum(0))
