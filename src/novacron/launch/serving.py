"""What the long-lived processes have in common: bound sockets, the word that they are ready, a clean end."""

import asyncio
import ipaddress
import os
import re
import signal
import socket
from typing import Any, Final

import click
import msgspec

from novacron.core.errors import ConflictError, InvalidInputError

FD_PREFIX: Final = "fd:"
ready_option = click.option("--ready-fd", type=int, hidden=True, help="Write one JSON line here once it serves.")


def bind(address: str, what: str) -> socket.socket:
    """A listening socket for ``host:port``, or ``fd:N`` for one that the parent process has bound.

    Raises InvalidInputError, and ConflictError when the port is taken.
    """
    if address.startswith(FD_PREFIX):
        return socket.socket(fileno=int(address.removeprefix(FD_PREFIX)))
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInputError(f"{address!r} is not an address: write HOST:PORT")
    try:
        return socket.create_server((host, int(port)))
    except OSError as error:
        raise ConflictError(
            f"{what} cannot listen on {address}: {error.strerror}", next_command="novacron doctor"
        ) from error


def address_of(listener: socket.socket) -> str:
    """``host:port`` as bound."""
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def own_address(listener: socket.socket, advertise: str) -> str:
    """Where others of the same site reach it: as bound, unless it is bound to every address of the host.

    Raises InvalidInputError when it is, and nothing says under which of them to look for it.
    """
    address = address_of(listener)
    if not ipaddress.ip_address(listener.getsockname()[0]).is_unspecified:
        return address
    if not advertise:
        raise InvalidInputError(
            f"{address} is every address of this host: say at which one others reach it",
            next_command="the same command with --advertise HOST:PORT",
        )
    return advertise


def tell_ready(ready_fd: int | None, facts: dict[str, Any]) -> None:
    """One JSON line to whoever started this process and waits."""
    if ready_fd is not None:
        with os.fdopen(ready_fd, "wb") as pipe:
            pipe.write(msgspec.json.encode(facts) + b"\n")


def host_label() -> str:
    """This host's name in the form that clusters and nodes are named."""
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:63] or "local"


async def until_signal() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
