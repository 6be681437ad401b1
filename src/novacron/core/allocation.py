"""How the C library keeps memory that is freed."""

import ctypes
from typing import Final

from novacron.core.units import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT_BYTES: Final = 32 * MIB
KEPT_BYTES: Final = 64 * MIB


def keep_freed_buffers() -> None:
    """Use freed buffers of up to ``LARGEST_KEPT_BYTES`` again, instead of giving them back to the kernel.

    Batches of a MiB come and go by the hundred a second: each would be had again by a fault a page, which costs as much
    as compressing them. Up to ``KEPT_BYTES`` stay with this process. Without glibc nothing changes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        set_option(_M_TRIM_THRESHOLD, KEPT_BYTES)
