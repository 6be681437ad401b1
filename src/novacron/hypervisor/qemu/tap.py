"""A network card's way into a bridge of the host: a tap device that lives as long as its QEMU.

Opened here and inherited: QEMU's own helper is a program, and our QEMUs may start none.
"""

import asyncio
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from novacron.hypervisor.errors import BridgeError

DEVICE: Final = "/dev/net/tun"
TUNSETIFF: Final = 0x400454CA
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
REQUEST: Final = struct.Struct("16sH14x")
CLASS: Final = Path("/sys/class/net")


async def open_tap(bridge: str) -> int:
    """A new tap in ``bridge``, up; the caller closes the descriptor. Raises BridgeError."""
    if not (CLASS / bridge / "bridge").is_dir():
        raise BridgeError(
            f"this host has no bridge {bridge!r}",
            next_command=f"ip link add {bridge or 'br0'} type bridge && ip link set {bridge or 'br0'} up",
        )
    try:
        tap = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise BridgeError(f"no tap device can be made: {error.strerror}") from error
    try:
        name = _attach(tap)
        await _ip("link", "set", name, "master", bridge, "up")
    except BaseException:
        os.close(tap)
        raise
    return tap


def _attach(tap: int) -> str:
    """Make the device; the kernel chooses its name."""
    try:
        made = fcntl.ioctl(tap, TUNSETIFF, REQUEST.pack(b"nova%d", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except OSError as error:
        raise BridgeError(
            f"no tap device can be made: {error.strerror}", next_command="run the node as root, or use --nic user"
        ) from error
    name: bytes = REQUEST.unpack(made)[0]
    return name.rstrip(b"\0").decode()


async def _ip(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "ip", *words, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode:
        raise BridgeError(f"ip {' '.join(words)}: {errors.decode(errors='replace').strip()}")
