"""How the C library keeps memory that is freed."""

import ctypes
from typing import Final

from novacron.core.units import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
LARGEST_KEPT_BYTES: Final = 32 * MIB
KEPT_BYTES: Final = 64 * MIB  # in each heap
HEAPS: Final = 2  # for all threads: with one for each of them what is kept would be many times as much


def keep_freed_buffers() -> None:
    """Use freed buffers of up to ``LARGEST_KEPT_BYTES`` again, instead of giving them back to the kernel.

    Batches of a MiB come and go by the hundred a second: each would be had again by a fault a page, which costs as much
    as compressing them. Up to ``KEPT_BYTES`` of each heap stay with this process. Without glibc nothing changes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        set_option(_M_TRIM_THRESHOLD, KEPT_BYTES)
        set_option(_M_ARENA_MAX, HEAPS)
