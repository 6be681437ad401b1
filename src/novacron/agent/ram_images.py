"""RAM images on disk: what a guest's memory was, kept as content for the next time that it comes.

A running guest's RAM lies on tmpfs; these lie in the node's folder, with holes where they are zero.
"""

import asyncio
import mmap
import os
from pathlib import Path
from typing import Final

from novacron.core.ids import VmId
from novacron.core.units import MIB
from novacron.migration.pipeline import to_the_end
from novacron.migration.ram import PIECE_BYTES

STEP: Final = MIB


class RamImages:
    """One image a VM, replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def keep(self, vm_id: VmId, ram: mmap.mmap) -> Path:
        """Keep what ``ram`` holds."""
        path = self._path(vm_id)
        await asyncio.to_thread(_write, ram, path)
        return path

    async def checkpoint(self, vm_id: VmId, ram: mmap.mmap, pieces: set[int]) -> Path:
        """Bring these pieces of ``PIECE_BYTES`` up to date in what is kept, durably.

        What is kept may be anything before and in between: whoever leans on it asks by digest what it holds.
        """
        path = self._path(vm_id)
        await to_the_end(_update, ram, sorted(pieces), path)
        return path

    def besides(self, known: set[str]) -> list[Path]:
        """Files that are none of ``known``: parts of images, and those that were never noted."""
        return [path for path in sorted(self.directory.iterdir()) if str(path) not in known]

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

    def _path(self, vm_id: VmId) -> Path:
        return self.directory / f"{vm_id}.ram"


def _update(ram: mmap.mmap, pieces: list[int], path: Path) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file, memoryview(ram) as view:
        file.truncate(len(ram))
        for piece in pieces:
            at = piece * PIECE_BYTES
            file.seek(at)
            file.write(view[at : at + PIECE_BYTES])
        file.flush()
        os.fsync(file.fileno())


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
