import numpy as np

from minitinybert.ops import embedding


def drawn(rows=(3, 4)):
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, n, rows) for n in (5, 4, 2)]
    tables = [rng.standard_normal((n, 3)) for n in (5, 4, 2)]
    y, cache = embedding.forward(*ids, *tables)
    return ids, cache, rng.standard_normal(y.shape)


def test_a_row_s_gradient_is_the_sum_over_its_uses():
    ids, cache, dy = drawn()
    for table_ids, gradient in zip(ids, embedding.backward(dy, cache), strict=True):
        for row, value in enumerate(gradient):
            assert np.allclose(value, dy[table_ids == row].sum(axis=0), atol=1e-14)


def test_rows_nobody_asked_for_have_none():
    ids = np.array([3, 3, 3])
    _, cache = embedding.forward(ids, ids, ids * 0, np.ones((9, 2)), np.ones((9, 2)), np.ones((1, 2)))
    dW, dP, dS = embedding.backward(np.ones((3, 2)), cache)
    assert dW[3].tolist() == dP[3].tolist() == dS[0].tolist() == [3.0, 3.0]
    assert not np.delete(dW, 3, axis=0).any() and not np.delete(dP, 3, axis=0).any()


def test_given_arrays_are_added_to():
    """The tied decoder of the masked language model writes its share of dW first."""
    _, cache, dy = drawn()
    gradients = embedding.backward(dy, cache)
    out = tuple(np.full(g.shape, 2.0) for g in gradients)
    assert embedding.backward(dy, cache, out) is out
    for total, gradient in zip(out, gradients, strict=True):
        assert np.allclose(total, 2 + gradient, rtol=1e-14)


def test_tables_are_not_changed_by_the_forward():
    tables = [np.zeros((3, 2)) for _ in range(3)]
    ids = np.zeros((1, 1), int)
    embedding.forward(ids, ids, ids, tables[0] + 1, tables[1] + 2, tables[2] + 3)
    y, _ = embedding.forward(ids, ids, ids, *tables)
    y += 1
    assert not any(table.any() for table in tables)
