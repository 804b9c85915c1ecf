"""Every operation under every law, over shapes, options and layouts that Hypothesis chooses."""

import laws
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.audit import CASES

OPERATIONS = [case for case in CASES if case.name.startswith("ops.")]
named = pytest.mark.parametrize("case", OPERATIONS, ids=lambda case: case.name)


@named
@pytest.mark.parametrize("law", laws.PURE, ids=lambda law: law.__name__)
@given(data=st.data())
def test_law(case, law, data):
    law(case, laws.HypothesisDraw(data))


@named
def test_stored(case):
    laws.check_stored(case)
