"""TUN devices inside network namespaces."""

import ctypes
import fcntl
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from novacron.launch.lab.errors import NoNamespacesError

DEVICE: Final = "/dev/net/tun"
TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
CLONE_NEWNET: Final = 0x40000000
NAME_LENGTH: Final = 15


def open_tun(namespace: Path, name: str) -> int:
    """A new TUN device in the namespace; its file descriptor works from anywhere. Raises NoNamespacesError.

    A namespace is entered by a thread of its own, so that nobody else is moved.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_open, namespace, name).result()


def _open(namespace: Path, name: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open("rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise NoNamespacesError(f"namespace {namespace.name} cannot be entered: {os.strerror(ctypes.get_errno())}")
    try:
        device = os.open(DEVICE, os.O_RDWR)
        request = struct.pack("16sH14x", name.encode()[:NAME_LENGTH], IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(device, TUNSETIFF, request)
    except OSError as error:
        raise NoNamespacesError(f"no TUN device can be made: {error.strerror}") from error
    return device
