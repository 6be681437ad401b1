"""Figures as people write and read them."""

import pytest

from novacron.core.errors import InvalidInputError
from novacron.core.units import GIB, MIB, format_rate, format_size, parse_duration_ms, parse_rate, parse_size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1010 * MIB, "1010 MiB"),
        (2 * MIB + 300_000, "2.29 MiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (5 << 40, "5 TiB"),
    ],
)
def test_a_size_has_three_figures_and_a_unit(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(("rate", "text"), [(12, "96 bit/s"), (25_000_000, "200 Mbit/s"), (250_000_000, "2 Gbit/s")])
def test_a_rate_is_told_in_bits(rate, text):
    assert format_rate(rate) == text


def test_what_people_write_is_read():
    assert parse_size("1.5 GiB") == 3 * GIB // 2
    assert parse_rate("200Mbit/s") == 25_000_000
    assert parse_duration_ms("20ms") == 20
    assert parse_duration_ms("2 min") == 120_000


@pytest.mark.parametrize(
    ("parse", "text"), [(parse_size, "12 apples"), (parse_rate, "fast"), (parse_duration_ms, "-1")]
)
def test_what_cannot_be_read_is_refused_with_an_example(parse, text):
    with pytest.raises(InvalidInputError, match="write it like"):
        parse(text)
