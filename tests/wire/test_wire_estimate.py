"""What a link is like, from what was seen on it."""

from novacron.wire.estimate import RoundTrip, Throughput


def test_a_round_trip_is_smoothed_and_its_least_is_kept():
    seen = RoundTrip()
    for sample in (40.0, 80.0, 40.0):
        seen.add(sample)
    assert seen.minimum_ms == 40.0
    assert seen.smoothed_ms == 40.0 + 0.125 * 40.0 - 0.125 * 5.0


def test_throughput_is_that_of_the_last_window():
    seen = Throughput(window_s=2.0)
    assert (seen.bytes_s, seen.seen_s) == (0.0, 0.0)
    seen.add(10.0, 0)
    assert seen.bytes_s == 0.0
    for second in range(1, 9):
        seen.add(10.0 + second, 1000 * second if second < 5 else 5000 + 4000 * (second - 5))
    assert seen.seen_s == 2.0
    assert seen.bytes_s == 4000.0
