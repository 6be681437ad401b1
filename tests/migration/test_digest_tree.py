"""How a source finds out what lies at the destination: groups of blocks first, blocks only where a group differs."""

import tempfile
from pathlib import Path
from random import Random
from shutil import rmtree

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from novacron.content.codec import encode
from novacron.content.digest import DIGEST_BYTES
from novacron.core.units import MIB, PAGE_BYTES
from novacron.hypervisor.memory.driver import MemoryDriver, MemoryHost
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import Extent
from novacron.hypervisor.spec import DiskSpec
from novacron.migration import destination, known, source
from novacron.migration.errors import ChannelProtocolError
from novacron.migration.frames import Answer, FrameType, Known, Marks, pack, unpack
from novacron.migration.known import GROUP_BLOCKS, GROUP_BYTES, RAM, HeldContent, KnownContent, within
from novacron.protocol.migration import MigrationPolicy
from support.pair import Pair, small_spec

KEY = bytes(range(32))
GROUPS = 6
BLOCKS = (GROUPS - 1) * GROUP_BLOCKS + 5  # the last group is a short one
DONOR = "vm-00000000000000000002"


def digests(seed: int, blocks: int = BLOCKS) -> bytes:
    return Random(seed).randbytes(blocks * DIGEST_BYTES)


def changed(content: bytes, blocks) -> bytes:
    other = bytearray(content)
    for block in blocks:
        other[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES] = Random(block).randbytes(DIGEST_BYTES)
    return bytes(other)


def everywhere(disk: int, content: bytes) -> list[Marks]:
    """A destination that may hold something in every group."""
    marks = b"\xff" * -(-len(content) // GROUP_BYTES // 8)
    step = known.FRAME_GROUPS // 8
    return [Marks(disk, marks[at : at + step]) for at in range(0, len(marks), step)]


async def exchange(here: bytes, there: bytes, disk: int = 0, marks=None) -> tuple[bytes, int, list[tuple[int, int]]]:
    """What the source has learnt, digests of blocks that it was told, parts that it has to look at."""
    held, learnt = HeldContent(KEY), KnownContent({disk: len(here) // DIGEST_BYTES}, KEY)
    for part in marks or everywhere(disk, here):
        learnt.heard(FrameType.HELD, pack(part))
    for part in held.groups(disk, there):
        learnt.heard(FrameType.GROUPS, pack(part))
    told = 0
    for ask in await learnt.compare(disk, here):
        for part in held.asked(ask):
            told += len(known.decode(part.digests, known.KNOWN_BYTES)) // DIGEST_BYTES
            learnt.heard(FrameType.KNOWN, pack(part))
    assert not held.is_asked
    return await learnt.of(disk), told, await learnt.missing(disk)


async def test_of_what_is_the_same_only_the_groups_are_told():
    content = digests(1)
    assert await exchange(content, content) == (content, 0, [])
    frames = list(HeldContent(KEY).groups(RAM, content))
    assert sum(len(frame.digests) for frame in frames) <= GROUPS * DIGEST_BYTES + 8


async def test_zeros_cost_nothing():
    frames = list(HeldContent(KEY).groups(0, bytes(1000 * GROUP_BYTES)))
    assert sum(len(frame.digests) for frame in frames) < 64
    assert await exchange(bytes(GROUP_BYTES), bytes(GROUP_BYTES)) == (bytes(GROUP_BYTES), 0, [])


async def test_of_groups_that_differ_the_blocks_are_told():
    here = digests(1)
    there = changed(here, [3, 4, GROUP_BLOCKS * 2 + 1, GROUP_BLOCKS * 3, BLOCKS - 1])
    learnt, told, differing = await exchange(here, there)
    assert (learnt, told) == (there, 3 * GROUP_BLOCKS + 5)
    group = GROUP_BLOCKS * PAGE_BYTES
    assert differing == [(0, group), (2 * group, 2 * group), (5 * group, group)]


@given(
    blocks=st.integers(1, 5 * BLOCKS),
    written=st.lists(st.integers(0, 5 * BLOCKS - 1), max_size=8),
    unmarked=st.sets(st.integers(0, 5 * GROUPS)),
    frame_groups=st.sampled_from([8, 16]),
)
@settings(max_examples=100, deadline=None)
async def test_what_is_learnt_is_what_is_there_whatever_is_said_of_where(blocks, written, unmarked, frame_groups):
    content = digests(2, blocks)
    there = changed(content, [block for block in written if block < blocks])
    here = bytearray(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "FRAME_GROUPS", frame_groups)
        patch.setattr(known, "KNOWN_BYTES", frame_groups * DIGEST_BYTES)
        marks = everywhere(0, content)
        for group in unmarked:
            if (piece := group // frame_groups) < len(marks):
                bits = bytearray(marks[piece].groups)
                if (at := group % frame_groups) < len(bits) * 8:
                    bits[at // 8] &= ~(1 << at % 8)
                marks[piece] = Marks(0, bytes(bits))
            unread = here[group * GROUP_BYTES : (group + 1) * GROUP_BYTES]
            here[group * GROUP_BYTES : (group + 1) * GROUP_BYTES] = bytes(len(unread))
        learnt, _, missing = await exchange(bytes(here), there, marks=marks)
    assert learnt == there
    size = GROUP_BLOCKS * PAGE_BYTES
    looked_at = {offset // size + i for offset, length in missing for i in range(length // size)}
    groups = range(-(-blocks // GROUP_BLOCKS))
    differ = {block // GROUP_BLOCKS for block in written if block < blocks}
    assert looked_at == differ | (unmarked & set(groups))


@given(
    runs=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=8),
    parts=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_extents_are_cut_to_the_parts_that_differ(runs, parts):
    def marked(spans) -> set[int]:
        return {at for first, count in spans for at in range(first, first + count)}

    def apart(spans) -> list[tuple[int, int]]:
        return [(at, 1) for at in sorted(marked(spans))]

    extents = [Extent(first, count, 0) for first, count in apart(runs)]
    found = [(extent.offset, extent.length) for extent in within(extents, apart(parts))]
    assert found == [(at, 1) for at in sorted(marked(runs) & marked(parts))]
    whole = [(e.offset, e.length) for e in within([Extent(0, 100, 0)], apart(parts))]
    assert whole == apart(parts)


def frame(disk: int, content: bytes) -> Known:
    return Known(disk, encode(content, 1))


@pytest.mark.parametrize(
    "told",
    [
        frame(0, bytes(DIGEST_BYTES * (GROUPS - 1))),
        frame(0, bytes(DIGEST_BYTES * (GROUPS + 1))),
        frame(0, bytes(DIGEST_BYTES * GROUPS - 1)),
        frame(0, b""),
        frame(1, bytes(DIGEST_BYTES * GROUPS)),
        frame(RAM, bytes(DIGEST_BYTES * GROUPS)),
    ],
)
def test_groups_that_cannot_be_there_are_refused(told):
    with pytest.raises(ChannelProtocolError, match="the destination tells"):
        KnownContent({0: BLOCKS}, KEY).heard(FrameType.GROUPS, pack(told))


@pytest.mark.parametrize("told", [Marks(0, b""), Marks(0, b"\1\1"), Marks(1, b"\1"), Marks(RAM, b"\1")])
def test_marks_of_groups_that_cannot_be_there_are_refused(told):
    with pytest.raises(ChannelProtocolError, match="the destination tells"):
        KnownContent({0: BLOCKS}, KEY).heard(FrameType.HELD, pack(told))


async def test_what_comes_twice_or_was_not_asked_for_is_refused():
    here, learnt, held = digests(1), KnownContent({0: BLOCKS}, KEY), HeldContent(KEY)
    (groups,) = held.groups(0, changed(here, [0]))
    learnt.heard(FrameType.GROUPS, pack(groups))
    with pytest.raises(ChannelProtocolError, match="more or less"):
        learnt.heard(FrameType.GROUPS, pack(groups))
    with pytest.raises(ChannelProtocolError, match="more or less"):
        learnt.heard(FrameType.KNOWN, pack(frame(0, bytes(GROUP_BYTES))))
    (ask,) = await learnt.compare(0, here)
    for part in (bytes(GROUP_BYTES - DIGEST_BYTES), bytes(GROUP_BYTES + DIGEST_BYTES)):
        again = KnownContent({0: BLOCKS}, KEY)
        again.heard(FrameType.GROUPS, pack(groups))
        await again.compare(0, here)
        with pytest.raises(ChannelProtocolError, match="more or less"):
            again.heard(FrameType.KNOWN, pack(frame(0, part)))
    (blocks,) = held.asked(ask)
    learnt.heard(FrameType.KNOWN, pack(blocks))
    with pytest.raises(ChannelProtocolError, match="more or less"):
        learnt.heard(FrameType.KNOWN, pack(blocks))


@pytest.mark.parametrize("ask", [Marks(1, b"\1"), Marks(0, b""), Marks(0, b"\1\0"), Marks(0, b"\x40")])
def test_a_source_that_asks_for_what_is_not_there_is_refused(ask):
    held = HeldContent(KEY)
    list(held.groups(0, digests(1)))
    with pytest.raises(ChannelProtocolError, match="the source asks"):
        held.asked(ask)


@pytest.fixture
async def pair(short_dir):
    """Two nodes whose VMs are in memory; all of them are ended."""
    ram = Path(tempfile.mkdtemp(prefix="nc-ram-", dir="/dev/shm"))
    hosts = {"a": MemoryHost(), "b": MemoryHost()}

    def make(name: str) -> MemoryDriver:
        return MemoryDriver(no_image, host=hosts[name], run_dir=short_dir / name, ram_dir=ram / name)

    yield Pair(make, short_dir)
    for host in hosts.values():
        for vm in host.vms.values():
            for machine in vm.instances:
                await machine.kill()
    rmtree(ram)


def no_image(_) -> tuple[Path, str]:
    return Path("/dev/null"), "raw"


DISK_BLOCKS = 8 * GROUP_BLOCKS
SPEC = msgspec.structs.replace(
    small_spec(), memory_bytes=16 * MIB, disks=(DiskSpec("disk0", 4 * MIB), DiskSpec("data", DISK_BLOCKS * PAGE_BYTES))
)


async def fill(machine, content: bytes) -> None:
    (export,) = await machine.export_writable(["data"])
    async with NbdClient.connect(export) as disk:
        await disk.write(0, content)
    await machine.end_exports()


async def content_of(machine) -> bytes:
    (export,) = await machine.export_readable(["data"])
    async with NbdClient.connect(export) as disk:
        content = await disk.read(0, disk.size_bytes)
    await machine.end_exports()
    return content


@pytest.fixture
def told(monkeypatch) -> dict[tuple[str, int], int]:
    """Digests that a source was told, by kind and disk."""
    counted: dict[tuple[str, int], int] = {}
    heard = KnownContent.heard

    def count(self, kind, body) -> None:
        heard(self, kind, body)
        if kind != FrameType.HELD:
            part = unpack(body, Known)
            size = len(known.decode(part.digests, known.KNOWN_BYTES)) // DIGEST_BYTES
            where = "groups" if kind == FrameType.GROUPS else "blocks", part.disk
            counted[where] = counted.get(where, 0) + size

    monkeypatch.setattr(KnownContent, "heard", count)
    return counted


async def leave_for(pair: Pair, here: bytes, there: bytes):
    """A VM whose data disk is ``here`` goes where another one's is ``there``."""
    machine = await pair.boot(SPEC)
    await fill(machine, here)
    await pair.drivers["b"].create(DONOR, SPEC)
    await fill(await pair.drivers["b"].start(DONOR), there)
    arrival = await pair.move(machine, "b", 2, donor=DONOR)
    assert await content_of(arrival.machine) == here
    return arrival


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Bytes of each read of a data disk, wherever it is."""
    read, found = NbdClient.read, []

    async def spy(self, offset: int, length: int) -> bytes:
        if self.size_bytes == DISK_BLOCKS * PAGE_BYTES:
            found.append(length)
        return await read(self, offset, length)

    monkeypatch.setattr(NbdClient, "read", spy)
    return found


async def test_a_disk_that_is_the_same_costs_its_groups_and_is_not_read_again(pair, told, reads):
    content = Random(1).randbytes(DISK_BLOCKS * PAGE_BYTES)
    await leave_for(pair, content, content)
    assert told["groups", 1] == DISK_BLOCKS // GROUP_BLOCKS
    assert ("blocks", 1) not in told
    assert sum(reads) == 3 * len(content)  # once at each side, and by this test


async def test_where_nothing_lies_at_the_destination_nobody_looks_before_it_is_sent(pair, told, reads):
    content = Random(1).randbytes(DISK_BLOCKS * PAGE_BYTES)
    half = content[: len(content) // 2]
    await leave_for(pair, content, half)
    assert ("blocks", 1) not in told
    assert sum(reads) == len(half) + 2 * len(content)  # at the destination; at the source, and by this test


async def test_a_few_changed_blocks_cost_their_groups(pair, told, reads):
    content = bytearray(Random(1).randbytes(DISK_BLOCKS * PAGE_BYTES))
    there = bytes(content)
    for block in (1, 2, 3 * GROUP_BLOCKS):
        content[block * PAGE_BYTES : (block + 1) * PAGE_BYTES] = Random(1000 + block).randbytes(PAGE_BYTES)
    arrival = await leave_for(pair, bytes(content), there)
    assert told["blocks", 1] == 2 * GROUP_BLOCKS
    assert sum(reads) == 3 * len(content) + 2 * GROUP_BLOCKS * PAGE_BYTES
    assert arrival.summary.disk_wire_bytes < 32 * PAGE_BYTES  # those three, and the guest's records on its other disk


async def test_a_second_vm_of_an_image_finds_blocks_that_lie_elsewhere(pair, told):
    image = Random(1).randbytes(DISK_BLOCKS * PAGE_BYTES)
    moved = image[PAGE_BYTES:] + Random(2).randbytes(PAGE_BYTES)  # every block lies one nearer to the beginning
    arrival = await leave_for(pair, moved, image)
    assert told["blocks", 1] == DISK_BLOCKS
    assert arrival.summary.split.dedup_bytes > len(image) / 2  # few enough share a bucket of the table
    assert arrival.summary.disk_wire_bytes < len(image) / 2


async def test_ram_of_an_earlier_stay_is_told_by_groups(pair, told):
    machine = await pair.boot(SPEC)
    old = pair.directory / "old"
    there = bytearray(machine.ram_path.read_bytes())
    there[-PAGE_BYTES:] = Random(3).randbytes(PAGE_BYTES)
    old.write_bytes(there)
    image = pair.directory / "image-here"
    image.write_bytes(machine.ram_path.read_bytes())
    await pair.move(machine, "b", 2, old_image=old, ram_image=image)
    assert told == {("groups", RAM): 16 * MIB // PAGE_BYTES // GROUP_BLOCKS, ("blocks", RAM): GROUP_BLOCKS}


async def test_a_destination_that_tells_of_a_part_only_is_told_so(pair, monkeypatch):
    groups = HeldContent.groups
    monkeypatch.setattr(
        HeldContent, "groups", lambda self, disk, digests: groups(self, disk, digests[: -GROUP_BLOCKS * DIGEST_BYTES])
    )
    content = bytes(DISK_BLOCKS * PAGE_BYTES)
    with pytest.raises(ChannelProtocolError, match="more or less of its content"):
        await leave_for(pair, content, content)


async def test_a_destination_that_tells_what_nobody_asked_for_is_told_so(pair, monkeypatch):
    asked = HeldContent.asked
    monkeypatch.setattr(HeldContent, "asked", lambda self, ask: [frame(ask.disk, bytes(16)), *asked(self, ask)])
    size = DISK_BLOCKS * PAGE_BYTES
    with pytest.raises(ChannelProtocolError, match="more or less of its content"):
        await leave_for(pair, Random(1).randbytes(size), Random(2).randbytes(size))


async def test_a_destination_that_would_tell_of_disks_that_stay_is_told_so(pair, monkeypatch):
    monkeypatch.setattr(
        destination, "Answer", lambda **answer: Answer(answer["ram_held"], answer["disks_known"], disks_held=True)
    )
    machine = await pair.boot(SPEC)
    with pytest.raises(ChannelProtocolError, match="would tell of what is not compared"):
        await pair.move(machine, "b", 2, policy=MigrationPolicy(move_disks=False))


async def test_a_source_of_another_version_is_refused(pair, monkeypatch):
    monkeypatch.setattr(source, "PROTOCOL_VERSION", 1)
    machine = await pair.boot(SPEC)
    with pytest.raises(Exception, match="the source speaks version 1, this node 2"):
        await pair.move(machine, "b", 2)
