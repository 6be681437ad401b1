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
)
links = st.builds(LinkSample, rate_bytes_s=st.floats(0, 10 * GIB), rtt_ms=st.floats(0, 1000))
policies = st.builds(
    MigrationPolicy,
    strategy=st.sampled_from(["stream", "cold", "auto"]),
    when_busy=st.sampled_from(["wait", "throttle", "stop"]),
    max_downtime_ms=st.integers(1, 10_000),
    bandwidth_bytes_s=st.none() | st.integers(1, GIB),
)
BUSY = Work(512 * MIB, 256 * MIB, 0, 0, 100 * MIB, 512 * MIB, 1.0, GIB)
SLOW = LinkSample(1 * MIB, 20)


def figures(predicted: Prediction) -> list[Interval]:
    return [predicted.total_ms, predicted.downtime_ms, predicted.wire_bytes]


def foretold(work, link, policy) -> Prediction | None:
    return predict(work, link, policy, choose(work, link, policy), Past())


@given(works, links, policies)
def test_every_figure_is_a_number_within_its_interval(work, link, policy):
    predicted = foretold(work, link, policy)
    if predicted is None:
        assert (policy.strategy, policy.when_busy) == ("stream", "wait")
        return
    for one in figures(predicted):
        assert 0 < one.low <= one.value <= one.high < math.inf


@given(works, links, policies, st.floats(1, 100))
def test_a_faster_link_never_takes_longer(work, link, policy, factor):
    slow = foretold(work, link, policy)
    strategy = choose(work, link, policy)
    fast = predict(work, replace_rate(link, factor), policy, strategy, Past())
    assume(slow is not None and (strategy == "cold" or rounds(work, max(1, link.rate_bytes_s), policy).converges))
    assert fast is not None
    assert fast.total_ms.value <= slow.total_ms.value * (1 + 1e-9)
    assert fast.wire_bytes.value <= slow.wire_bytes.value * (1 + 1e-9)


@given(works, links, policies, st.floats(1, 10))
def test_more_to_move_never_takes_less(work, link, policy, factor):
    more = replace(
        work,
        memory_wire_bytes=work.memory_wire_bytes * factor,
        disk_bytes=work.disk_bytes * factor,
        disk_wire_bytes=work.disk_wire_bytes * factor,
    )
    strategy = choose(more, link, policy)
    little, much = (predict(one, link, policy, strategy, Past()) for one in (work, more))
    assume(little is not None and much is not None)
    assume(strategy == "cold" or all(rounds(one, max(1, link.rate_bytes_s), policy).converges for one in (work, more)))
    assert little.total_ms.value <= much.total_ms.value * (1 + 1e-9)
    assert little.wire_bytes.value <= much.wire_bytes.value * (1 + 1e-9)


def replace_rate(link: LinkSample, factor: float) -> LinkSample:
    return LinkSample(link.rate_bytes_s * factor, link.rtt_ms)


def test_a_guest_that_outruns_the_link_is_moved_cold_or_as_the_policy_says():
    assert choose(BUSY, SLOW, MigrationPolicy(strategy="auto")) == "cold"
    assert choose(BUSY, SLOW, MigrationPolicy(strategy="auto", when_busy="stop")) == "stream"
    assert choose(replace(BUSY, dirty_bytes_s=MIB / 4), SLOW, MigrationPolicy(strategy="auto")) == "stream"
    assert foretold(BUSY, SLOW, MigrationPolicy()) is None
    stopped = foretold(BUSY, SLOW, MigrationPolicy(when_busy="stop"))
    assert stopped.downtime_ms.value > 100_000
    throttled = foretold(BUSY, SLOW, MigrationPolicy(when_busy="throttle"))
    assert throttled.downtime_ms.value < 1000


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
