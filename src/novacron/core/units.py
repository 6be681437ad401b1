"""Sizes, rates and durations: constants, and the forms in which people write them."""

import re
from datetime import UTC, datetime

from novacron.core.errors import InvalidInputError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

PAGE_BYTES = 4096  # the unit of content: a RAM page, a disk block
DIGEST_BYTES = 16  # of one such unit: BLAKE3, keyed, cut to 128 bits

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z/]*)\s*")
_SIZES = {
    "": 1,
    "B": 1,
    "K": KIB,
    "KiB": KIB,
    "kB": 1000,
    "M": MIB,
    "MiB": MIB,
    "MB": 1000**2,
    "G": GIB,
    "GiB": GIB,
    "GB": 1000**3,
    "T": 1024 * GIB,
    "TiB": 1024 * GIB,
    "TB": 1000**4,
}
_RATES = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9, "B/s": 8, "kB/s": 8 * 10**3}
_RATES |= {"MB/s": 8 * 10**6, "KiB/s": 8 * KIB, "MiB/s": 8 * MIB, "GiB/s": 8 * GIB}
_DURATIONS_MS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def _parse(text: str, units: dict[str, int], what: str, example: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise InvalidInputError(f"{text!r} is not a {what}: write it like {example}")
    return round(float(match[1]) * units[match[2]])


def parse_size(text: str) -> int:
    """Bytes of ``1GiB``, ``512MiB``, ``10G``; raises InvalidInputError."""
    return _parse(text, _SIZES, "size", "512MiB or 1GiB")


def parse_rate(text: str) -> int:
    """Bytes per second of ``200Mbit/s``, ``25MB/s``; raises InvalidInputError."""
    return _parse(text, _RATES, "rate", "200Mbit/s or 25MB/s") // 8


def parse_duration_ms(text: str) -> int:
    """Milliseconds of ``300ms``, ``30s``, ``2h``; raises InvalidInputError."""
    return _parse(text, _DURATIONS_MS, "duration", "300ms or 30s")


def format_size(size_bytes: float) -> str:
    """``size_bytes`` with three figures and a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < KIB:
            return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 1000 else f"{size_bytes:.3g} {unit}"  # noqa: PLR2004 - .3g would write 1e+03
        size_bytes /= KIB
    return f"{size_bytes:.3g} TiB"


def format_rate(bytes_s: float) -> str:
    """``bytes_s`` as bits per second, the unit that links are sold in."""
    bits = bytes_s * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 1000:  # noqa: PLR2004 - the step between decimal units
            return f"{bits:.3g} {unit}"
        bits /= 1000
    return f"{bits:.3g} Gbit/s"


def format_moment(seconds: float) -> str:
    """``seconds`` since 1970 as a date and a time of day, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
