"""The lab of a root user: a network namespace a site, and a relay of IP packets between two TUN devices."""

import asyncio
import contextlib
import mmap
import os
import struct
import subprocess
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

from novacron.launch.lab.errors import LabError, NoNamespacesError
from novacron.launch.lab.link import MS, Counters, Link
from novacron.launch.lab.tun import open_tun

PREFIX: Final = "ncron"
FOLDER: Final = Path("/run/netns")
DEVICE: Final = "link0"
ADDRESSES: Final = ("10.213.0.1", "10.213.0.2")
PORTS: Final = {"controller": 7440, "node": 7441, "stock-ram": 7442, "stock-disk": 7443}
COUNTERS: Final = struct.Struct("6Q")
RELAY: Final = files("novacron.launch.lab") / "link_relay"


class NamespaceLab:
    """Use ``create`` and ``remove``. Names hold the process id of their maker: what a dead one left is removed."""

    def __init__(self, link: Link, sites: tuple[str, str]) -> None:
        self.link = link
        self.note = f"network namespaces, IP packets over a link of {link.described}"
        self.address = dict(zip(sites, ADDRESSES, strict=True))
        self._names = {site: f"{PREFIX}-{os.getpid()}-{side}" for site, side in zip(sites, "ab", strict=True)}
        self._relay: subprocess.Popen[bytes] | None = None
        self._counters: mmap.mmap

    @classmethod
    def create(cls, link: Link, sites: tuple[str, str]) -> Self:
        """Raises NoNamespacesError."""
        if os.geteuid() != 0:
            raise NoNamespacesError("network namespaces need root")
        remove_leftovers()
        self = cls(link, sites)
        try:
            self._connect([self._add(site) for site in sites])
        except BaseException:
            self._remove()
            raise
        return self

    def listen(self, site: str, part: str) -> tuple[str, str]:
        """The site's own address; nobody else is in its namespace."""
        return f"{self.address[site]}:{PORTS[part]}", ""

    async def start(
        self, site: str, command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int] = (), **streams: Any
    ) -> Process:
        """Start a process in the site's namespace."""
        return await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self._names[site], *command),
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
            **streams,
        )

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """The second site's device is down: it is told that nothing is reachable, the first one is not told."""
        side = list(self._names.values())[-1]
        await asyncio.to_thread(_ip, "-n", side, "link", "set", DEVICE, "down")
        try:
            yield
        finally:
            await asyncio.to_thread(_ip, "-n", side, "link", "set", DEVICE, "up")

    def counters(self) -> tuple[Counters, Counters]:
        """Bytes and packets of IP."""
        figures = COUNTERS.unpack(self._counters[: COUNTERS.size])
        return Counters(*figures[:3]), Counters(*figures[3:])

    async def remove(self) -> None:
        """Nothing is left of it."""
        await asyncio.to_thread(self._remove)

    def _add(self, site: str) -> int:
        name = self._names[site]
        _ip("netns", "add", name)
        device = open_tun(FOLDER / name, DEVICE)
        _ip("-n", name, "address", "add", f"{self.address[site]}/24", "dev", DEVICE)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", DEVICE, "up")
        return device

    def _connect(self, devices: list[int]) -> None:
        """Start the relay; the devices are its alone."""
        link = self.link
        with tempfile.TemporaryFile() as file:
            file.truncate(COUNTERS.size)
            self._counters = mmap.mmap(file.fileno(), COUNTERS.size)
            fds = (*devices, file.fileno())
            figures = (
                link.rate_bytes_s,
                int(link.delay_ms * MS),
                int(link.jitter_ms * MS),
                int(link.loss * 1e6),
                link.queue_bytes,
                link.seed,
            )
            self._relay = subprocess.Popen([str(RELAY), *map(str, (*fds, *figures))], pass_fds=fds)
        for device in devices:
            os.close(device)

    def _remove(self) -> None:
        if self._relay is not None:
            self._relay.terminate()
            self._relay.wait()
        for name in self._names.values():
            if (FOLDER / name).exists():
                _ip("netns", "delete", name)


def remove_leftovers() -> None:
    """Namespaces of makers that have died."""
    for path in FOLDER.glob(f"{PREFIX}-*-?"):
        maker = path.name.split("-")[1]
        if not Path(f"/proc/{maker}").exists():
            with contextlib.suppress(LabError):  # another process may be doing the same
                _ip("netns", "delete", path.name)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True)
    except FileNotFoundError:
        raise NoNamespacesError("the command ip is not installed", next_command="./up --check") from None
    except subprocess.CalledProcessError as error:
        raise NoNamespacesError(f"ip {' '.join(words)}: {error.stderr.decode().strip()}") from error
