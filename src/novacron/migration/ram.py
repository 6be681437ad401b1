"""RAM: from the source's QEMU to the channel, and from the channel to the destination's RAM file and QEMU."""

import asyncio
import mmap
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from novacron.content.batch import unpack_batch
from novacron.content.codec import decode, encode
from novacron.content.encoded import Encoded
from novacron.content.pages import PageEncoder, apply_pages, block_runs, page_runs
from novacron.core.units import PAGE_BYTES
from novacron.migration.compression import Compression
from novacron.migration.frames import RELAY_BYTES, FrameType
from novacron.migration.meter import Meter
from novacron.migration.pipeline import Turns, in_order
from novacron.migration.stream import DeviceState, Pages, Relay, StreamSplitter
from novacron.migration.traffic import Traffic

PIECE_PAGES: Final = 256  # of RAM that is made durable as a whole
PIECE_BYTES: Final = PIECE_PAGES * PAGE_BYTES
ReadInto = Callable[[memoryview], Awaitable[int]]  # fills a buffer with what has come of a stream: bytes, 0 at its end
ReadBlocks = Callable[[Sequence[tuple[int, int, int]]], Awaitable[bytes]]  # of disk, first block, number of blocks
FRAMES_IN_FLIGHT: Final = 3  # read, but not yet sent: what QEMU takes for bandwidth must be the link's


class FrameSink(Protocol):
    """Where frames go, in order, with back-pressure."""

    async def send(self, kind: int, body: bytes | bytearray | memoryview) -> None:
        """Queue one frame."""
        ...


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame ready to be sent, with what it stands for; ``turn`` is zero when it may go at any time.

    A body that is empty tells nothing: it is not sent.
    """

    frame_type: FrameType
    body: bytes
    traffic: Traffic
    turn: int = 0


class RamSender:
    """Sends one QEMU's outgoing stream until QEMU closes it.

    Pages are encoded in the order in which QEMU wrote them, against ``encoder``'s picture of the destination's RAM;
    compression runs beside the reading, in threads. A cancellation leaves that picture ahead of the destination: the
    next attempt may lean on it where the destination says, by digests, that it has the same.
    """

    def __init__(
        self,
        sink: FrameSink,
        encoder: PageEncoder,
        meter: Meter,
        turns: Turns,
        *,
        ram_bytes: int,
        compression: Compression,
    ) -> None:
        self._sink = sink
        self._turns = turns
        self._encoder = encoder
        self._meter = meter
        self._splitter = StreamSplitter(ram_bytes=ram_bytes)
        self._compression = compression

    async def run(self, read_into: ReadInto) -> None:
        """Send until the stream's end; raises StreamRefusedError and the sink's errors."""
        await in_order(self._frames(read_into), self._give, in_flight=FRAMES_IN_FLIGHT, compression=self._compression)

    async def _frames(self, read_into: ReadInto) -> AsyncGenerator[asyncio.Future[PackedFrame], None]:
        while count := await read_into(self._splitter.room()):
            for item in self._splitter.filled(count):
                match item:
                    case Pages():
                        yield await self._turns.work(partial(self._encode, item), self._pack)
                    case Relay():
                        for at in range(0, len(item.data), RELAY_BYTES):
                            yield asyncio.ensure_future(
                                asyncio.to_thread(self._relay, item.data[at : at + RELAY_BYTES])
                            )
                    case DeviceState():
                        pass  # the channel keeps the order: all RAM is in the file before this reaches QEMU

    def _encode(self, pages: Pages) -> Encoded:
        return self._encoder.encode(pages.numbers, pages.positions, pages.data)

    def _pack(self, encoded: Encoded, turn: int) -> PackedFrame:
        batch = self._compression.pack(encoded)
        return PackedFrame(FrameType.RAM, encoded.ops and batch.body, Traffic.of_batch(encoded, batch), turn)

    def _relay(self, data: bytes) -> PackedFrame:
        return PackedFrame(FrameType.RELAY, encode(data, self._compression.level), Traffic())

    async def _give(self, frame: PackedFrame) -> None:
        if frame.frame_type is FrameType.RELAY:
            with self._compression.sending(len(frame.body)):
                await self._sink.send(frame.frame_type, frame.body)
            self._meter.relayed_bytes += len(frame.body)
            return
        async with self._turns.my(frame.turn):
            if frame.body:
                with self._compression.sending(len(frame.body)):
                    await self._sink.send(frame.frame_type, frame.body)
        self._meter.ram.add(frame.traffic)


class RamReceiver:
    """Writes pages into the file that is the guest's RAM, and everything else to the destination's QEMU.

    The one rule: every page is in the file before the first byte of device state reaches QEMU, none is written after.
    Frames are given one at a time, in the channel's order, which keeps it.
    """

    def __init__(self, ram: mmap.mmap, writer: asyncio.StreamWriter, read_blocks: ReadBlocks) -> None:
        self.ram = ram
        self._writer = writer
        self._read_blocks = read_blocks
        self._touched: set[int] = set()

    def take_touched(self) -> set[int]:
        """Pieces of ``PIECE_BYTES``, by number, that were written to since this was asked before."""
        touched, self._touched = self._touched, set()
        return touched

    async def pages(self, body: bytes | memoryview) -> None:
        """One batch; raises MalformedContentError, and what reading a disk raises."""
        encoded = await asyncio.to_thread(unpack_batch, body)
        runs = block_runs(encoded, len(self.ram) // PAGE_BYTES)
        blocks = await self._read_blocks(runs) if runs else b""
        await asyncio.to_thread(apply_pages, self.ram, encoded, blocks)
        for page, count in page_runs(encoded, len(self.ram) // PAGE_BYTES):
            self._touched.update(range(page // PIECE_PAGES, (page + count - 1) // PIECE_PAGES + 1))

    async def relay(self, body: bytes | memoryview) -> None:
        """Bytes for QEMU."""
        self._writer.write(decode(body, RELAY_BYTES))
        await self._writer.drain()
