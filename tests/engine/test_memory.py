import numpy as np

from minitinybert.engine import memory


def test_added_leaves_its_terms_as_they_are():
    terms = np.random.default_rng(0).standard_normal((3, 4, 5))
    before = terms.copy()
    assert np.allclose(memory.added(*terms), before.sum(0)) and np.array_equal(terms, before)
    assert memory.added(before) is before
    assert memory.added(np.float64(1), np.float64(2)) == 3
