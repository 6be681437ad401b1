"""Channels that share a way: by weight, whatever it does; nobody waits for one that does not use its share."""

import asyncio
import socket
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings, strategies as st

from novacron.wire.channel import open_channel
from novacron.wire.identity import SpiffeId
from novacron.wire.server import Server
from novacron.wire.shares import QUANTUM_BYTES, Shares, weight_of

LARGEST = 300_000
ROOM = 400_000  # of a flow's queue below: it asks again when less waits there
MIB = 1 << 20


class Flow:
    """Has something to send all the time; what it may send waits in a queue until the way takes it."""

    def __init__(self, shares: Shares, weight: float, size: int = 100_000) -> None:
        self.share = shares.join(weight, lambda: self.queued > 0)
        self.size = size
        self.queued = self.drained = 0
        self._room = asyncio.Event()
        self.task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while True:
            await self.share.take(self.size)
            self.queued += self.size
            while self.queued >= ROOM:
                self._room.clear()
                await self._room.wait()

    def drain(self, count: int) -> None:
        """The way takes some of it."""
        taken = min(count, self.queued)
        self.queued -= taken
        self.drained += taken
        self._room.set()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def settle(shares: Shares) -> None:
    """Everybody goes as far as it can."""
    for _ in range(12):
        shares.look()
        await asyncio.sleep(0)


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(20_000, LARGEST)), min_size=2, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, ROOM)), max_size=50),
)
@settings(max_examples=40, deadline=None)
def test_two_that_always_have_something_to_send_lie_no_more_than_a_quantum_and_a_frame_apart(kinds, taken):
    async def play() -> None:
        shares = Shares()
        flows = [Flow(shares, weight_of(priority), size) for priority, size in kinds]
        apart = QUANTUM_BYTES + max(flow.size / flow.share.weight for flow in flows)
        for who, count in taken:
            await settle(shares)
            flows[who % len(flows)].drain(count)
            assert max(flow.share.served for flow in flows) - min(flow.share.served for flow in flows) <= apart
        for flow in flows:
            await flow.stop()

    asyncio.run(play())


async def test_a_way_that_favours_one_of_them_is_shared_by_weight_all_the_same():
    shares = Shares()
    flows = [Flow(shares, weight_of(priority)) for priority in (0, 0, 3)]
    for _ in range(600):
        await settle(shares)
        for flow, greed in zip(flows, (900_000, 30_000, 90_000), strict=True):
            flow.drain(greed)
    first, second, double = (flow.drained for flow in flows)
    apart = QUANTUM_BYTES + 2 * (ROOM + 100_000)  # what waits below, at the beginning and at the end
    assert first == pytest.approx(second, abs=apart)
    assert double == pytest.approx(2 * second, abs=2 * apart)
    assert second > 10 * MIB
    assert flows[2].share.of_way() == pytest.approx(0.5, rel=0.05)
    assert flows[2].share.now(1.0) == 1.0  # one reading says nothing
    for flow in flows:
        await flow.stop()


async def test_one_that_sends_nothing_holds_nobody_back_and_saves_nothing_up():
    shares = Shares()
    busy, idle = Flow(shares, 1.0), Flow(shares, 1.0)
    await settle(shares)
    await idle.stop()
    idle.drain(idle.queued)
    for _ in range(200):
        busy.drain(ROOM)
        await settle(shares)
    assert busy.drained > 50 * MIB
    assert idle.drained < MIB
    before = idle.share.served
    await idle.share.take(1)
    assert idle.share.served == pytest.approx(busy.share.served, abs=QUANTUM_BYTES + 100_000)
    assert idle.share.served > before
    await busy.stop()


async def test_who_hurries_does_not_wait_and_who_leaves_lets_the_others_go():
    shares = Shares()
    fast, slow = shares.join(1.0, lambda: False), shares.join(1.0, lambda: True)
    await slow.take(1)
    await fast.take(2 * QUANTUM_BYTES)
    held = asyncio.create_task(fast.take(1))
    await settle(shares)
    assert not held.done()
    fast.hurries = True
    await settle(shares)
    assert held.done()
    fast.hurries = False
    held = asyncio.create_task(fast.take(1))
    await settle(shares)
    assert not held.done()
    slow.leave()
    slow.leave()
    await asyncio.wait_for(held, 1)
    late = shares.join(1.0, lambda: False)
    cancelled = asyncio.create_task(late.take(5))
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert late.turn is None


async def test_real_channels_share_although_the_kernel_lets_one_of_them_send_much_faster(site_a):
    taken: Counter[str] = Counter()
    enough = asyncio.Event()

    async def take(_peer, session, channel) -> None:
        while True:
            taken[session] += len((await channel.receive())[1])
            if taken["slow"] >= 4 * MIB:
                enough.set()

    async with sending_to(site_a, take) as join:
        shares = Shares()
        slow, fast = await join("slow", shares), await join("fast", shares, weight=2.0)
        for connection in slow._connections:
            connection._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 1_000_000)
        await asyncio.wait_for(enough.wait(), 60)
        ahead = taken["fast"] - 2 * taken["slow"]
        assert abs(ahead) < 2 * (QUANTUM_BYTES + 2 * UNDER_WAY)
        assert fast.share is not None
        assert fast.share.of_way() == pytest.approx(2 / 3, rel=0.1)


async def test_a_receiver_that_takes_nothing_holds_nobody_else_back(site_a):
    taken: Counter[str] = Counter()
    enough = asyncio.Event()

    async def take(_peer, session, channel) -> None:
        if session == "stands":
            await asyncio.Event().wait()
        while True:
            taken[session] += len((await channel.receive())[1])
            if taken[session] >= 40 * MIB:
                enough.set()

    async with sending_to(site_a, take) as join:
        shares = Shares()
        await join("stands", shares)
        await join("moves", shares)
        await asyncio.wait_for(enough.wait(), 60)


SO_MAX_PACING_RATE = 47
FRAME = 100_000
UNDER_WAY = 2 * (256 * 1024 + 128 * 1024 + FRAME) + MIB  # in the buffers of a channel's connections, at both ends


class sending_to:  # noqa: N801 - reads as a function
    """A node that gives what comes to ``take``; ``join(session, shares)`` makes a channel that sends for ever."""

    def __init__(self, site, take) -> None:
        self._site, self._take, self._stack, self._tasks = site, take, AsyncExitStack(), []

    async def __aenter__(self):
        self._server = Server(self._site.credentials("node", "target"))
        self._server.channels(self._take)
        await self._server.start("127.0.0.1", 0)
        self._stack.push_async_callback(self._server.close)
        return self._join

    async def __aexit__(self, *_) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _join(self, session: str, shares: Shares, weight: float = 1.0):
        channel = await open_channel(
            self._server.address,
            self._site.credentials("node", "source"),
            SpiffeId("site-a", "node", "target"),
            session,
            streams=2,
            shares=shares,
            weight=weight,
        )
        await channel.__aenter__()
        self._stack.callback(channel.abort)

        async def send() -> None:
            while True:
                await channel.send(7, bytes(FRAME))

        self._tasks.append(asyncio.create_task(send()))
        return channel
