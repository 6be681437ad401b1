"""RAM pages against a picture of what the other side holds: unchanged, zero, copy, block, delta or literal."""

from collections.abc import Sequence
from typing import Final

from typing_extensions import Buffer

from novacron.content import _kernels
from novacron.content.blocks import BlockEncoder
from novacron.content.encoded import Encoded
from novacron.content.errors import MalformedContentError

NO_DATA: Final = 0xFFFF_FFFF  # as a page's position: a page of zeros


class PageEncoder:
    """Encodes pages against ``shadow``, a writable buffer that holds what the other side's RAM holds now.

    ``fresh``: that is zeros everywhere; none of it is touched then before it is written to.
    Each call says what must be done there, in order, and brings the shadow up to date. A copy is told only when the
    bytes themselves are equal in the shadow; a delta is the XOR of old and new with its zero runs cut out. Not safe for
    two calls at a time.
    """

    def __init__(self, shadow: Buffer, key: bytes, *, fresh: bool = False) -> None:
        self._kernel = _kernels.PageEncoder(shadow, key, fresh)

    def encode(self, numbers: Buffer, positions: Buffer, data: Buffer) -> Encoded:
        """Pages ``numbers`` (u32), each 4 KiB of ``data`` from its position (u32) on, or zeros at ``NO_DATA``.

        Raises ValueError for a page or data outside.
        """
        return Encoded(*self._kernel.encode(numbers, positions, data))

    def adopt(self, digests: bytes) -> None:
        """The other side holds pages of these digests (16 bytes each, from page 0 on; zeros for a page of zeros).

        Its word counts where it says something else than the shadow: such a page is known, or copied from, by its
        digest, and is no base of a delta. Raises ValueError for half a digest.
        """
        self._kernel.adopt(digests)

    def digests(self) -> bytes:
        """Of the shadow's pages, 16 bytes each; zeros for a page of zeros."""
        return self._kernel.digests()

    def look_into(self, disks: Sequence[BlockEncoder]) -> None:
        """Pages that the other side has as a block of one of these disks are told by that block's number.

        What is told then holds for the disks as they are once everything has arrived that ``disks`` have encoded so
        far: neither encoder may be called while the other one is.
        """
        self._kernel.look_into([disk.kernel for disk in disks])


def block_runs(encoded: Encoded, pages: int) -> list[tuple[int, int, int]]:
    """Disk, first block, number of blocks of every reference to a disk, in order; raises MalformedContentError."""
    try:
        return _kernels.block_runs(encoded.ops, pages)
    except _kernels.MalformedError as error:
        raise MalformedContentError(f"a batch of pages is malformed: {error}") from error


def page_runs(encoded: Encoded, pages: int) -> list[tuple[int, int]]:
    """First page and number of pages of every operation, in order; raises MalformedContentError."""
    try:
        return [(page, count) for _, page, count, _ in _kernels.read_ops(encoded.ops, pages)]
    except _kernels.MalformedError as error:
        raise MalformedContentError(f"a batch of pages is malformed: {error}") from error


def apply_pages(ram: Buffer, encoded: Encoded, blocks: Buffer = b"") -> None:
    """Do in ``ram`` what ``encoded`` says; ``blocks`` is the content of ``block_runs``, one after the other.

    Raises MalformedContentError: nothing outside of ``ram`` was touched then, what is inside is not defined.
    """
    try:
        _kernels.apply_pages(ram, encoded.ops, encoded.literals, encoded.deltas, blocks)
    except _kernels.MalformedError as error:
        raise MalformedContentError(f"a batch of pages is malformed: {error}") from error
