"""As many connections as it takes to fill the link."""

import asyncio
import socket
from pathlib import Path

import pytest

from novacron.wire.connection import CONGESTION_CONTROL, tune
from novacron.wire.errors import ConnectionBrokenError
from novacron.wire.streams import FEWEST, MOST, streams_for, streams_to

MIB = 1 << 20
OFFERED = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()


@pytest.mark.parametrize(
    ("round_trip_ms", "rate_bytes_s", "streams"),
    [(0.1, 1.25e9, FEWEST), (40, 25e6, FEWEST), (200, 125e6, 6), (200, 12.5e6, FEWEST), (300, 1.25e9, MOST)],
)
def test_windows_for_what_is_on_its_way(round_trip_ms, rate_bytes_s, streams):
    assert streams_for(round_trip_ms / 1000, rate_bytes_s, 4 * MIB) == streams


async def test_the_round_trip_is_that_of_the_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert await streams_to(address, None) == FEWEST
    with pytest.raises(ConnectionBrokenError, match="cannot be reached"):
        await streams_to(address, None)


@pytest.mark.skipif("bbr" not in OFFERED, reason="this kernel does not offer it")
async def test_connections_use_the_congestion_control_of_long_links():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, writer = await asyncio.open_connection(*listener.getsockname())
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        tune(writer)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == CONGESTION_CONTROL
        writer.close()
