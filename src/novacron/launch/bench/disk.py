"""A disk to measure with: content like memory's, no block twice, or that of real files; and its changes."""

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from novacron.core.units import MIB, PAGE_BYTES
from novacron.launch.bench.memory import like_memory

PATTERN_PAGES: Final = 2048
CHANGED_SHARE: Final = 0.04
CHANGE_PAGES: Final = 16  # that are written anew together
_NUMBER: Final = struct.Struct("<Q")


def make_disk(path: Path, size_bytes: int, seed: int) -> None:
    """Noise, text, numbers, repetition and emptiness, page by page."""
    pattern = like_memory(PATTERN_PAGES, seed)
    with path.open("wb") as file:
        for first in range(0, size_bytes // PAGE_BYTES, PATTERN_PAGES):
            pages = min(PATTERN_PAGES, size_bytes // PAGE_BYTES - first)
            file.write(_numbered(pattern[: pages * PAGE_BYTES], first + 1))


def make_disk_of_files(path: Path, folder: Path, size_bytes: int) -> int:
    """Contents of the files in ``folder``, in the order of their names, each from a block on; its size."""
    with path.open("wb") as file:
        for found in _files(folder):
            left = size_bytes - file.tell()
            if left <= 0:
                break
            file.write(found.read_bytes()[:left])
            file.seek(-(-file.tell() // PAGE_BYTES) * PAGE_BYTES)
        file.truncate()
        return file.tell()


def change_disk(path: Path, seed: int) -> None:
    """Write 4 % of it anew, in runs of 64 KiB at random places."""
    draw = random.Random(seed)  # noqa: S311 - content, no secret
    run_bytes = CHANGE_PAGES * PAGE_BYTES
    runs = range(path.stat().st_size // run_bytes)
    content = like_memory(CHANGE_PAGES, seed)
    with path.open("r+b") as file:
        for number, run in enumerate(draw.sample(runs, max(1, round(len(runs) * CHANGED_SHARE)))):
            file.seek(run * run_bytes)
            file.write(_numbered(content, (1 << 40) + number * CHANGE_PAGES))


def _numbered(pages: bytes, first: int) -> bytes:
    """No two pages alike, however often the same are given."""
    content = bytearray(pages)
    for number in range(len(content) // PAGE_BYTES):
        _NUMBER.pack_into(content, number * PAGE_BYTES, first + number)
    return bytes(content)


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK) and path.stat().st_size < 64 * MIB:
                yield path
