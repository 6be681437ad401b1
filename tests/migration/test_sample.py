"""What a sample of memory says of all of it."""

import math
import random

import pytest

from novacron.core.units import PAGE_BYTES
from novacron.migration.sample import Sample, dirtying, judge

PAGES = 1000


@pytest.mark.parametrize(("rate", "working"), [(0.05, 0.06), (0.3, 0.5), (0.01, 0.01), (0.1, 0.9)])
def test_the_rate_and_the_working_set_are_found_again(rate, working):
    def dirtied(seconds: float) -> float:
        return working * -math.expm1(-rate * seconds / working)

    found_rate, found_working = dirtying(dirtied(0.25), dirtied(1.0), 0.25, 1.0)
    assert found_rate == pytest.approx(rate, rel=0.01)
    assert found_working == pytest.approx(working, rel=0.05)


def test_what_grows_with_the_time_has_no_bound_and_what_does_not_grow_is_all():
    assert dirtying(0.0, 0.0, 0.25, 1.0) == (0.0, 0.0)
    assert dirtying(0.02, 0.1, 0.25, 1.0) == (0.1, 1.0)
    assert dirtying(0.1, 0.1, 0.25, 1.0) == (0.4, 0.1)


def test_costs_are_those_of_a_migration():
    dice = random.Random(7)
    filled = [dice.randbytes(PAGE_BYTES) if n % 2 else bytes(PAGE_BYTES) for n in range(PAGES)]
    later = [page[:-8] + b"changed!" if n % 10 == 1 else page for n, page in enumerate(filled)]
    first, third = b"".join(filled), b"".join(later)
    seen = judge(Sample(first, first, third, 0.25, 1.0), arrived=first, level=1)
    assert seen.zero_share == 0.5
    assert seen.cost == pytest.approx(0.5, rel=0.02)
    assert seen.return_cost < 0.01
    assert 0 < seen.again_cost < 0.05  # a few bytes a page
    assert (seen.dirty_share_s, seen.working_share) == (0.1, 1.0)
    assert judge(Sample(first, first, first, 0.25, 1.0), arrived=b"", level=1).return_cost == seen.cost
