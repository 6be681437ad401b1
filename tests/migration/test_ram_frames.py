"""What leaves a source of a QEMU's stream."""

from migration.qemu_stream import MAIN, PAGE, Written
from novacron.content.pages import PageEncoder
from novacron.core.clock import SystemClock
from novacron.migration.compression import Compression
from novacron.migration.frames import FrameType
from novacron.migration.meter import Meter
from novacron.migration.pipeline import Turns
from novacron.migration.ram import RamSender

KEY = bytes(range(32))


class Sent:
    """A link that keeps what it is given."""

    def __init__(self) -> None:
        self.kinds: list[int] = []

    async def send(self, kind: int, _: bytes | bytearray | memoryview) -> None:
        self.kinds.append(kind)


async def sent_of(pages: list[tuple[bytes, int, bytes]], shadow: bytearray) -> tuple[list[int], Meter]:
    """Frames by type, and what the meter says, for pages that come one after the other."""
    parts = [bytes(written.data) for written in (Written().begin(), *(Written().part([page]) for page in pages))]

    async def read_into(room: memoryview) -> int:
        piece = parts.pop(0) if parts else b""
        room[: len(piece)] = piece
        return len(piece)

    clock, sink = SystemClock(), Sent()
    meter = Meter(clock)
    encoder = PageEncoder(shadow, KEY)
    compression = Compression(clock, 1)
    sender = RamSender(sink, encoder, meter, Turns(), ram_bytes=len(shadow), compression=compression)
    await sender.run(read_into)
    return sink.kinds, meter


async def test_what_the_other_side_has_already_costs_no_frame_and_counts_as_done():
    held, fresh = b"held" * (PAGE // 4), b"new!" * (PAGE // 4)
    shadow = bytearray(held + bytes(7 * PAGE))
    kinds, meter = await sent_of([(MAIN, 0, held), (MAIN, 1, fresh), (MAIN, 0, held)], shadow)
    assert kinds.count(FrameType.RAM) == 1
    assert (meter.ram.unchanged_bytes, meter.ram.literal_bytes) == (2 * PAGE, PAGE)
    assert shadow[: 2 * PAGE] == held + fresh
