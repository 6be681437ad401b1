"""What a sample of a guest's memory says of all of it: it goes through the encoder that a migration uses."""

import math
import secrets
import time
from array import array
from dataclasses import dataclass
from typing import Final

from novacron.content.batch import pack_batch
from novacron.content.digest import KEY_BYTES
from novacron.content.encoded import CLASSES
from novacron.content.pages import PageEncoder
from novacron.core.units import PAGE_BYTES

COST_UNSEEN: Final = 0.25  # on the wire, of a byte that is sent again, where the sample has none
_UNCHANGED: Final = CLASSES.index("unchanged")


@dataclass(frozen=True, slots=True)
class Sample:
    """The same pieces of memory read three times; ``short_s`` and ``long_s`` are counted from the first reading."""

    first: bytes
    second: bytes
    third: bytes
    short_s: float
    long_s: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Shares of memory, and costs: bytes on the wire for each of it."""

    zero_share: float
    cost: float  # where nothing of it lies
    return_cost: float  # where it lies as it arrived
    again_cost: float  # of what is dirtied and sent again
    dirty_share_s: float  # what a guest begins to dirty a second
    working_share: float  # what it dirties at most
    encode_bytes_s: float


def judge(sample: Sample, arrived: bytes, level: int) -> Judged:
    """``arrived``: the same pieces as they came here; empty when they did not."""
    pages = len(sample.first) // PAGE_BYTES
    fresh = _Encoder(bytes(len(sample.first)), level)
    begun = time.perf_counter()
    _, cost = fresh.encode(sample.first)
    took_s = time.perf_counter() - begun
    again, again_bytes = fresh.encode(sample.third)
    changed = pages - again[_UNCHANGED]
    dirty_share_s, working_share = dirtying(
        differing(sample.first, sample.second) / pages, changed / pages, sample.short_s, sample.long_s
    )
    return Judged(
        zero_share=1 - differing(sample.first, bytes(len(sample.first))) / pages,
        cost=cost / len(sample.first),
        return_cost=(_Encoder(arrived, level).encode(sample.first)[1] if arrived else cost) / len(sample.first),
        again_cost=again_bytes / (changed * PAGE_BYTES) if changed else COST_UNSEEN,
        dirty_share_s=dirty_share_s,
        working_share=working_share,
        encode_bytes_s=len(sample.first) / max(took_s, 1e-6),
    )


def dirtying(short_share: float, long_share: float, short_s: float, long_s: float) -> tuple[float, float]:
    """Share of memory dirtied a second at first, and at most, from the shares that differ after two times.

    A guest that writes anywhere in a working set ``w`` at a rate ``r`` has dirtied ``w (1 - exp(-r t / w))`` after
    ``t``; where the two shares grow with the time, all of memory is taken for the working set.
    """
    if long_share <= 0:
        return 0.0, 0.0
    if short_share * long_s <= long_share * short_s:
        return long_share / long_s, 1.0
    if short_share >= long_share:
        return short_share / short_s, long_share
    low, high = long_share, 1.0
    for _ in range(60):  # by halves: a larger set bends less
        middle = (low + high) / 2
        rate = -math.log1p(-short_share / middle) * middle / short_s
        if middle * -math.expm1(-rate * long_s / middle) < long_share:
            low = middle
        else:
            high = middle
    return -math.log1p(-short_share / high) * high / short_s, high


def differing(one: bytes, other: bytes) -> int:
    """How many pages differ."""
    return sum(one[at : at + PAGE_BYTES] != other[at : at + PAGE_BYTES] for at in range(0, len(one), PAGE_BYTES))


class _Encoder:
    """A migration's encoder for a memory that is as large as the sample, and holds ``base`` at the other side."""

    def __init__(self, base: bytes, level: int) -> None:
        pages = len(base) // PAGE_BYTES
        self._encoder = PageEncoder(bytearray(base), secrets.token_bytes(KEY_BYTES))
        self._numbers = array("I", range(pages))
        self._positions = array("I", (number * PAGE_BYTES for number in range(pages)))
        self._level = level

    def encode(self, data: bytes) -> tuple[tuple[int, ...], int]:
        """Pages by class, and bytes on the wire."""
        encoded = self._encoder.encode(self._numbers, self._positions, data)
        return encoded.counts, len(pack_batch(encoded, self._level).body)
