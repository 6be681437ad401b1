"""One cluster of the demonstration: a controller and a node, each a process of its own, at one site of the lab."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from novacron.cli.client import Client
from novacron.cli.contexts import Context
from novacron.cli.kinds import NODES, VMS
from novacron.cli.watching import watch_one
from novacron.control.controller import TOKEN_FILE
from novacron.launch.demo.errors import ProcessEndedError
from novacron.launch.demo.leftovers import end_guests
from novacron.launch.lab.lab import Lab
from novacron.protocol.resources import Vm
from novacron.protocol.rest import Invitation, InviteRequest

READY_S: Final = 120.0  # the first start of a node boots a tiny guest to see what the host's accelerator is good for
STOP_S: Final = 20.0
NOVACRON: Final = str(Path(sys.executable).with_name("novacron"))  # of this environment


class DemoSite:
    """Use ``running``. ``client`` speaks with its API; ``url`` is its page."""

    def __init__(self, name: str, lab: Lab, directory: Path) -> None:
        self.name = name
        self.directory = directory / name
        self.url = ""
        self.token = ""
        self.client: Client
        self._lab = lab
        self._config = directory / "config"
        self._processes: dict[str, Process] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, name: str, lab: Lab, directory: Path) -> AsyncIterator["DemoSite"]:
        """A cluster that serves, its node joined; everything that it started ends with the context, guests included."""
        self = cls(name, lab, directory)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            await self._start_controller()
            stack.callback(self.client.close)
            await self._start_node()
            yield self

    @asynccontextmanager
    async def paused_guests(self) -> AsyncIterator[None]:
        """Every VM of the cluster stands still while the context lasts."""
        vms = [found.value for found in await asyncio.to_thread(self.client.list, VMS)]
        running = [vm.id for vm in vms if vm.state == "running"]
        for vm in running:
            await asyncio.to_thread(self.client.post, f"{VMS.path}/{vm}/pause", Vm)
        yield
        for vm in running:
            await asyncio.to_thread(self.client.post, f"{VMS.path}/{vm}/resume", Vm)

    def pid(self, part: str) -> int:
        """Of the ``controller`` or the ``node``."""
        return self._processes[part].pid

    async def _start_controller(self) -> None:
        data_dir = self.directory / "controller"
        api = socket.create_server(("127.0.0.1", 0))  # in the namespace of the person who looks at the page
        listen, advertise = self._lab.listen(self.name, "controller")
        with api:
            await self._start(
                "controller",
                ("--data-dir", str(data_dir), "--cluster", self.name, "--api", f"fd:{api.fileno()}"),
                ("--listen", listen, "--advertise", advertise),
                keep=(api.fileno(),),
            )
            self.url = f"http://127.0.0.1:{api.getsockname()[1]}"
        self.token = (data_dir / TOKEN_FILE).read_text()
        self.client = Client(Context(self.name, self.url, self.token))

    async def _start_node(self) -> None:
        made = await asyncio.to_thread(self.client.post, "/nodes/invite", Invitation, InviteRequest())
        listen, advertise = self._lab.listen(self.name, "node")
        facts = await self._start(
            "node",
            ("--data-dir", str(self.directory / "node"), "--name", f"{self.name}-node"),
            ("--listen", listen, "--advertise", advertise, "--invitation", made.value.invitation),
        )
        await asyncio.to_thread(self._until_ready, facts["node_id"])

    def _until_ready(self, node: str) -> None:
        """It serves; its controller has to have seen it, too."""
        for sight in watch_one(self.client, NODES, node):
            if sight.value is not None and sight.value.state == "ready":
                return

    async def _start(self, part: str, *options: tuple[str, ...], keep: tuple[int, ...] = ()) -> dict[str, Any]:
        """Start a process and wait for its word that it serves; raises ProcessEndedError with its last lines."""
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / f"{part}.log"
        read, write = os.pipe()
        try:
            with log.open("ab") as output:
                command = (NOVACRON, part, *(word for group in options for word in group), "--ready-fd", str(write))
                environment = {**os.environ, "NOVACRON_CONFIG_DIR": str(self._config)}
                self._processes[part] = await self._lab.start(
                    self.name, command, env=environment, pass_fds=(write, *keep), stdout=output, stderr=output
                )
        finally:
            os.close(write)
        with os.fdopen(read, "rb") as pipe:
            async with asyncio.timeout(READY_S):
                line = await asyncio.to_thread(pipe.readline)
        if not line:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise ProcessEndedError(
                f"the {part} of {self.name} ended before it served:\n{last}", next_command="novacron doctor"
            )
        facts: dict[str, Any] = msgspec.json.decode(line)
        return facts

    async def _stop(self) -> None:
        for process in reversed(self._processes.values()):
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(STOP_S):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
        await end_guests(self.directory / "node")
