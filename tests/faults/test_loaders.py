"""Loaders take a file or end in one line, whatever its bytes: some hundred mutants of each, the same at every run."""

import pytest

from .campaign import Worker, good
from .loaders import LOADERS

COUNT = 300  # `python -m tests.faults.campaign` tries more


@pytest.fixture(scope="module")
def worker():
    made = Worker()
    yield made
    made.close()


@pytest.mark.parametrize("name", LOADERS)
def test_a_mutant_works_or_is_refused_in_one_line(worker, name):
    count = COUNT // LOADERS[name].cost
    ends = dict(worker.judge(name, 0, 0, count))
    assert len(ends) == count
    assert not {number: verdict for number, verdict in ends.items() if not good(verdict)}
