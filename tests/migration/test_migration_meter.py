"""What a migration says of itself."""

from novacron.core.clock import ManualClock
from novacron.migration.meter import Meter
from novacron.migration.traffic import Traffic
from novacron.protocol.migration import Verdict


async def test_what_is_left_is_told_by_the_rate_of_the_copying_alone():
    clock = ManualClock()
    meter = Meter(clock)
    meter.plan(100_000_000)
    for _ in range(20):  # agreeing takes its time, and moves nothing
        await clock.advance(0.25)
        assert meter.progress().eta_ms is None
    meter.phase = "copy"
    meter.progress()
    for _ in range(8):
        await clock.advance(0.25)
        meter.ram.add(Traffic(literal_bytes=5_000_000, compressed_wire_bytes=1_000_000))
        said = meter.progress()
    assert (said.rate_bytes_s, said.wire_rate_bytes_s) == (20_000_000, 4_000_000)
    assert said.eta_ms == 3000


async def test_a_guest_that_outruns_the_link_is_named_from_the_third_round_on():
    meter = Meter(ManualClock(), phase="copy", dirty_rate_bytes_s=40e6)
    told = {"bandwidth_bytes_s": 20e6, "downtime_ms": 300}
    meter.judge(round_number=2, remaining_bytes=60_000_000, **told)
    assert (meter.progress().converging, meter.note) == (None, "")
    meter.judge(round_number=3, remaining_bytes=50_000_000, **told)
    assert meter.progress().converging is False
    assert "will not converge at this rate" in meter.progress().note
    meter.dirty_rate_bytes_s = 1e6
    meter.judge(round_number=4, remaining_bytes=30_000_000, **told)
    assert (meter.progress().converging, meter.note) == (True, "")


async def test_a_guest_that_dirties_the_same_pages_ever_again_is_named_too():
    meter = Meter(ManualClock(), phase="copy", dirty_rate_bytes_s=10e6)  # as a long round shows it
    told = {"bandwidth_bytes_s": 20e6, "downtime_ms": 300}
    for number in (1, 2, 3):
        meter.judge(round_number=number, remaining_bytes=32_000_000, **told)
    meter.judge(round_number=3, remaining_bytes=8_000_000, **told)  # later in the same round
    assert meter.converging is False
    meter.judge(round_number=4, remaining_bytes=5_000_000, **told)
    assert meter.converging is True  # it fits


async def test_the_total_never_shrinks_and_the_downtime_is_between_stop_and_start():
    clock = ManualClock()
    meter = Meter(clock, phase="copy")
    meter.plan(100)
    meter.plan(10)
    assert meter.progress().total_bytes == 100
    meter.stopped_at, meter.resumed_at = clock.monotonic() + 1, clock.monotonic() + 1.25
    await clock.advance(2)
    summary = meter.summary(guest_bytes=1000, wire_bytes=500, verdict=Verdict(alive=True, word="cpu"))
    assert (summary.downtime_ms, summary.total_ms, summary.bandwidth_bytes_s) == (250, 2000, 250)
