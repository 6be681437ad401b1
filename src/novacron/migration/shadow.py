"""A source's picture of the other side's RAM."""

import contextlib
import mmap
import os
from pathlib import Path
from tempfile import TemporaryFile


def shadow(image: Path | None, ram_bytes: int, directory: Path) -> mmap.mmap:
    """What the other side's RAM file holds at the beginning: an old image (never written to), or zeros.

    The kernel can evict it, to the image or to a file without a name in ``directory``. Where that has no room, it is
    memory of the process: a node whose disk is full is one that VMs have to leave.
    """
    if image is not None:
        with image.open("rb") as file:
            return mmap.mmap(file.fileno(), ram_bytes, access=mmap.ACCESS_COPY)
    with contextlib.suppress(OSError), TemporaryFile(dir=directory) as scratch:
        os.posix_fallocate(scratch.fileno(), 0, ram_bytes)  # what has no block when it is written kills the process
        return mmap.mmap(scratch.fileno(), ram_bytes)
    return mmap.mmap(-1, ram_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
