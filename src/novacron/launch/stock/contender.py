"""What stock QEMU offers for a move without shared storage."""

from typing import Any, Final

from msgspec import Struct


class Contender(Struct, frozen=True):
    """One way to set QEMU's own migration; the disk always goes by mirror over NBD, as libvirt does it."""

    name: str
    capabilities: tuple[str, ...] = ()  # on both sides
    parameters: dict[str, Any] = {}


PLAIN: Final = Contender("stock plain")
MULTIFD_ZSTD: Final = Contender(
    "stock multifd+zstd", ("multifd",), {"multifd-channels": 2, "multifd-compression": "zstd"}
)
CONTENDERS: Final = (PLAIN, MULTIFD_ZSTD)
