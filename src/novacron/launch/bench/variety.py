"""Links and guests that differ: what the benchmark of predictions draws from its seed."""

import random
from typing import Final

from msgspec import Struct

from novacron.core.units import MIB, PAGE_BYTES
from novacron.launch.lab.link import Link

SLOWEST_BYTES_S, FASTEST_BYTES_S = 5_000_000, 60_000_000  # 40 and 480 Mbit/s
FARTHEST_MS: Final = 60
LEAST_PAGES, MOST_PAGES = 8192, 49_152  # that the guest holds: 32 and 192 MiB
BESIDE_BYTES: Final = 96 * MIB  # of memory, for its kernel and its files
GRAIN_BYTES: Final = 32 * MIB
BUSIEST: Final = 0.3  # bytes that it writes a second, as a share of the link's rate
HOTTEST: Final = 0.5  # of its pages, those that it goes on writing to


class Setting(Struct, frozen=True):
    """A link, and a guest that moves over it there and back."""

    link: Link
    memory_bytes: int
    arguments: str  # of the guest's kernel


def draw(seed: int, number: int) -> Setting:
    """The same for the same seed and number; rates are spread evenly on a logarithmic scale."""
    dice = random.Random(f"{seed}:{number}")  # noqa: S311 - repeatable is what it must be
    rate = SLOWEST_BYTES_S * (FASTEST_BYTES_S / SLOWEST_BYTES_S) ** dice.random()
    link = Link(rate_bytes_s=round(rate), delay_ms=dice.randint(1, FARTHEST_MS), seed=number)
    pages = dice.randint(LEAST_PAGES, MOST_PAGES)
    hot = round(pages * dice.uniform(0.05, HOTTEST))
    workload = {
        "seed": number,
        "hot": hot,
        "cold": pages - hot,
        "rate": round(rate * dice.uniform(0.01, BUSIEST) / PAGE_BYTES),
        "records": dice.randint(1, 20),
    }
    memory = (pages * PAGE_BYTES + BESIDE_BYTES + GRAIN_BYTES) // GRAIN_BYTES * GRAIN_BYTES
    said = " ".join(f"novacron.{name}={value}" for name, value in workload.items())
    return Setting(link, memory, f"console=ttyS0 quiet panic=-1 {said}")
