"""A lab: two sites, and the one link between them."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from novacron.launch.lab.errors import NoNamespacesError
from novacron.launch.lab.link import Counters, Link
from novacron.launch.lab.namespaces import NamespaceLab
from novacron.launch.lab.relay import RelayLab


class Lab(Protocol):
    """Where processes of two sites run; what one sends to the other crosses the link."""

    link: Link
    note: str  # what a reader of the figures must know of this lab

    def listen(self, site: str, part: str) -> tuple[str, str]:
        """Where a process of ``site`` listens, and where the other site reaches it (both ``host:port``)."""
        ...

    async def start(
        self, site: str, command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int], **streams: Any
    ) -> Process:
        """Start a process at a site."""
        ...

    def cut(self) -> AbstractAsyncContextManager[None]:
        """Nothing crosses the link while the context lasts."""
        ...

    def counters(self) -> tuple[Counters, Counters]:
        """What has crossed the link so far: from the first site to the second, and back."""
        ...


@asynccontextmanager
async def open_lab(link: Link, sites: tuple[str, str]) -> AsyncIterator[Lab]:
    """Namespaces with a link of IP packets when this user may make them, else a TCP relay on loopback."""
    try:
        lab = await asyncio.to_thread(NamespaceLab.create, link, sites)
    except NoNamespacesError as error:
        async with RelayLab.running(link, sites, error.cause) as relay:
            yield relay
        return
    try:
        yield lab
    finally:
        await lab.remove()


def crossed(lab: Lab) -> int:
    """Bytes that have crossed the link so far, both directions together."""
    return sum(direction.bytes for direction in lab.counters())
