"""The records of a RAM section in QEMU's stream, found by a kernel in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from typing_extensions import Buffer

from novacron.content import _kernels
from novacron.content.pages import NO_DATA

__all__ = ["NO_DATA", "RamScan", "StopReason", "scan_ram_records"]


class StopReason(IntEnum):
    """Why a scan ended."""

    NEED_MORE = 0  # the next record has not arrived whole
    EOS = 1  # the section's body ends
    MEM_SIZE = 2  # a table of blocks follows (not taken)
    UNKNOWN = 3  # a record that this version does not know


@dataclass(frozen=True, slots=True)
class RamScan:
    """Records found: block (u8), page number in it (u32), position of its data in the buffer (u32, or NO_DATA) of each.

    ``position`` is the first byte that was not taken; ``current_block`` is what a record that continues leans on.
    """

    reason: StopReason
    position: int
    current_block: int
    blocks: bytes
    pages: bytes
    positions: bytes
    detail: str


def scan_ram_records(
    data: Buffer, position: int, current_block: int, lengths: Sequence[int], names: Sequence[bytes]
) -> RamScan:
    """Records from ``position`` on, until one is incomplete or the scan must stop; blocks as the table gave them."""
    text = [name.decode("latin-1") for name in names]
    stop, at, current, blocks, pages, positions, detail = _kernels.scan_records(
        data, position, current_block, text, list(lengths)
    )
    return RamScan(StopReason(stop), at, current, blocks, pages, positions, detail)
