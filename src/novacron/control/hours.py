"""Time windows on the clock: when one is open, and whether what is to be done in it fits.

Times of day are read as RFC 5545 reads them: one that the clocks skip is as much later, and one that they show twice is
the first. So a night in which the clocks change is an hour shorter or longer, and no window opens twice.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final, get_args
from zoneinfo import ZoneInfo

from novacron.control.errors import WindowShortError
from novacron.core.errors import InvalidInputError
from novacron.protocol.plan import Prediction
from novacron.protocol.time_window import Day, TimeWindow

DAYS: Final = get_args(Day)
LOOKS_AHEAD: Final = range(-1, 15)  # days: from yesterday's night on, to the same day in two weeks
HELP: Final = "novacron migrate --help"
MINUTE_S: Final = 60


@dataclass(frozen=True, slots=True)
class Opening:
    """One time that a window is open; seconds since 1970."""

    begins_at: float
    ends_at: float

    @property
    def length_s(self) -> float:
        """How long it is open."""
        return self.ends_at - self.begins_at


@dataclass(frozen=True, slots=True)
class Wait:
    """Until when something does not begin, and why."""

    begins_at: float
    why: str


def check(window: TimeWindow | None) -> None:
    """Raises InvalidInputError for a zone that is not known, and for a window that never closes."""
    if window is None:
        return
    zone_of(window.zone)
    if window.opens == window.closes and len(set(window.days)) in {0, len(DAYS)}:
        raise InvalidInputError(
            f"a window from {window.opens} to {window.closes} on every day is always open: leave it out, or name days",
            next_command=HELP,
        )


def opening(window: TimeWindow, now: float) -> Opening:
    """The one that it is in, or the next; those that meet are one."""
    zone = zone_of(window.zone)
    today = datetime.fromtimestamp(now, zone).date()
    found: Opening | None = None
    for ahead in LOOKS_AHEAD:
        one = _on(window, zone, today + timedelta(days=ahead))
        if one is None or one.ends_at <= now:
            continue
        if found is None:
            found = one
        elif one.begins_at <= found.ends_at:
            found = Opening(found.begins_at, one.ends_at)
        else:
            break
    if found is None:
        raise InvalidInputError(f"the window {text(window)} does not open within two weeks", next_command=HELP)
    return found


def wait_for(window: TimeWindow | None, now: float) -> Wait | None:
    """None while it is open."""
    if window is None or (next_one := opening(window, now)).begins_at <= now:
        return None
    return Wait(next_one.begins_at, f"its window is {text(window)}")


def wait_for_room(window: TimeWindow | None, predicted: Prediction | None, now: float) -> Wait | None:
    """None where what is predicted is through before the window closes, at its most, or need not be.

    Raises WindowShortError for what does not fit into a whole window, or is not expected to end.
    """
    if window is None or window.overrun:
        return None
    way_out = f"{HELP} (--overrun begins all the same)"
    if predicted is None:
        raise WindowShortError(
            f"as the guest is now it would not end within its window {text(window)}", next_command=way_out
        )
    now_open = opening(window, now)
    takes_s = predicted.total_ms.high / 1000
    if now_open.begins_at <= now and now + takes_s <= now_open.ends_at:
        return None
    following = now_open if now_open.begins_at > now else opening(window, now_open.ends_at)
    if takes_s > following.length_s:
        raise WindowShortError(
            f"it may take {_span(takes_s)}, and its window {text(window)} is open for {_span(following.length_s)}",
            next_command=way_out,
        )
    return Wait(
        following.begins_at, f"it may take {_span(takes_s)}, and its window closes in {_span(now_open.ends_at - now)}"
    )


def text(window: TimeWindow) -> str:
    """As people write it."""
    days = f"{','.join(day for day in DAYS if day in window.days)} " if window.days else ""
    return f"{days}{window.opens}-{window.closes} {window.zone}"


def _on(window: TimeWindow, zone: ZoneInfo, day: date) -> Opening | None:
    """The one that begins on a day; None when there is none, or the clocks skip all of it."""
    if window.days and DAYS[day.weekday()] not in window.days:
        return None
    opens, closes = time.fromisoformat(window.opens), time.fromisoformat(window.closes)
    last = day if closes > opens else day + timedelta(days=1)
    begins_at, ends_at = (datetime.combine(*at, zone).timestamp() for at in ((day, opens), (last, closes)))
    return Opening(begins_at, ends_at) if ends_at > begins_at else None


def zone_of(name: str) -> ZoneInfo:
    """By its IANA name; raises InvalidInputError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInputError(
            f"there is no time zone {name!r}: write it like Europe/Berlin", next_command=HELP
        ) from error


def _span(seconds: float) -> str:
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / MINUTE_S), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
