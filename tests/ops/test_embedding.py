import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.ops import embedding
from minitinybert.ops.embedding import Ids, Tables


def drawn(rows=(3, 4)):
    rng = np.random.default_rng(0)
    ids = Ids(*(rng.integers(0, n, rows) for n in (5, 4, 2)))
    y, cache = embedding.forward(ids, Tables(*(rng.standard_normal((n, 3)) for n in (5, 4, 2))))
    return ids, cache, rng.standard_normal(y.shape)


def test_a_row_s_gradient_is_the_sum_over_its_uses():
    ids, cache, dy = drawn()
    for table_ids, gradient in zip(ids, embedding.backward(dy, cache), strict=True):
        for row, value in enumerate(gradient):
            assert np.allclose(value, dy[table_ids == row].sum(axis=0), atol=1e-14)


def test_rows_nobody_asked_for_have_none():
    ids = np.array([3, 3, 3])
    _, cache = embedding.forward(Ids(ids, ids, ids * 0), Tables(np.ones((9, 2)), np.ones((9, 2)), np.ones((1, 2))))
    dW, dP, dS = embedding.backward(np.ones((3, 2)), cache)
    assert dW[3].tolist() == dP[3].tolist() == dS[0].tolist() == [3.0, 3.0]
    assert not np.delete(dW, 3, axis=0).any() and not np.delete(dP, 3, axis=0).any()


def test_given_arrays_are_added_to():
    """The tied decoder of the masked language model writes its share of dW first."""
    _, cache, dy = drawn()
    gradients = embedding.backward(dy, cache)
    out = Tables(*(np.full(g.shape, 2.0) for g in gradients))
    assert embedding.backward(dy, cache, out) is out
    for total, gradient in zip(out, gradients, strict=True):
        assert np.allclose(total, 2 + gradient, rtol=1e-14)


def test_padding_s_row_gets_nothing_and_keeps_what_it_has():
    """As PyTorch's padding_idx: of the words alone, and what a tied decoder has put there stays."""
    ids, cache, dy = drawn()
    assert all((table_ids == 1).any() for table_ids in ids)
    whole = embedding.backward(dy, cache)
    for out, there in ((None, 0.0), (Tables(*(np.full(g.shape, 2.0) for g in whole)), 2.0)):
        words, *others = embedding.backward(dy, cache, out, padding_idx=1)
        assert np.array_equal(words[1], np.full(3, there)) and whole.words[1].any()
        assert np.allclose(np.delete(words, 1, axis=0), np.delete(there + whole.words, 1, axis=0), rtol=1e-14)
        for table, expected in zip(others, whole[1:], strict=True):
            assert np.allclose(table, there + expected, rtol=1e-14)


def test_tables_are_not_changed_by_the_forward():
    tables = Tables(*(np.zeros((3, 2)) for _ in range(3)))
    ids = np.zeros((1, 1), int)
    y, _ = embedding.forward(Ids(ids, ids, ids), Tables(*(table + i for i, table in enumerate(tables, 1))))
    assert y.tolist() == [[[6.0, 6.0]]]
    y, _ = embedding.forward(Ids(ids, ids, ids), tables)
    y += 1
    assert not any(table.any() for table in tables)


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 99))
def test_rows_are_added_as_often_as_their_id_occurs(ids, seed):
    rng = np.random.default_rng(seed)
    table, ids = rng.standard_normal((6, 3)), np.array(ids, np.int32)
    rows, expected = rng.standard_normal((len(ids), 3)), table.copy()
    np.add.at(expected, ids, rows)
    embedding.add_rows(table, ids, rows)
    assert np.allclose(table, expected, rtol=1e-12)
