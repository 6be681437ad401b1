"""What lies at the destination already: told by a tree of digests, so that only the rest is sent.

An attempt that broke off, a VM that was there before and has gone on elsewhere, another VM of the same image: whatever
it is, the destination tells one digest of each group of 4 KiB blocks. The source compares them with those of its own
content, and asks for the digests of the blocks only where a group differs. Where nothing lies at the destination,
nobody looks.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from novacron.content.blocks import UNKNOWN, BlockEncoder
from novacron.content.codec import decode, encode
from novacron.content.digest import DIGEST_BYTES, root_digest
from novacron.core.units import MIB, PAGE_BYTES
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION, ZERO, Extent
from novacron.migration.errors import ChannelProtocolError
from novacron.migration.frames import KNOWN_BYTES, FrameType, Known, Marks, unpack

RAM: Final = -1
TOLD: Final = frozenset({FrameType.HELD, FrameType.GROUPS, FrameType.KNOWN})
READ_BYTES: Final = MIB
LEVEL: Final = 1
GROUP_BLOCKS: Final = 64
GROUP_BYTES: Final = GROUP_BLOCKS * DIGEST_BYTES  # of the digests of a group's blocks
FRAME_GROUPS: Final = KNOWN_BYTES // DIGEST_BYTES  # that one frame tells of
_ZERO: Final = bytes(DIGEST_BYTES)
_GROUP: Final = GROUP_BLOCKS * PAGE_BYTES  # bytes of content
Run = tuple[int, int]  # byte offset and length


async def digests_of_disk(disk: NbdClient, key: bytes, runs: Sequence[Run] | None = None) -> bytes:
    """Digests of all its blocks, or of those in ``runs`` and zeros for all else; what is not stored is not read.

    The client must have the allocation's context.
    """
    index = BlockEncoder(disk.size_bytes, key, fresh=True)
    stored = [extent for extent in await disk.extents(ALLOCATION) if not extent.flags & ZERO]
    for extent in stored if runs is None else within(stored, runs):
        for at in range(extent.offset, extent.offset + extent.length, READ_BYTES):
            length = min(READ_BYTES, extent.offset + extent.length - at)
            index.encode([(at, length)], await disk.read(at, length))
    return index.digests()


def within(extents: Iterable[Extent], runs: Iterable[Run]) -> Iterator[Extent]:
    """What of ``extents`` lies in ``runs``; both are in order, and apart."""
    rest = deque(runs)
    for extent in extents:
        end = extent.offset + extent.length
        while rest and rest[0][0] < end:
            offset, length = rest[0]
            first, last = max(extent.offset, offset), min(end, offset + length)
            if first < last:
                yield Extent(first, last - first, extent.flags)
            if offset + length > end:
                break
            rest.popleft()


def except_for(digests: bytes, extents: Iterable[Extent]) -> bytes:
    """Those digests of a disk, but none of the blocks of ``extents``."""
    rest = bytearray(digests)
    for extent in extents:
        first, count = extent.offset // PAGE_BYTES, -(-extent.length // PAGE_BYTES)
        rest[first * DIGEST_BYTES : (first + count) * DIGEST_BYTES] = UNKNOWN * count
    return bytes(rest)


def group_digests(digests: bytes, key: bytes) -> list[bytes]:
    """One digest of each ``GROUP_BLOCKS`` blocks, the last group may be shorter; zeros for a group of zeros."""
    zeros = bytes(GROUP_BYTES)
    return [_ZERO if group == zeros[: len(group)] else root_digest(group, key) for group in _cut(digests, GROUP_BYTES)]


async def held_groups(number: int, disk: NbdClient) -> list[Marks]:
    """Frames that tell where disk ``number`` may hold something; nothing of it is read."""
    marks = bytearray(_mark_bytes(disk.size_bytes // PAGE_BYTES))
    for extent in await disk.extents(ALLOCATION):
        if not extent.flags & ZERO:
            for group in range(extent.offset // _GROUP, -(-(extent.offset + extent.length) // _GROUP)):
                marks[group // 8] |= 1 << group % 8
    return [Marks(number, part) for part in _cut(bytes(marks), FRAME_GROUPS // 8)]


class HeldContent:
    """Tells what lies here, at the destination: of groups at once, of their blocks what is asked for."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._told: deque[tuple[int, bytes]] = deque()  # of each frame: disk, digests of the blocks

    def groups(self, disk: int, digests: bytes) -> Iterator[Known]:
        """Frames for the digests of a whole disk, or of RAM. Each is answered by one ASK, in order."""
        for piece in _cut(digests, FRAME_GROUPS * GROUP_BYTES):
            self._told.append((disk, piece))
            yield Known(disk, encode(b"".join(group_digests(piece, self._key)), LEVEL))

    @property
    def is_asked(self) -> bool:
        """Whether an ASK is still to come."""
        return bool(self._told)

    def asked(self, ask: Marks) -> list[Known]:
        """Frames for the blocks of the groups that are asked for; raises ChannelProtocolError."""
        disk, digests = self._told.popleft()
        groups = list(_cut(digests, GROUP_BYTES))
        beyond = int.from_bytes(ask.groups, "little") >> len(groups)
        if ask.disk != disk or len(ask.groups) != -(-len(groups) // 8) or beyond:
            raise ChannelProtocolError("the source asks for content of which it was not told")
        told = b"".join(group for number, group in enumerate(groups) if _is_set(ask.groups, number))
        return [Known(disk, encode(part, LEVEL)) for part in _cut(told, KNOWN_BYTES)]


class KnownContent:
    """Learns what a destination holds, at the source. ``blocks`` is how many RAM and each disk have."""

    def __init__(self, blocks: dict[int, int], key: bytes) -> None:
        self._key = key
        self._parts = {disk: _Part(count) for disk, count in blocks.items()}

    def heard(self, kind: int, body: bytes | memoryview) -> None:
        """One of ``TOLD``; raises ChannelProtocolError, MalformedContentError."""
        if kind == FrameType.HELD:
            marks = unpack(body, Marks)
            self._part(marks.disk).held.add(marks.groups)
            return
        frame = unpack(body, Known)
        part = self._part(frame.disk)
        (part.groups if kind == FrameType.GROUPS else part.blocks).add(decode(frame.digests, KNOWN_BYTES))

    async def held(self, disk: int) -> list[Run]:
        """Parts of a disk where the other side may hold something; the last may reach past its end."""
        part = self._parts[disk]
        marks = await part.held.whole()
        return _runs(number for number in range(part.count) if _is_set(marks, number))

    async def compare(self, disk: int, own: bytes) -> list[Marks]:
        """Wait for all groups of a disk, or of RAM; what to ask, where they differ from the blocks ``own`` here."""
        part = self._parts[disk]
        here = await asyncio.to_thread(group_digests, own, self._key)
        there = await part.groups.whole()
        part.own = own
        wanted = bytearray(-(-part.count // 8))
        for first in range(0, part.count, FRAME_GROUPS):
            size = 0
            for number in range(first, min(first + FRAME_GROUPS, part.count)):
                if here[number] != there[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
                    part.differing.append(number)
                    wanted[number // 8] |= 1 << number % 8
                    size += len(own[number * GROUP_BYTES : (number + 1) * GROUP_BYTES])
            part.blocks.expect(size)
        return [Marks(disk, groups) for groups in _cut(bytes(wanted), FRAME_GROUPS // 8)]

    async def of(self, disk: int) -> bytes:
        """Wait for what was asked; the digests of all blocks that are there."""
        part = self._parts[disk]
        told = await part.blocks.whole()
        digests, at = bytearray(part.own), 0
        for number in part.differing:
            group = slice(number * GROUP_BYTES, min((number + 1) * GROUP_BYTES, len(digests)))
            size = group.stop - group.start
            digests[group] = told[at : at + size]
            at += size
        part.own = b""
        return bytes(digests)

    async def missing(self, disk: int) -> list[Run]:
        """Parts of a disk that were not found to be the same on both sides; the last may reach past its end."""
        part = self._parts[disk]
        marks, differing = await part.held.whole(), set(part.differing)
        return _runs(number for number in range(part.count) if number in differing or not _is_set(marks, number))

    def _part(self, disk: int) -> "_Part":
        if disk not in self._parts:
            raise ChannelProtocolError(f"the destination tells of disk {disk}, which the VM has not")
        return self._parts[disk]


class _Told:
    """Bytes that come in frames, each as long as it can be."""

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._told = bytearray()
        self._lengths: deque[int] = deque()  # of the frames that are still to come
        self._moved = asyncio.Event()

    def expect(self, length: int) -> None:
        """So many bytes more, in frames of their own."""
        self._lengths.extend(min(self._frame_bytes, length - at) for at in range(0, length, self._frame_bytes))

    def add(self, told: bytes) -> None:
        if not self._lengths or len(told) != self._lengths.popleft():
            raise ChannelProtocolError("the destination tells more or less of its content than belongs there")
        self._told += told
        self._moved.set()

    async def whole(self) -> bytearray:
        """All that is expected."""
        while self._lengths:
            self._moved.clear()
            await self._moved.wait()
        return self._told


class _Part:
    """RAM or a disk."""

    def __init__(self, blocks: int) -> None:
        self.count = -(-blocks // GROUP_BLOCKS)
        self.held, self.groups, self.blocks = _Told(FRAME_GROUPS // 8), _Told(KNOWN_BYTES), _Told(KNOWN_BYTES)
        self.held.expect(_mark_bytes(blocks))
        self.groups.expect(self.count * DIGEST_BYTES)
        self.own = b""
        self.differing: list[int] = []  # numbers of groups


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _runs(groups: Iterable[int]) -> list[Run]:
    """Where their content lies, neighbours joined."""
    runs: list[Run] = []
    for number in groups:
        if runs and sum(runs[-1]) == number * _GROUP:
            runs[-1] = (runs[-1][0], runs[-1][1] + _GROUP)
        else:
            runs.append((number * _GROUP, _GROUP))
    return runs


def _mark_bytes(blocks: int) -> int:
    return -(-blocks // (GROUP_BLOCKS * 8))


def _is_set(marks: Sequence[int], number: int) -> bool:
    return bool(marks[number // 8] >> number % 8 & 1)
