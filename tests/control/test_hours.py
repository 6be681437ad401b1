"""Time windows on the clock, in nights in which the clocks change too."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from novacron.control import hours
from novacron.control.errors import WindowShortError
from novacron.control.hours import Opening, opening, wait_for, wait_for_room
from novacron.core.errors import InvalidInputError
from novacron.protocol.plan import Interval, Prediction
from novacron.protocol.time_window import TimeWindow

BERLIN = "Europe/Berlin"
HOUR_S = 3600
NIGHT = TimeWindow("22:00", "05:00", BERLIN)
WEEKEND = TimeWindow("00:00", "00:00", BERLIN, ("sat", "sun"))


def at(text: str, zone: str = BERLIN) -> float:
    """Of a time of day that the clocks show once."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def predicted(at_most_s: float) -> Prediction:
    some = Interval(1, 1, 1)
    return Prediction(Interval(at_most_s * 500, at_most_s * 250, at_most_s * 1000), some, some)


@pytest.mark.parametrize(
    ("window", "now", "begins", "ends"),
    [
        (NIGHT, "2026-07-01 12:00", "2026-07-01 22:00", "2026-07-02 05:00"),
        (NIGHT, "2026-07-01 23:00", "2026-07-01 22:00", "2026-07-02 05:00"),
        (NIGHT, "2026-07-02 04:59", "2026-07-01 22:00", "2026-07-02 05:00"),
        (NIGHT, "2026-07-02 05:00", "2026-07-02 22:00", "2026-07-03 05:00"),
        (TimeWindow("09:00", "17:30", BERLIN), "2026-07-01 18:00", "2026-07-02 09:00", "2026-07-02 17:30"),
        (TimeWindow("22:00", "05:00", BERLIN, ("fri",)), "2026-07-04 03:00", "2026-07-03 22:00", "2026-07-04 05:00"),
        (TimeWindow("22:00", "05:00", BERLIN, ("fri",)), "2026-07-04 06:00", "2026-07-10 22:00", "2026-07-11 05:00"),
        (WEEKEND, "2026-07-01 00:00", "2026-07-04 00:00", "2026-07-06 00:00"),
        (WEEKEND, "2026-07-05 12:00", "2026-07-05 00:00", "2026-07-06 00:00"),
    ],
)
def test_a_window_is_the_one_that_is_open_or_the_next(window, now, begins, ends):
    assert opening(window, at(now)) == Opening(at(begins), at(ends))


def test_the_zone_is_what_counts_and_not_where_the_controller_runs():
    assert opening(TimeWindow("22:00", "05:00"), 0).begins_at == -2 * HOUR_S
    tokyo = TimeWindow("22:00", "05:00", "Asia/Tokyo")
    assert opening(tokyo, 0) == Opening(13 * HOUR_S, 20 * HOUR_S)


@pytest.mark.parametrize(
    ("night", "length_h"), [("2026-03-28 23:00", 6), ("2026-10-24 23:00", 8), ("2026-07-01 23:00", 7)]
)
def test_a_night_in_which_the_clocks_change_is_an_hour_shorter_or_longer(night, length_h):
    assert opening(NIGHT, at(night)).length_s == length_h * HOUR_S


def test_a_time_that_the_clocks_skip_is_as_much_later_and_one_that_they_show_twice_is_the_first():
    skipped = opening(TimeWindow("02:15", "04:00", BERLIN), at("2026-03-29 00:00"))
    assert skipped == Opening(at("2026-03-29 03:15"), at("2026-03-29 04:00"))
    gone = opening(TimeWindow("02:30", "03:15", BERLIN), at("2026-03-29 00:00"))
    assert gone.begins_at == at("2026-03-30 02:30")
    twice = opening(TimeWindow("02:00", "02:30", BERLIN), at("2026-10-25 00:00"))
    assert (twice.begins_at, twice.length_s) == (at("2026-10-25 00:00") + 2 * HOUR_S, HOUR_S / 2)
    assert opening(TimeWindow("02:00", "02:30", BERLIN), twice.ends_at).begins_at == at("2026-10-26 02:00")


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (TimeWindow("22:00", "05:00", "Europe/Nowhere"), "no time zone 'Europe/Nowhere'"),
        (TimeWindow("22:00", "05:00", "../etc/passwd"), "no time zone"),
        (TimeWindow("22:00", "05:00", "Europe"), "no time zone"),
        (TimeWindow("05:00", "05:00"), "is always open"),
        (TimeWindow("05:00", "05:00", days=("mon", "tue", "wed", "thu", "fri", "sat", "sun")), "is always open"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window, said):
    with pytest.raises(InvalidInputError, match=said):
        hours.check(window)


def test_what_has_no_window_or_an_open_one_does_not_wait():
    assert wait_for(None, 0) is None
    assert wait_for(NIGHT, at("2026-07-01 22:00")) is None
    wait = wait_for(NIGHT, at("2026-07-01 21:00"))
    assert (wait.begins_at, wait.why) == (at("2026-07-01 22:00"), "its window is 22:00-05:00 Europe/Berlin")
    assert "mon,sat 22:00" in wait_for(TimeWindow("22:00", "05:00", days=("sat", "mon")), at("2026-07-01 21:00")).why


def test_what_is_not_through_in_time_waits_for_the_next_window_unless_it_may_overrun():
    late = at("2026-07-02 03:00")
    assert wait_for_room(None, predicted(1e9), late) is None
    assert wait_for_room(NIGHT, predicted(2 * HOUR_S), late) is None
    wait = wait_for_room(NIGHT, predicted(2.5 * HOUR_S), late)
    assert wait.begins_at == at("2026-07-02 22:00")
    assert wait.why == "it may take 2 h 30 min, and its window closes in 2 h 00 min"
    overrun = TimeWindow("22:00", "05:00", BERLIN, overrun=True)
    assert wait_for_room(overrun, predicted(2.5 * HOUR_S), late) is None
    assert wait_for_room(overrun, None, late) is None


def test_a_window_that_has_closed_while_it_was_looked_is_waited_for():
    assert wait_for_room(NIGHT, predicted(1), at("2026-07-02 05:00")).begins_at == at("2026-07-02 22:00")


def test_what_fits_into_no_window_is_refused():
    with pytest.raises(WindowShortError, match=r"may take 7 h 30 min, .* is open for 7 h 00 min") as refused:
        wait_for_room(NIGHT, predicted(7.5 * HOUR_S), at("2026-07-02 03:00"))
    assert "--overrun" in refused.value.next_command
    with pytest.raises(WindowShortError, match="would not end"):
        wait_for_room(NIGHT, None, at("2026-07-02 03:00"))
