"""Room at this host, for disks and for guests' RAM."""

import os
import shutil
from pathlib import Path
from typing import Final

from novacron.core.units import GIB, MIB, format_size
from novacron.hypervisor.errors import NoRoomError

MIN_DISK_FREE_BYTES: Final = 256 * MIB  # what is left free
MEMORY_SPARE_BYTES: Final = GIB // 4  # what QEMU and the host keep for themselves


class HostRoom:
    """Looks at the file systems of disks and of RAM files, and at the host's memory."""

    def __init__(self, disks: Path, ram: Path) -> None:
        self._disks = disks
        self._ram = ram

    def disk_bytes(self) -> int:
        """What new disks may fill."""
        return max(0, shutil.disk_usage(self._disks).free - MIN_DISK_FREE_BYTES)

    def memory_bytes(self) -> int:
        """The host's memory."""
        return _memory_info()["MemTotal"]

    def ram_bytes(self) -> int:
        """What a new guest may fill: what the file system and the host have, less what others may still fill."""
        promised = 0
        for path in self._ram.glob("*.ram"):
            try:
                info = path.stat()
            except FileNotFoundError:
                continue
            promised += max(0, info.st_size - info.st_blocks * 512)
        system = os.statvfs(self._ram)
        available = min(system.f_bavail * system.f_frsize, _memory_info()["MemAvailable"] - MEMORY_SPARE_BYTES)
        return max(0, available - promised)

    def check_disk(self, needed_bytes: int) -> None:
        """Raises NoRoomError."""
        if needed_bytes > (free := self.disk_bytes()):
            raise NoRoomError(
                f"a disk of {format_size(needed_bytes)} is asked for, {format_size(free)} are free here",
                next_command="novacron node list",
            )

    def check_ram(self, needed_bytes: int) -> None:
        """Raises NoRoomError."""
        if needed_bytes > (free := self.ram_bytes()):
            raise NoRoomError(
                f"{format_size(needed_bytes)} of memory are needed, {format_size(free)} are free on this host",
                next_command="novacron node list",
            )


def _memory_info() -> dict[str, int]:
    """Of /proc/meminfo, in bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in lines}
