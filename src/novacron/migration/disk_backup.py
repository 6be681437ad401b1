"""Disks that are held at one instant, brought into a repository: what has changed, or all that is in use."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from novacron.core.clock import Clock
from novacron.hypervisor.driver import DiskExport
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION
from novacron.migration.disk_reading import Range, in_pieces, read, whole_units
from novacron.repository.manifest import Stream
from novacron.repository.regions import Piece
from novacron.repository.writer import Writer


@dataclass(slots=True)
class DiskBackup:
    """``rate_bytes_s`` bounds what is put into the store, on average; 0: nothing does."""

    writer: Writer
    clock: Clock
    rate_bytes_s: int = 0
    total_bytes: int = 0  # that are to be read, known once ``store`` reads

    async def store(self, exports: Sequence[DiskExport], onto: Sequence[Stream]) -> tuple[Stream, ...]:
        """Each of ``onto`` with what its export's bitmap marks; without one, with all that is in use.

        Raises NbdError, RepositoryError.
        """
        ranges = [await self._ranges(export) for export in exports]
        self.total_bytes = sum(length for found in ranges for _, length in found)
        began, streams = self.clock.monotonic(), []
        for export, found, stream in zip(exports, ranges, onto, strict=True):
            async with NbdClient.connect(export) as disk:
                pieces = self._paced(read(disk, in_pieces(found)), began)
                streams.append(await self.writer.store(stream, pieces))
        return tuple(streams)

    async def _ranges(self, export: DiskExport) -> list[Range]:
        context = export.bitmap or ALLOCATION
        async with NbdClient.connect(export, contexts=[context]) as disk:
            extents = await disk.extents(context)
            return list(whole_units(extents, context, disk.size_bytes, self.writer.unit_bytes))

    async def _paced(self, pieces: AsyncIterator[Piece], began: float) -> AsyncIterator[Piece]:
        """No piece before what was stored so far may have been."""
        async for piece in pieces:
            if self.rate_bytes_s:
                due = began + self.writer.written.stored_bytes / self.rate_bytes_s
                if (wait := due - self.clock.monotonic()) > 0:
                    await self.clock.sleep(wait)
            yield piece
