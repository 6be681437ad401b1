"""What a prediction must be, whatever there is to move."""

import math
from dataclasses import replace

from hypothesis import assume, given, strategies as st

from novacron.core.units import GIB, KIB, MIB
from novacron.migration.prediction import Past, Work, choose, predict, rounds
from novacron.protocol.migration import ByteSplit, MigrationPolicy, MigrationSummary
from novacron.protocol.plan import Interval, LinkSample, Prediction

sizes = st.floats(0, 64 * GIB)
works = st.builds(
    Work,
    memory_bytes=st.integers(0, 64 * GIB),
    memory_wire_bytes=sizes,
    disk_bytes=sizes,
    disk_wire_bytes=sizes,
    dirty_bytes_s=st.floats(0, 10 * GIB),
    working_set_bytes=sizes,
    dirty_cost=st.floats(0, 1.1),
    encode_bytes_s=st.floats(1, 10 * GIB),
    filled_bytes=sizes,
    whole_wire_bytes=sizes,
    direct=st.booleans(),
)
links = st.builds(LinkSample, rate_bytes_s=st.floats(0, 10 * GIB), rtt_ms=st.floats(0, 1000))
policies = st.builds(
    MigrationPolicy,
    strategy=st.sampled_from(["stream", "cold", "native", "postcopy", "auto"]),
    when_busy=st.sampled_from(["wait", "throttle", "stop", "postcopy"]),
    max_downtime_ms=st.integers(1, 10_000),
    bandwidth_bytes_s=st.none() | st.integers(1, GIB),
)
BUSY = Work(512 * MIB, 256 * MIB, 0, 0, 100 * MIB, 512 * MIB, 1.0, GIB)
SLOW = LinkSample(1 * MIB, 20)


def figures(predicted: Prediction) -> list[Interval]:
    return [predicted.total_ms, predicted.downtime_ms, predicted.wire_bytes]


def foretold(work, link, policy) -> Prediction | None:
    return predict(work, link, policy, choose(work, link, policy), Past())


def ends(work, link, policy, strategy) -> bool:
    """Whether the rounds do, or there are none."""
    if strategy in {"cold", "postcopy"}:
        return True
    moved = work.straight() if strategy == "native" else work
    return rounds(moved, max(1, link.rate_bytes_s), policy).converges


@given(works, links, policies)
def test_every_figure_is_a_number_within_its_interval(work, link, policy):
    predicted = foretold(work, link, policy)
    if predicted is None:
        assert policy.strategy in {"stream", "native"}
        assert policy.when_busy == "wait"
        return
    for one in figures(predicted):
        assert 0 < one.low <= one.value <= one.high < math.inf


@given(works, links, policies, st.floats(1, 100))
def test_a_faster_link_never_takes_longer(work, link, policy, factor):
    slow = foretold(work, link, policy)
    strategy = choose(work, link, policy)
    fast = predict(work, replace_rate(link, factor), policy, strategy, Past())
    assume(slow is not None and ends(work, link, policy, strategy))
    assert fast is not None
    assert fast.total_ms.value <= slow.total_ms.value * (1 + 1e-9)
    assert fast.wire_bytes.value <= slow.wire_bytes.value * (1 + 1e-9)


@given(works, links, policies, st.floats(1, 10))
def test_more_to_move_never_takes_less(work, link, policy, factor):
    more = replace(
        work,
        memory_wire_bytes=work.memory_wire_bytes * factor,
        whole_wire_bytes=work.whole_wire_bytes * factor,
        filled_bytes=work.filled_bytes * factor,
        disk_bytes=work.disk_bytes * factor,
        disk_wire_bytes=work.disk_wire_bytes * factor,
    )
    strategy = choose(more, link, policy)
    little, much = (predict(one, link, policy, strategy, Past()) for one in (work, more))
    assume(little is not None and much is not None)
    assume(all(ends(one, link, policy, strategy) for one in (work, more)))
    assert little.total_ms.value <= much.total_ms.value * (1 + 1e-9)
    assert little.wire_bytes.value <= much.wire_bytes.value * (1 + 1e-9)


def test_a_page_that_is_relayed_costs_no_more_than_it_holds():
    assert replace(BUSY, filled_bytes=5e-324, whole_wire_bytes=1.0).relayed().dirty_cost == 1.0


def replace_rate(link: LinkSample, factor: float) -> LinkSample:
    return LinkSample(link.rate_bytes_s * factor, link.rtt_ms)


def test_a_guest_that_outruns_the_link_is_moved_cold_or_as_the_policy_says():
    assert choose(BUSY, SLOW, MigrationPolicy(strategy="auto")) == "cold"
    assert choose(BUSY, SLOW, MigrationPolicy(strategy="auto", when_busy="stop")) == "stream"
    ahead = MigrationPolicy(strategy="auto", when_busy="postcopy")
    assert choose(BUSY, SLOW, ahead) == "postcopy"
    assert choose(replace(BUSY, dirty_bytes_s=MIB / 4), SLOW, ahead) == "stream"
    assert choose(replace(BUSY, dirty_bytes_s=MIB / 4), SLOW, MigrationPolicy(strategy="auto")) == "stream"
    assert foretold(BUSY, SLOW, MigrationPolicy()) is None
    stopped = foretold(BUSY, SLOW, MigrationPolicy(when_busy="stop"))
    assert stopped.downtime_ms.value > 100_000
    throttled = foretold(BUSY, SLOW, MigrationPolicy(when_busy="throttle"))
    assert throttled.downtime_ms.value < 1000


def test_a_guest_that_goes_ahead_of_its_memory_stands_still_for_none_of_it():
    work = replace(BUSY, whole_wire_bytes=300 * MIB, filled_bytes=400 * MIB)  # more than what is left to tell of it
    ahead, cold = (foretold(work, SLOW, MigrationPolicy(strategy=name)) for name in ("postcopy", "cold"))
    assert ahead.downtime_ms.value < 1000 < cold.downtime_ms.value
    assert 300 * MIB + 512 * MIB * 0.75 < ahead.wire_bytes.value < 701 * MIB
    busy = foretold(work, SLOW, MigrationPolicy(when_busy="postcopy"))  # streamed first, until that shows
    assert busy.wire_bytes.value == ahead.wire_bytes.value


def test_on_a_link_that_outruns_the_encoder_the_memory_goes_straight_where_it_can():
    slow_node = Work(512 * MIB, 200 * MIB, 0, 0, MIB, 16 * MIB, 0.5, 100 * MIB, filled_bytes=400 * MIB, direct=True)
    auto, lan = MigrationPolicy(strategy="auto"), LinkSample(1 * GIB, 1)
    assert choose(slow_node, lan, auto) == "native"
    assert choose(replace(slow_node, direct=False), lan, auto) == "stream"
    assert choose(replace(slow_node, encode_bytes_s=GIB), lan, auto) == "stream"  # little is saved, an image is lost
    assert choose(slow_node, LinkSample(25 * MIB, 40), auto) == "stream"
    straight, streamed = (foretold(slow_node, lan, MigrationPolicy(strategy=name)) for name in ("native", "stream"))
    assert straight.total_ms.value < streamed.total_ms.value
    assert straight.wire_bytes.value > 400 * MIB


def test_a_guest_that_dirties_the_same_few_pages_ever_again_converges():
    few = replace(BUSY, working_set_bytes=64 * KIB)
    assert rounds(few, MIB, MigrationPolicy()).converges
    assert not rounds(replace(few, working_set_bytes=16 * MIB), MIB, MigrationPolicy()).converges


def test_the_interval_follows_what_predictions_were_worth():
    said = Prediction(*(Interval(1000.0, 500.0, 2000.0) for _ in range(3)))

    def came(total_ms: int) -> MigrationSummary:
        return MigrationSummary(total_ms, 1000, 1, 1, 1000, 1, 1, 1, verified=True, split=ByteSplit())

    few = Past([(said, came(1100))] * 19)
    assert few.interval("total_ms", 100.0) == Interval(100.0, 62.5, 160.0)
    many = Past([(said, came(1000 + 10 * n)) for n in range(40)])
    interval = many.interval("total_ms", 100.0)
    assert interval.value == interval.low == 100.0
    assert 130 < interval.high < 140
    assert many.interval("downtime_ms", 100.0) == Interval(100.0, 100.0, 100.0)
