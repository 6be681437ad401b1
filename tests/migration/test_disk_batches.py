"""Batches of blocks on their way into a disk: side by side, and yet as if one came after the other."""

from hypothesis import given, settings, strategies as st

from content.on_disk import write_all
from novacron.content.batch import pack_batch
from novacron.content.encoded import Encoded
from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.driver import DiskExport
from novacron.hypervisor.memory.disk import DiskView, MemoryDisk
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.server import NbdServer
from novacron.migration.disks import DiskReceiver
from novacron.protocol.vm import DiskSpec

BLOCKS = 64
SIZE = BLOCKS * PAGE_BYTES
ZERO, COPY, LITERAL = 1, 2, 4
OPS = st.lists(
    st.tuples(st.sampled_from([ZERO, COPY, LITERAL]), *[st.integers(0, BLOCKS - 1)] * 2, st.integers(1, 8)),
    max_size=60,
)


def batch(ops) -> Encoded:
    """Operations anywhere, over and over each other: our encoder makes none like that, another one may."""
    written, literals, end = bytearray(), bytearray(), 0
    for number, (kind, first, source, wanted) in enumerate(ops):
        count = min(wanted, BLOCKS - max(first, source))
        written += bytes([kind]) + zigzag(first - end) + bytes([count])
        if kind == COPY:
            written += zigzag(source - first)
        if kind == LITERAL:
            literals += b"".join(bytes([number + 1, block + 1]) * (PAGE_BYTES // 2) for block in range(count))
        end = first + count
    return Encoded(bytes(written), bytes(literals), b"", (0,) * 6)


def zigzag(value: int) -> bytes:
    folded = value * 2 if value >= 0 else -value * 2 - 1
    return bytes([folded]) if folded < 0x80 else bytes([folded & 0x7F | 0x80, folded >> 7])


@given(batches=st.lists(OPS, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
async def test_a_disk_is_what_it_would_be_if_every_operation_waited_for_the_one_before(batches, tmp_path_factory):
    disk, model = MemoryDisk(SIZE), bytearray(SIZE)
    socket = tmp_path_factory.mktemp("nbd") / "socket"
    async with (
        NbdServer(socket, {"disk0": DiskView(disk, writable=True)}),
        NbdClient.connect(DiskExport(socket, "disk0", "")) as client,
    ):
        receiver = DiskReceiver([DiskSpec("disk0", SIZE)], [client])
        for ops in batches:
            told = batch(ops)
            await receiver.blocks(b"\0" + pack_batch(told, level=1).body)
            write_all(model, told)
            assert disk.read(0, SIZE) == model
