"""Disks without shared storage: a first copy, then rounds of what the guest has written since, until it stops.

QEMU's dirty bitmaps say what was written; block exports carry it. Every round begins new bitmaps before it holds the
old ones still, in one transaction for all disks, so that no write falls between two rounds.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

from novacron.content.batch import MAX_SECTION_BYTES, unpack_batch
from novacron.content.blocks import BlockEncoder, Copy, Write, decode_blocks
from novacron.content.encoded import Encoded
from novacron.core.units import MIB, PAGE_BYTES
from novacron.hypervisor.driver import Machine
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION, DIRTY, ZERO, Extent
from novacron.migration.compression import Compression
from novacron.migration.errors import ChannelProtocolError
from novacron.migration.frames import FrameType
from novacron.migration.known import Run, digests_of_disk, except_for, within
from novacron.migration.meter import Meter
from novacron.migration.pipeline import Turns, in_order
from novacron.migration.ram import FrameSink, PackedFrame
from novacron.migration.traffic import Traffic
from novacron.protocol.vm import DiskSpec

BATCH_BYTES: Final = MIB  # of a disk that are read, encoded and sent together
BATCHES_IN_FLIGHT: Final = 4
INDEXED_DISK_PER_RAM: Final = 8  # disks that take more of a guest's memory than this are not looked through
WRITE_BYTES: Final = 4 * MIB
BLOCK_READS_IN_FLIGHT: Final = 16
WRITES_IN_FLIGHT: Final = 16


def since(state: str) -> str:
    """The bitmap that has marked every write since the content was named ``state``."""
    return f"since-{state}"


class DiskSender:
    """Sends a VM's disks: ``copy`` once, ``round`` as often as wanted, the last time while the guest is stopped.

    After a failure ``clean_up`` removes what was added to the source's QEMU; bitmaps of ``since`` are never touched,
    so the next attempt may lean on the same old state again.
    """

    def __init__(
        self,
        machine: Machine,
        disks: Sequence[DiskSpec],
        sink: FrameSink,
        meter: Meter,
        turns: Turns,
        *,
        key: bytes,
        compression: Compression,
        known_state: str,
    ) -> None:
        self._machine = machine
        self._key = key
        self._disks = list(disks)
        self._names = [disk.id for disk in disks]
        self._sink = sink
        self._turns = turns
        self._meter = meter
        self._compression = compression
        self._known_state = known_state
        self.encoders = [BlockEncoder(disk.size_bytes, key, fresh=not known_state) for disk in disks]
        self._round = 0
        self._missing: list[list[Run]] = []  # of each disk, what the first copy looks at; empty: all
        self._standing: list[bytes] = []  # digests of each disk as it stood after the first copy
        self.in_use_bytes = 0  # of all disks, known once the first copy has begun

    async def look_through(self, held: Sequence[list[Run]]) -> list[bytes]:
        """Digests of those parts of each disk, before the first copy; zeros for all else.

        What the guest writes from now on is marked, and sent in a round.
        """
        await self._machine.start_tracking(self._names, self._bitmap(0))
        self._missing = [[] for _ in self._disks]
        return await self._digests(held)

    def adopt(self, number: int, digests: bytes, missing: list[Run]) -> None:
        """The other side's disk holds blocks of these digests; all but ``missing`` is as it was looked through."""
        self.encoders[number].adopt(digests)
        self._missing[number] = missing

    async def copy(self) -> None:
        """What the other side does not have: all that is allocated, or what was written since the known state."""
        if not self._disks:
            return
        if self._known_state:
            await self._machine.fork_tracking(self._names, since(self._known_state), "novacron-base", self._bitmap(0))
            await self._send("novacron-base")
            await self._machine.drop_tracking(self._names, "novacron-base")
            await self._look_at_what_stands()
        else:
            if not self._missing:
                await self._machine.start_tracking(self._names, self._bitmap(0))
            await self._send("")
            self._missing = []

    async def round(self) -> int:
        """What was written since the round before, in bytes."""
        if not self._disks:
            return 0
        old, new = self._bitmap(self._round), self._bitmap(self._round + 1)
        await self._machine.rotate_tracking(self._names, old, new)
        self._round += 1
        sent = await self._send(old)
        await self._machine.drop_tracking(self._names, old)
        return sent

    async def _look_at_what_stands(self) -> None:
        """Blocks that the other side has had all along: RAM that is their cache is told by them.

        What the guest writes while they are read is marked, and sent in the next round: it is taken out there.
        """
        if self.in_use_bytes > INDEXED_DISK_PER_RAM * self._machine.spec.memory_bytes:
            return
        self._standing = await self._digests([None] * len(self._names))

    async def _digests(self, parts: Sequence[list[Run] | None]) -> list[bytes]:
        found = []
        for export, runs in zip(await self._machine.export_readable(self._names), parts, strict=True):
            async with NbdClient.connect(export, contexts=[ALLOCATION]) as disk:
                found.append(await digests_of_disk(disk, self._key, runs))
        await self._machine.end_exports()
        return found

    async def clean_up(self) -> None:
        """Remove exports and the bitmaps of the rounds."""
        await self._machine.end_exports()
        for number in (self._round - 1, self._round):
            await self._machine.drop_tracking(self._names, self._bitmap(number))
        await self._machine.drop_tracking(self._names, "novacron-base")

    @staticmethod
    def _bitmap(number: int) -> str:
        return f"novacron-{number}"

    async def _send(self, bitmap: str) -> int:
        """Every extent of every disk that ``bitmap`` marks (all that is allocated, without one)."""
        exports = await self._machine.export_readable(self._names, bitmap)
        sent = 0
        for number, export in enumerate(exports):
            context = export.bitmap or ALLOCATION
            async with NbdClient.connect(export, contexts=list({context, ALLOCATION})) as disk:
                if not self._round:
                    allocated = await disk.extents(ALLOCATION)
                    self.in_use_bytes += sum(e.length for e in allocated if _wanted(e, ALLOCATION))
                found = await disk.extents(context)
                extents = [e for e in found if _wanted(e, context)]
                if self._missing:
                    extents = list(within(extents, self._missing[number]))
                if self._standing:
                    self.encoders[number].learn(except_for(self._standing[number], extents))
                total = sum(e.length for e in extents)
                sent += total
                self._meter.plan(total)
                await self._in_order(self._frames(disk, number, extents))
                if context == ALLOCATION:
                    empty = [(e.offset, e.length) for e in found if not _wanted(e, context)]
                    await self._in_order(self._emptied(number, empty))
        await self._machine.end_exports()
        self._standing = []
        return sent

    async def _in_order(self, frames: AsyncGenerator[asyncio.Future[PackedFrame], None]) -> None:
        await in_order(frames, self._give, in_flight=BATCHES_IN_FLIGHT, compression=self._compression)

    async def _frames(
        self, disk: NbdClient, number: int, extents: list[Extent]
    ) -> AsyncGenerator[asyncio.Future[PackedFrame], None]:
        """Reads run ahead of the encoding; the encoding keeps the order, because later blocks lean on earlier ones."""
        ahead = _batches((extent.offset, extent.length) for extent in extents)
        reads: deque[tuple[list[Run], asyncio.Task[bytes]]] = deque()

        def read_on(count: int) -> None:
            reads.extend((runs, asyncio.create_task(_read(disk, runs))) for runs in islice(ahead, count))

        read_on(BATCHES_IN_FLIGHT)
        try:
            while reads:
                runs, reading = reads.popleft()
                data = await reading
                read_on(1)
                yield await self._work(number, runs, data)
        finally:
            for _, reading in reads:
                reading.cancel()
            await asyncio.gather(*(reading for _, reading in reads), return_exceptions=True)

    async def _emptied(self, number: int, empty: list[Run]) -> AsyncGenerator[asyncio.Future[PackedFrame], None]:
        """What is not stored here and may be there: made zeros."""
        held = [run for part in empty for run in self.encoders[number].held(*part)]
        for runs in _batches(held):
            yield await self._work(number, runs, bytes(sum(length for _, length in runs)))

    async def _work(self, number: int, runs: list[Run], data: bytes) -> asyncio.Future[PackedFrame]:
        return await self._turns.work(partial(self.encoders[number].encode, runs, data), partial(self._pack, number))

    def _pack(self, number: int, encoded: Encoded, turn: int) -> PackedFrame:
        packed = self._compression.pack(encoded)
        body = encoded.ops and bytes([number]) + packed.body
        return PackedFrame(FrameType.DISK, body, Traffic.of_batch(encoded, packed), turn)

    async def _give(self, frame: PackedFrame) -> None:
        async with self._turns.my(frame.turn):
            if frame.body:
                with self._compression.sending(len(frame.body)):
                    await self._sink.send(frame.frame_type, frame.body)
        self._meter.disk.add(frame.traffic)


class DiskReceiver:
    """Writes what comes into the destination's disks."""

    def __init__(self, disks: Sequence[DiskSpec], clients: Sequence[NbdClient]) -> None:
        self._disks = disks
        self._clients = clients
        self._written: set[int] = set()  # disks, by number, of which something may not be durable

    async def blocks(self, body: bytes | memoryview) -> None:
        """One batch; raises MalformedContentError, ChannelProtocolError, NbdError."""
        number = body[0] if len(body) else len(self._disks)
        if number >= len(self._disks):
            raise ChannelProtocolError(f"a batch for disk {number} of {len(self._disks)}")
        encoded = await asyncio.to_thread(unpack_batch, memoryview(body)[1:])
        self._written.add(number)
        await _write(self._clients[number], list(decode_blocks(encoded, self._disks[number].size_bytes)))

    async def read(self, runs: Sequence[tuple[int, int, int]]) -> bytes:
        """The content of runs (disk, first block, number of blocks); raises ChannelProtocolError, NbdError."""
        total = sum(count for _, _, count in runs) * PAGE_BYTES
        if total > MAX_SECTION_BYTES:
            raise ChannelProtocolError(f"a batch of RAM refers to {total} bytes of disks")
        slots = asyncio.Semaphore(BLOCK_READS_IN_FLIGHT)

        async def one(disk: int, first: int, count: int) -> bytes:
            if disk >= len(self._disks) or (first + count) * PAGE_BYTES > self._disks[disk].size_bytes:
                raise ChannelProtocolError(f"RAM refers to block {first} of disk {disk}, which is not there")
            async with slots:
                return await self._clients[disk].read(first * PAGE_BYTES, count * PAGE_BYTES)

        return b"".join(await asyncio.gather(*(one(*run) for run in runs)))

    async def write_back(self) -> None:
        """Make durable what was written since it was asked before, if anything was."""
        written, self._written = self._written, set()
        await asyncio.gather(*(self._clients[number].flush() for number in written))

    async def flush(self) -> None:
        """Return when all that was written is durable."""
        await asyncio.gather(*(client.flush() for client in self._clients))


async def _read(disk: NbdClient, runs: list[Run]) -> bytes:
    return b"".join(await asyncio.gather(*(disk.read(*run) for run in runs)))


async def _write(client: NbdClient, writes: Sequence[Write]) -> None:
    """In order, as far as anybody can see: side by side where no write touches what one before it has written.

    What is copied is what was written before.
    """
    waiting: list[Awaitable[None]] = []
    end = 0  # of the blocks that they write, each beyond the one before
    for offset, content in writes:
        if waiting and (isinstance(content, Copy) or offset < end or len(waiting) >= WRITES_IN_FLIGHT):
            await asyncio.gather(*waiting)
            waiting = []
        if isinstance(content, int):
            end = offset + content
            waiting.append(client.write_zeroes(offset, content))
            continue
        data = await client.read(content.source, content.length) if isinstance(content, Copy) else content
        end = offset + len(data)
        waiting += (client.write(offset + at, data[at : at + WRITE_BYTES]) for at in range(0, len(data), WRITE_BYTES))
    await asyncio.gather(*waiting)


def _batches(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs, cut and gathered into as much as is dealt with at once."""
    batch: list[Run] = []
    room = BATCH_BYTES
    for offset, length in runs:
        at = offset
        while at < offset + length:
            taken = min(room, offset + length - at)
            batch.append((at, taken))
            at, room = at + taken, room - taken
            if not room:
                yield batch
                batch, room = [], BATCH_BYTES
    if batch:
        yield batch


def _wanted(extent: Extent, context: str) -> bool:
    return not extent.flags & ZERO if context == ALLOCATION else bool(extent.flags & DIRTY)
