"""What every rule promises, see optapi/testing.py: each promise, over all rows of the registry."""

import pytest
from registry import COMPARING, ROWS, SEARCHING, SOME_ROWS, public_rules, readme_rule

from optapi.testing import PROMISES, check_promise


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("row", SOME_ROWS, ids=str)
def test_promise(row, promise):
    check_promise(row, promise)


def test_every_rule_is_registered():
    names = {row.rule.__name__ for row in ROWS if row.rule not in public_rules()}
    assert set(public_rules()) <= {row.rule for row in ROWS}
    assert names == {readme_rule().__name__}


def test_what_a_rule_needs_is_found_out():
    assert {row.rule.__name__ for row in ROWS if row.searches} == SEARCHING
    assert {row.rule.__name__ for row in ROWS if row.needs_residuals} == {"gauss_newton", "levenberg_marquardt"}
    for row in ROWS:
        name = row.rule.__name__
        assert row.needs_cost == (name in SEARCHING or name in COMPARING or str(row) in COMPARING), row
