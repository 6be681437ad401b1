"""How fast a link is: for a short while as much as it takes, over a channel like that of a migration."""

import asyncio
import os
from typing import Final

import msgspec
from msgspec import Struct

from novacron.core.units import MIB
from novacron.wire.channel import ParallelChannel
from novacron.wire.errors import ConnectionBrokenError, FrameError
from novacron.wire.estimate import Throughput

SESSION: Final = "probe"  # what the session of such a channel begins with
LONGEST_S: Final = 1.5
MOST_BYTES: Final = 8 * MIB
PART_BYTES: Final = 64 * 1024
WINDOW_S: Final = 0.5  # of the end, when the connections have found their pace
SLOWEST_BYTES_S: Final = PART_BYTES / WINDOW_S  # a bound below that is believed: no part of a probe would come in time
ANSWER_S: Final = 10.0  # of a link that keeps much on its way
FILL, END, SEEN = 1, 2, 3


class Seen(Struct, frozen=True):
    """The other side's word."""

    rate_bytes_s: float


async def probe(channel: ParallelChannel) -> float:
    """Bytes a second that arrived at the end; raises ConnectionBrokenError, FrameError."""
    content = os.urandom(PART_BYTES)

    async def fill() -> None:
        for _ in range(MOST_BYTES // PART_BYTES):
            await channel.send(FILL, content)
        await channel.send(END, b"")

    filling = asyncio.create_task(fill())
    try:
        async with asyncio.timeout(LONGEST_S + ANSWER_S):
            _, body = await channel.receive()
        return msgspec.msgpack.decode(body, type=Seen).rate_bytes_s
    except TimeoutError:
        raise ConnectionBrokenError("the other side does not say how fast the link is") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise FrameError("the other side's word on the link cannot be read") from error
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


async def answer_probe(channel: ParallelChannel) -> None:
    """Count what arrives until the other side has sent all, or the time is over, and say how fast it came."""
    clock, total = asyncio.get_running_loop(), 0
    seen = Throughput(WINDOW_S)
    seen.add(begun := clock.time(), 0)
    kind = FILL
    while kind == FILL and total <= MOST_BYTES and clock.time() - begun < LONGEST_S:
        kind, body = await channel.receive()
        total += len(body)
        seen.add(clock.time(), total)
    await channel.send(SEEN, msgspec.msgpack.encode(Seen(seen.bytes_s)))
