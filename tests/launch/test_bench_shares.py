"""What the benchmark of shares makes of the points that migrations told, and that its guests really move."""

import pytest

from novacron.launch.bench.errors import BenchError
from novacron.launch.bench.fairness import judge, mover
from novacron.launch.bench.shares import Run, _row
from novacron.protocol.migration import MigrationProgress
from novacron.protocol.resources import ProgressPoint


def series(begins: float, rate: int, seconds: int, step: float = 1.0) -> list[ProgressPoint]:
    """Ready at first, then ``rate`` bytes a second, then verifying."""
    first = [ProgressPoint(begins - 1, MigrationProgress("prepare")), ProgressPoint(begins, MigrationProgress("copy"))]
    count = int(seconds / step)
    sent = [MigrationProgress("copy", wire_bytes=round(rate * step * n)) for n in range(1, count + 1)]
    last = MigrationProgress("verify", wire_bytes=rate * seconds * 10)
    return [
        *first,
        *(ProgressPoint(begins + step * n, progress) for n, progress in enumerate(sent, 1)),
        ProgressPoint(begins + seconds + 5, last),
    ]


def test_only_the_time_counts_in_which_all_have_something_to_send():
    found = judge(
        [
            mover("early", 1.0, series(100, 1000, 20)),
            mover("late", 1.0, series(110.3, 1000, 20)),
            mover("double", 2.0, series(100, 2000, 30, step=0.7)),
        ]
    )
    assert found.seconds == pytest.approx(120 - 111.3)
    assert found.rate_bytes_s == pytest.approx(4000)
    assert [part.of_fair for part in found.parts] == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)
    assert (found.deviation, found.jain) == pytest.approx((0.0, 1.0), abs=1e-3)


def test_one_that_has_more_than_its_share_is_the_one_that_is_farthest_off():
    found = judge([mover("greedy", 1.0, series(0, 3000, 20)), mover("meek", 1.0, series(0, 1000, 20))])
    assert [part.of_fair for part in found.parts] == pytest.approx([1.5, 0.5])
    assert found.deviation == pytest.approx(0.5)
    assert found.jain == pytest.approx(4**2 / (2 * (3**2 + 1)))
    row = _row("alike", [Run("alike", found, 21_000, 0), Run("alike", found, 23_000, 1)])
    assert row[:3] == ["alike", "2", "22 s"]
    assert row[5:] == ["0.500", "1.500", "50.0%", "0.8000", "1"]


@pytest.mark.parametrize("late", [[], series(100, 1000, 5)])
def test_without_such_a_time_there_is_nothing_to_judge(late):
    with pytest.raises(BenchError, match="take a slower link"):
        judge([mover("one", 1.0, series(0, 1000, 5)), mover("two", 1.0, late)])
