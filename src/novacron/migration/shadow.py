"""A source's picture of the other side's RAM."""

import mmap
from pathlib import Path


def shadow(image: Path | None, ram_bytes: int) -> mmap.mmap:
    """What the other side's RAM file holds at the beginning: an old image (never written to), or zeros."""
    if image is None:
        return mmap.mmap(-1, ram_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with image.open("rb") as file:
        return mmap.mmap(file.fileno(), ram_bytes, access=mmap.ACCESS_COPY)
