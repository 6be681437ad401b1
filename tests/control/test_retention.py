"""Which restore points stay: properties that hold for all of them, and the borders of the calendar."""

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, strategies as st

from novacron.control.retention import DAY_S, PERIODS, decide
from novacron.core.errors import InvalidInputError
from novacron.protocol.retention import KeepRules, RestorePoint

HOUR_S = 3600
START = datetime.fromisoformat("2026-03-01T00:00+00:00").timestamp()
SPAN = 400 * 24  # hours over which points are made
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe")
NONE = KeepRules(days=0, minimum=1)
END = START + SPAN * HOUR_S

counts = st.integers(0, 5)
rules = st.builds(
    KeepRules,
    days=st.integers(0, 60),
    hourly=counts,
    daily=counts,
    weekly=counts,
    monthly=counts,
    yearly=counts,
    minimum=st.integers(1, 6),
    zone=st.sampled_from(ZONES),
)
times = st.lists(st.integers(0, SPAN * 4), max_size=40).map(lambda quarters: [START + q * HOUR_S / 4 for q in quarters])


def made(moments, held=()) -> list[RestorePoint]:
    """In the order in which they were made."""
    return [RestorePoint(f"p{number}", at, number in held) for number, at in enumerate(moments)]


def stay(points, keep, now=END) -> set[str]:
    return {verdict.id for verdict in decide(points, keep, now) if verdict.stays}


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@given(times, rules, st.sets(st.integers(0, 39)), st.integers(-10 * DAY_S, 500 * DAY_S))
def test_there_are_never_fewer_than_the_minimum_and_held_ones_stay(moments, keep, held, since):
    points = made(moments, held)
    verdicts = decide(points, keep, START + since)
    assert [verdict.id for verdict in verdicts] == [point.id for point in points]
    assert all(verdict.why for verdict in verdicts)
    kept = {verdict.id for verdict in verdicts if verdict.stays}
    assert len(kept) >= min(keep.minimum, len(points))
    assert {point.id for point in points if point.held} <= kept


@given(times, rules, st.integers(0, SPAN), st.integers(0, SPAN))
def test_what_goes_would_have_gone_at_any_later_time_too(moments, keep, hours, more):
    points = made(sorted(moments))
    now, later = START + hours * HOUR_S, START + (hours + more) * HOUR_S
    assert stay(points, keep, later) <= stay(points, keep, now)


@given(times, rules, st.integers(0, 40))
def test_a_newer_point_never_brings_one_back(moments, keep, number):
    points = made(sorted(moments))
    before = points[:number]
    assert stay(points, keep) & {point.id for point in before} <= stay(before, keep)


@given(times, rules)
def test_once_what_goes_is_gone_the_others_stay(moments, keep):
    points = made(sorted(moments))
    kept = [point for point in points if point.id in stay(points, keep)]
    assert stay(kept, keep) == {point.id for point in kept}


@given(times, rules, rules)
def test_a_rule_more_never_removes_one_more(moments, keep, other):
    both = {name: max(getattr(keep, name), getattr(other, name)) for name in ("days", "minimum", *PERIODS)}
    points = made(moments)
    assert stay(points, keep) <= stay(points, msgspec.structs.replace(keep, **both))


@given(times, rules, st.integers(0, 40), st.integers(1, 10**9))
def test_a_point_of_the_future_stays_and_makes_no_other_go(moments, keep, number, ahead_s):
    points = made(moments)
    future = RestorePoint("future", END + ahead_s)
    more = [*points[:number], future, *points[number:]]
    assert stay(more, keep) == stay(points, keep) | {"future"}


@given(times, rules, st.integers(1, 40), st.integers(1, SPAN * HOUR_S))
def test_a_point_made_with_a_clock_behind_makes_no_other_go_and_stays_with_the_one_before(
    moments, keep, number, behind_s
):
    points = made(sorted(moments) or [START])
    before = points[:number]
    behind = RestorePoint("behind", before[-1].created_at - behind_s)
    kept = stay([*before, behind, *points[number:]], keep)
    assert kept - {"behind"} == stay(points, keep)
    assert "behind" in kept or before[-1].id not in kept


@given(times, rules, st.integers(1, 10**9))
def test_a_clock_that_is_far_behind_or_ahead_removes_nothing(moments, keep, by_s):
    points = made(moments)
    assert stay(points, keep, START - by_s) == {point.id for point in points}
    assert stay(points, keep, END + by_s) == stay(points, keep, END)


@given(times, st.sampled_from([*PERIODS]), st.integers(1, 5), st.sampled_from(ZONES))
def test_a_period_keeps_its_newest_point_and_only_that(moments, rule, count, zone):
    keep = msgspec.structs.replace(NONE, zone=zone, **{rule: count})
    points = made(sorted(set(moments)))
    newest = {PERIODS[rule](datetime.fromtimestamp(point.created_at, ZoneInfo(zone))): point.id for point in points}
    assert len(newest) == len(stay(points, msgspec.structs.replace(keep, **{rule: 10_000})))
    assert stay(points, keep) <= set(newest.values())
    assert len(stay(points, keep)) == min(count, len(newest))


def test_by_default_thirty_days_stay():
    points = made([END - 31 * DAY_S, END - 30 * DAY_S, END - 2 * DAY_S, END - DAY_S, END])
    assert stay(points, KeepRules()) == {"p1", "p2", "p3", "p4"}
    assert decide(points, KeepRules(), END)[0].why == ("31.0 days older than the newest",)


@pytest.mark.parametrize(
    ("rule", "zone", "first", "second"),
    [
        ("hourly", "UTC", at("2026-07-01 11:59"), at("2026-07-01 12:00")),
        ("hourly", "Asia/Kolkata", at("2026-07-01 06:29"), at("2026-07-01 06:30")),
        (
            "hourly",
            "Europe/Berlin",
            at("2026-10-25 02:30", "Europe/Berlin"),
            at("2026-10-25 02:30", "Europe/Berlin", 1),
        ),
        ("daily", "Europe/Berlin", at("2026-06-30 21:59"), at("2026-06-30 22:00")),
        ("daily", "Europe/Berlin", at("2026-12-31 22:59"), at("2026-12-31 23:00")),
        ("weekly", "UTC", at("2027-01-03 23:59"), at("2027-01-04 00:00")),
        ("monthly", "UTC", at("2028-02-29 23:59"), at("2028-03-01 00:00")),
        ("yearly", "America/St_Johns", at("2027-01-01 03:29"), at("2027-01-01 03:30")),
    ],
)
def test_a_border_lies_where_the_clocks_of_the_zone_show_it(rule, zone, first, second):
    keep = msgspec.structs.replace(NONE, zone=zone, **{rule: 2})
    assert stay(made([first, second]), keep, second) == {"p0", "p1"}
    assert stay(made([first - 60, first, second]), keep, second) == {"p1", "p2"}


@pytest.mark.parametrize(
    ("rule", "first", "second"),
    [
        ("weekly", "2026-12-31 12:00", "2027-01-01 12:00"),  # ISO week 53 of 2026
        ("daily", "2026-03-29 00:30", "2026-03-29 23:30"),  # 23 hours
        ("daily", "2026-10-25 00:10", "2026-10-25 23:50"),  # 25 hours
    ],
)
def test_what_the_calendar_has_in_one_is_one(rule, first, second):
    keep = msgspec.structs.replace(NONE, zone="Europe/Berlin", **{rule: 5})
    points = made([at(first, "Europe/Berlin"), at(second, "Europe/Berlin")])
    older, newer = decide(points, keep, points[1].created_at)
    assert (older.stays, newer.stays) == (False, True)
    assert older.why[-1].endswith("has a newer one")


def test_each_rule_says_why_a_point_goes():
    points = made([at("2026-07-01 12:00"), at("2026-07-02 12:00"), at("2026-07-03 12:00")])
    keep = KeepRules(days=1, daily=2, monthly=1, minimum=1)
    gone, middle, newest = decide(points, keep, points[-1].created_at)
    assert not gone.stays
    assert gone.why == (
        "2.0 days older than the newest",
        "daily 2: there are 2 newer than 2026-07-01",
        "monthly 1: 2026-07 has a newer one",
    )
    assert middle.why == ("within 1 days of the newest", "daily 2: 2026-07-02")
    assert newest.why[0] == "one of the newest 1"


def test_a_zone_that_is_not_known_is_told():
    with pytest.raises(InvalidInputError, match="Berlino"):
        decide([], KeepRules(zone="Europe/Berlino"), END)
