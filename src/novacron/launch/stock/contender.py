"""What stock QEMU offers for a move without shared storage."""

from typing import Any, Final

from msgspec import Struct

from novacron.core.units import MIB


class Contender(Struct, frozen=True):
    """One way to set QEMU's own migration; the disk always goes by mirror over NBD, as libvirt does it."""

    name: str
    post_copy: bool = False  # after the first round the guest runs on at the destination, and the rest follows it
    capabilities: tuple[str, ...] = ()  # on both sides
    parameters: dict[str, Any] = {}


PLAIN: Final = Contender("stock plain")
XBZRLE: Final = Contender(
    "stock xbzrle",
    capabilities=("xbzrle",),
    parameters={"xbzrle-cache-size": 512 * MIB},  # all of the demo guest's RAM
)
MULTIFD_ZSTD: Final = Contender(
    "stock multifd+zstd",
    capabilities=("multifd",),
    parameters={"multifd-channels": 2, "multifd-compression": "zstd"},
)
AUTO_CONVERGE: Final = Contender("stock auto-converge", capabilities=("auto-converge",))
POST_COPY: Final = Contender("stock post-copy", post_copy=True, capabilities=("postcopy-ram",))
PEERS: Final = {
    "plain": PLAIN,
    "xbzrle": XBZRLE,
    "multifd+zstd": MULTIFD_ZSTD,
    "auto-converge": AUTO_CONVERGE,
    "post-copy": POST_COPY,
}
