"""The disks of a VM that is off: nobody writes them, so any time is the instant. A storage daemon reads them.

They are opened to be read only: whatever is killed, their bitmaps stay whole.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from novacron.hypervisor.driver import DiskExport
from novacron.hypervisor.qemu import images
from novacron.hypervisor.qemu.images import run_tool
from novacron.hypervisor.qemu.machine import granularity
from novacron.hypervisor.qemu.process import Process


class RestingPointInTime:
    """See ``point_in_time.PointInTime``. ``folder`` is where its socket lies, of this VM alone."""

    def __init__(self, disks: Mapping[str, Path], sizes: Mapping[str, int], folder: Path) -> None:
        self._disks = disks
        self._sizes = sizes
        self._socket = folder / "nbd"

    async def marks(self, prefix: str) -> dict[str, bool]:
        """As the images tell."""
        found = [await images.bitmaps(path) for path in self._disks.values()]
        names = {name for bitmaps in found for name in bitmaps if name.startswith(prefix)}
        return {name: all(bitmaps.get(name, False) for bitmaps in found) for name in sorted(names)}

    async def begin(self, *, since: str, onward: str) -> list[DiskExport]:
        """A daemon that ends with ``end``."""
        for disk, path in self._disks.items():
            await images.add_bitmap(path, onward, granularity(self._sizes[disk]))
        self._socket.parent.mkdir(exist_ok=True, mode=0o700)
        server = f"addr.type=unix,addr.path={self._socket}"
        await run_tool(
            "qemu-storage-daemon", "--daemonize", *self._blockdevs(), "--nbd-server", server, *self._exports(since)
        )
        context = f"qemu:dirty-bitmap:{since}" if since else ""
        return [DiskExport(self._socket, disk, context) for disk in self._disks]

    def _blockdevs(self) -> list[str]:
        arguments = []
        for disk, path in self._disks.items():
            protocol = {"driver": "file", "filename": str(path)}
            node = {"driver": "qcow2", "node-name": disk, "read-only": True, "file": protocol}
            arguments += ["--blockdev", json.dumps(node)]
        return arguments

    def _exports(self, bitmap: str) -> list[str]:
        arguments = []
        for disk in self._disks:
            export: dict[str, Any] = {"type": "nbd", "id": f"nbd-{disk}", "node-name": disk, "name": disk}
            if bitmap:
                export["bitmaps"] = [bitmap]
            arguments += ["--export", json.dumps(export)]
        return arguments

    async def end(self) -> None:
        """Found by its socket, whoever started it."""
        daemon = Process.find(f"addr.path={self._socket}")
        if daemon is not None:
            await daemon.kill()
        shutil.rmtree(self._socket.parent, ignore_errors=True)

    async def forget(self, bitmap: str) -> None:
        """From every image."""
        for path in self._disks.values():
            if bitmap in await images.bitmaps(path):
                await images.remove_bitmap(path, bitmap)
