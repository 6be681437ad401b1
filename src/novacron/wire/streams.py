"""How many connections a channel needs to fill its link.

A connection has at most one send window on its way, so it carries at most a window a round trip. Beyond that, more
connections help, as they do where packets are lost: each of them is slowed down for its own alone.
"""

import asyncio
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Final

from novacron.wire.errors import ConnectionBrokenError

FEWEST: Final = 2
MOST: Final = 16
FAST_BYTES_S: Final = 125_000_000.0  # 1 Gbit/s: what a link between sites is taken for, unless said otherwise
CONNECT_S: Final = 10.0
_WINDOWS: Final = Path("/proc/sys/net/ipv4/tcp_wmem")  # least, default and largest send window, in bytes
USUAL_WINDOW_BYTES: Final = 4 << 20


async def streams_to(address: str, rate_bytes_s: float | None) -> int:
    """For a channel to ``host:port`` at this rate; raises ConnectionBrokenError."""
    return streams_for(await _round_trip_s(address), rate_bytes_s or FAST_BYTES_S, _largest_window())


def streams_for(round_trip_s: float, rate_bytes_s: float, window_bytes: int) -> int:
    """Enough windows for what is on its way in a round trip."""
    return max(FEWEST, min(MOST, ceil(round_trip_s * rate_bytes_s / window_bytes)))


async def _round_trip_s(address: str) -> float:
    """What a TCP connection takes to come about."""
    host, _, port = address.rpartition(":")
    began = monotonic()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionBrokenError(f"{address} cannot be reached: {error or 'no answer in time'}") from error
    took = monotonic() - began
    writer.transport.abort()
    return took


def _largest_window() -> int:
    try:
        return int(_WINDOWS.read_text().split()[2])
    except (OSError, IndexError, ValueError):
        return USUAL_WINDOW_BYTES
