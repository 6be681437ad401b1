"""RAM images on disk: what a guest's memory was, kept as content for the next time that it comes.

A running guest's RAM lies on tmpfs; these lie in the node's folder, with holes where they are zero.
"""

import asyncio
import mmap
from pathlib import Path
from typing import Final

from novacron.core.ids import VmId
from novacron.core.units import MIB

STEP: Final = MIB


class RamImages:
    """One image a VM, replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def keep(self, vm_id: VmId, ram: mmap.mmap) -> Path:
        """Keep what ``ram`` holds."""
        path = self._directory / f"{vm_id}.ram"
        await asyncio.to_thread(_write, ram, path)
        return path

    async def keep_file(self, vm_id: VmId, ram_path: Path) -> Path | None:
        """Keep a RAM file of a VM that never ran here; None when nothing had come."""
        try:
            with ram_path.open("rb") as file:
                if not (await asyncio.to_thread(ram_path.stat)).st_blocks:
                    return None
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as ram:
                    return await self.keep(vm_id, ram)
        except FileNotFoundError:
            return None


def _write(ram: mmap.mmap, path: Path) -> None:
    zeros = bytes(STEP)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file, memoryview(ram) as view:
        file.truncate(len(ram))
        for at in range(0, len(ram), STEP):
            with view[at : at + STEP] as piece:
                if piece != zeros[: len(piece)]:
                    file.seek(at)
                    file.write(piece)
    temporary.replace(path)
