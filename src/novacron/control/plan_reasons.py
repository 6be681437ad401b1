"""Why a plan says what it says, in a few plain sentences."""

from collections.abc import Iterator
from typing import Final

from novacron.core.units import format_rate, format_size
from novacron.migration import prediction
from novacron.migration.prediction import Work
from novacron.protocol.migration import MigrationPolicy, Strategy
from novacron.protocol.plan import Held, LinkSample, Survey

THERE: Final = {
    "nothing": "Nothing of this VM lies at the other side.",
    "similar": "Something like this VM lies at the other side: half of it is expected to be right.",
    "same": "What this VM was when it came from there still lies there: only what has changed goes.",
}
ENDLESS: Final = {
    "stream": {
        "wait": "As it dirties them now it would never end: give --strategy cold, --when-busy stop, or more downtime.",
        "throttle": "The guest outruns the link: its CPUs are throttled until it does not.",
        "stop": "The guest outruns the link: it stands still once that shows, while the rest moves.",
        "postcopy": "The guest outruns the link: once that shows, another attempt lets it go ahead of its memory.",
    },
    "cold": {"wait": "Streamed it would never end, as the guest dirties its memory now: it stands still meanwhile."},
    "native": {
        "wait": "As it dirties them now it would never end, straight to the other side either.",
        "throttle": "The guest outruns the link: its CPUs are throttled until it does not.",
        "stop": "The guest outruns the link: it stands still once that shows, while the rest moves.",
        "postcopy": "The guest outruns the link: once that shows, another attempt lets it go ahead of its memory.",
    },
}
GOES_AHEAD: Final = (
    "It runs over there before all of its memory has come. Until the rest has followed there is no way back, it waits "
    "wherever it needs what has not come, and what has not come is lost if its QEMU here dies."
)
AS_ASKED: Final = "As was asked for, the guest stands still while its memory moves."


def reasons(
    survey: Survey, held: Held, link: LinkSample, policy: MigrationPolicy, strategy: Strategy, *, probed: bool
) -> Iterator[str]:
    """About the link, what there is to move, what is there already, and whether the rounds end."""
    work = Work.of(survey, held, disks=policy.move_disks)
    bytes_s = prediction.rate(link, policy)
    source = "a short probe" if probed else "the migrations before"
    limited = f", of which it may have {format_rate(bytes_s)}" if bytes_s < link.rate_bytes_s else ""
    yield f"The link gives {format_rate(link.rate_bytes_s)}, {link.rtt_ms:.0f} ms there and back, by {source}{limited}."
    yield (
        f"Of {format_size(survey.memory_bytes)} of memory {format_size(survey.zero_bytes)} are zero; the rest comes to "
        f"{format_size(work.memory_wire_bytes)} on the wire, the disks to {format_size(work.disk_wire_bytes)}."
    )
    yield THERE[held]
    if not survey.running:
        yield "The VM is paused: it dirties nothing."
        return
    yield (
        f"The guest dirties {format_rate(survey.dirty_bytes_s)}; "
        f"{format_rate(prediction.through(work, bytes_s))} of what it has dirtied gets through."
    )
    if strategy == "native":
        work = work.straight()
        yield (
            f"Straight from QEMU to QEMU the link takes {format_size(work.filled_bytes)} of memory as it is, "
            f"while this node would make frames of {format_rate(survey.encode_bytes_s)}."
        )
    moved = prediction.rounds(work, bytes_s, policy)
    if strategy == "postcopy":
        yield "As was asked for, its memory follows it." if moved.converges else "Streamed it would never end."
        yield GOES_AHEAD
        return
    if moved.converges and strategy == "cold":
        yield AS_ASKED
    elif moved.converges:
        yield f"It converges: after {moved.count} rounds what is left fits into the downtime."
    else:
        yield ENDLESS[strategy].get(policy.when_busy, AS_ASKED)
