"""What the benchmark of predictions draws, and how it judges what was said and what came."""

import json

import pytest
from click.testing import CliRunner

from novacron.core.units import MIB, PAGE_BYTES
from novacron.launch.bench.accuracy import Foretold, by_plan, early_error, judge, judge_early
from novacron.launch.bench.errors import BenchError
from novacron.launch.bench.prediction import accuracy, command
from novacron.launch.bench.variety import FASTEST_BYTES_S, SLOWEST_BYTES_S, draw
from novacron.protocol.migration import MigrationProgress
from novacron.protocol.plan import Interval
from novacron.protocol.resources import Migration, ProgressPoint


def foretold(came, low=50.0, value=100.0, high=200.0, figure="total_ms"):
    return Foretold(figure, Interval(value, low, high), came)


def migration(**more):
    return Migration("m", "v", "web", "a", "b", "outgoing", "window", started_at=1000.0, **more)


def test_the_same_seed_draws_the_same_and_guests_have_room_for_what_they_hold():
    settings = [draw(1, number) for number in range(50)]
    assert settings == [draw(1, number) for number in range(50)]
    assert settings != [draw(2, number) for number in range(50)]
    assert all(SLOWEST_BYTES_S <= one.link.rate_bytes_s <= FASTEST_BYTES_S for one in settings)
    for one in settings:
        said = dict(part.removeprefix("novacron.").split("=") for part in one.arguments.split() if "=" in part)
        pages = int(said["hot"]) + int(said["cold"])
        assert one.memory_bytes >= pages * PAGE_BYTES + 96 * MIB
        assert int(said["rate"]) * PAGE_BYTES < one.link.rate_bytes_s


def test_errors_are_shares_of_what_came_and_bounds_count_as_inside():
    one = foretold(125.0)
    assert (one.error, one.inside, one.width) == (0.2, True, 4.0)
    assert [foretold(came).inside for came in (49.9, 50.0, 200.0, 200.1)] == [False, True, True, False]


def test_each_figure_is_judged_by_itself():
    figures = [foretold(100.0 + n) for n in range(19)] + [foretold(1000.0)]
    others = [foretold(200.0, figure=name) for name in ("downtime_ms", "wire_bytes")]
    total, downtime, _ = judge([*figures, *others])
    assert (total.figure, total.count, total.inside, total.width) == ("total_ms", 20, 0.95, 4.0)
    assert total.median_error == pytest.approx((9 / 109 + 10 / 110) / 2)
    assert 18 / 118 < total.p95_error < 0.9
    assert (downtime.count, downtime.median_error, downtime.p95_error, downtime.inside) == (1, 0.5, 0.5, 1.0)


def test_the_first_word_after_a_twentieth_of_the_time_counts():
    def point(at, eta_ms):
        return ProgressPoint(at, MigrationProgress("copy", eta_ms=eta_ms))

    series = [point(1000.5, 1), point(1001.0, None), point(1001.5, 20_500), point(1010.0, 10_000), point(1020.0, 0)]
    assert early_error(migration(), series) == pytest.approx(0.1)
    assert early_error(migration(), series[:-1]) is None  # it never ended
    assert early_error(migration(), [series[0], series[-1]]) is None
    assert judge_early([0.1, 0.3]).median_error == pytest.approx(0.2)


def test_without_a_plan_or_an_end_nothing_was_foretold():
    assert by_plan(migration()) == []
    with pytest.raises(BenchError, match="no plan"):
        accuracy([])


@pytest.mark.soak
def test_a_guest_moves_by_its_plan_and_the_report_holds_what_was_said():
    done = CliRunner().invoke(command, ["--runs", "1", "--output", "json"], catch_exceptions=False)
    report = json.loads(done.stdout)
    (run,) = report["runs"]
    assert [one["figure"] for one in run["foretold"]] == ["total_ms", "downtime_ms", "wire_bytes"]
    assert all(one["came"] > 0 and one["said"]["low"] <= one["said"]["value"] for one in run["foretold"])
    assert [one["count"] for one in report["accuracy"]][:3] == [1, 1, 1]
    assert "move 1: total_ms" in done.stderr
