"""Disk blocks of 4 KiB: zero, copy of a block that the same disk has, or literal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from typing_extensions import Buffer

from novacron.content import _kernels
from novacron.content.digest import DIGEST_BYTES
from novacron.content.encoded import Encoded
from novacron.content.errors import MalformedContentError
from novacron.core.units import PAGE_BYTES

_ZERO, _COPY, _DELTA, _LITERAL, _BLOCK = 1, 2, 3, 4, 5
MAX_OP_BLOCKS: Final = 4096  # of a copy or a literal: 16 MiB

UNKNOWN: Final = b"\xff" * DIGEST_BYTES  # a block of which nothing is known


@dataclass(frozen=True, slots=True)
class Copy:
    """``length`` bytes that the disk holds from ``source`` on, once all that comes before is written."""

    source: int
    length: int


Write = tuple[int, bytes | int | Copy]


class BlockEncoder:
    """Encodes blocks of one disk of ``size_bytes``; the other side's content is known by digest only.

    ``fresh``: the other side's disk reads as zeros everywhere. Not safe for two calls at a time.
    """

    def __init__(self, size_bytes: int, key: bytes, *, fresh: bool) -> None:
        self.kernel = _kernels.BlockEncoder(size_bytes // PAGE_BYTES, key, fresh)

    def encode(self, runs: Sequence[tuple[int, int]], data: Buffer) -> Encoded:
        """Runs (byte offset, length) of blocks, each block once; ``data`` holds them one after the other.

        Raises ValueError outside of the disk, or when the data are not theirs.
        """
        blocks = [(offset // PAGE_BYTES, length // PAGE_BYTES) for offset, length in runs]
        return Encoded(*self.kernel.encode(blocks, data))

    def adopt(self, digests: bytes) -> None:
        """The other side holds blocks of these digests (16 bytes each, from block 0 on); raises ValueError."""
        self.kernel.adopt(digests)

    def learn(self, digests: bytes) -> None:
        """The other side holds blocks of these digests where nothing is known of it yet; ``UNKNOWN`` tells of none."""
        self.kernel.learn(digests)

    def digests(self) -> bytes:
        """Of the blocks as the other side has them, 16 bytes each; zeros for a block of zeros."""
        return self.kernel.digests()

    def held(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Runs (byte offset, length) within this part of the disk where the other side may hold something."""
        runs = self.kernel.held(offset // PAGE_BYTES, length // PAGE_BYTES)
        return [(first * PAGE_BYTES, count * PAGE_BYTES) for first, count in runs]


def decode_blocks(encoded: Encoded, size_bytes: int) -> Iterator[Write]:
    """What must be written, in order: (byte offset, data), (byte offset, number of zero bytes), (byte offset, copy).

    Raises MalformedContentError.
    """
    try:
        ops = _kernels.read_ops(encoded.ops, size_bytes // PAGE_BYTES)
    except _kernels.MalformedError as error:
        raise MalformedContentError(f"a batch of blocks is malformed: {error}") from error
    at = 0
    for kind, block, count, source in ops:
        offset, length = block * PAGE_BYTES, count * PAGE_BYTES
        if kind == _ZERO:
            yield offset, length
            continue
        if kind in {_DELTA, _BLOCK} or count > MAX_OP_BLOCKS:
            raise MalformedContentError("a batch of blocks holds an operation that blocks do not have")
        if kind == _COPY:
            yield from _copy(offset, source * PAGE_BYTES, length)
            continue
        if at + length > len(encoded.literals):
            raise MalformedContentError("a batch of blocks ends too early")
        yield offset, encoded.literals[at : at + length]
        at += length
    if at != len(encoded.literals):
        raise MalformedContentError("a batch of blocks holds bytes that no operation takes")


def _copy(offset: int, source: int, length: int) -> Iterator[Write]:
    """Block by block where source and target overlap: a copied block may be the source of the next."""
    step = PAGE_BYTES if abs(source - offset) < length else length
    for at in range(0, length, step):
        yield offset + at, Copy(source + at, step)
