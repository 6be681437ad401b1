"""Disks in memory at one instant: copies, which cost nothing."""

from collections.abc import Mapping
from pathlib import Path

from novacron.hypervisor.driver import DiskExport
from novacron.hypervisor.memory.disk import DiskView, MemoryDisk
from novacron.hypervisor.nbd.server import NbdServer


class MemoryPointInTime:
    """See ``point_in_time.PointInTime``; nobody writes while one of its methods runs."""

    def __init__(self, disks: Mapping[str, MemoryDisk], socket: Path) -> None:
        self._disks = disks
        self._socket = socket
        self._server: NbdServer | None = None

    @property
    def holds(self) -> bool:
        """Between ``begin`` and ``end``."""
        return self._server is not None

    async def marks(self, prefix: str) -> dict[str, bool]:
        """What is there is whole."""
        names = {name for disk in self._disks.values() for name in disk.bitmaps if name.startswith(prefix)}
        return {name: all(name in disk.bitmaps for disk in self._disks.values()) for name in sorted(names)}

    async def begin(self, *, since: str, onward: str) -> list[DiskExport]:
        """Exports of copies."""
        views = {}
        for name, disk in self._disks.items():
            disk.track(onward, persistent=True)
            copy = disk.copy(disk.size_bytes)
            if since:
                copy.track(since, enabled=False).marked.update(disk.bitmap(since).marked)
            views[name] = DiskView(copy, writable=False, bitmap=since)
        self._server = await NbdServer(self._socket, views).__aenter__()
        return [DiskExport(self._socket, name, f"qemu:dirty-bitmap:{since}" if since else "") for name in views]

    async def end(self) -> None:
        """The copies go."""
        server, self._server = self._server, None
        if server is not None:
            await server.__aexit__()

    async def forget(self, bitmap: str) -> None:
        """From every disk."""
        for disk in self._disks.values():
            disk.bitmaps.pop(bitmap, None)
