"""From what people write on the command line to what the API takes: disks, network cards, first-boot seeds."""

from pathlib import Path

import click

from novacron.core.errors import InvalidInputError
from novacron.core.units import parse_size
from novacron.protocol.rest import DiskRequest, NicRequest
from novacron.protocol.vm import CloudInitSeed


def parse_disk(text: str) -> DiskRequest:
    """``10GiB``: empty; ``debian``: an image as large as it is; ``debian:20GiB``: an image with more room."""
    name, colon, size = text.partition(":")
    if colon:
        return DiskRequest(parse_size(size), name)
    try:
        return DiskRequest(parse_size(text))
    except InvalidInputError:
        return DiskRequest(image=text)


def parse_nic(text: str) -> NicRequest:
    """``user``, ``none``, ``tap:br0``, each perhaps with ``,mac=52:54:00:00:00:01``."""
    kind, *options = text.split(",")
    mode, _, bridge = kind.partition(":")
    mac = ""
    for option in options:
        if not option.startswith("mac="):
            raise InvalidInputError(f"{option!r} says nothing about a network card: write mac=52:54:00:00:00:01")
        mac = option.removeprefix("mac=").lower()
    if mode not in {"user", "tap", "none"} or (mode == "tap") != bool(bridge):
        raise InvalidInputError(f"{text!r} is not a network card: write user, none or tap:BRIDGE")
    return NicRequest(mode, bridge, mac)


def read_seed(path: Path) -> CloudInitSeed:
    """A user-data file, or a folder with ``user-data`` and perhaps ``meta-data`` and ``network-config``."""

    def text(name: str) -> str:
        return (path / name).read_text() if (path / name).exists() else ""

    if path.is_dir():
        return CloudInitSeed(text("user-data"), text("meta-data"), text("network-config"))
    return CloudInitSeed(path.read_text())


def parse_disk_size(text: str) -> tuple[str, int]:
    """``disk0=20GiB``."""
    name, equals, size = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r} names no disk and size: write disk0=20GiB")
    return name, parse_size(size)
