"""One cluster of the demonstration: a controller and a node, each a process of its own, at one site of the lab."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from novacron.cli.client import Client
from novacron.cli.contexts import Context
from novacron.cli.kinds import NODES, VMS
from novacron.cli.watching import watch_one
from novacron.control.controller import TOKEN_FILE
from novacron.launch.demo.leftovers import end_guests
from novacron.launch.demo.part import Part, Tell
from novacron.launch.lab.lab import Lab
from novacron.protocol.resources import Vm
from novacron.protocol.rest import Invitation, InviteRequest

SITES: Final = ("site-a", "site-b")
NOVACRON: Final = (str(Path(sys.executable).with_name("novacron")),)  # of this environment


class DemoSite:
    """Use ``running``. ``client`` speaks with its API; ``url`` is its page; a part that ends is started again."""

    def __init__(self, name: str, lab: Lab, directory: Path, *, tell: Tell, program: Sequence[str]) -> None:
        self.name = name
        self.directory = directory / name
        self.url = ""
        self.token = ""
        self.client: Client
        self.controller: Part
        self.node: Part
        self._lab = lab
        self._tell = tell
        self._program = program

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        name: str,
        lab: Lab,
        directory: Path,
        *,
        tell: Tell = lambda _: None,
        program: Sequence[str] = NOVACRON,
    ) -> AsyncIterator["DemoSite"]:
        """A cluster that serves, its node joined; everything that it started ends with the context, guests included."""
        self = cls(name, lab, directory, tell=tell, program=program)
        self.directory.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            await self._start_controller(stack)
            stack.push_async_callback(end_guests, self.directory / "node")
            await self._start_node(stack)
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

    async def _start_controller(self, stack: AsyncExitStack) -> None:
        data_dir = self.directory / "controller"
        # Bound here, in the namespace of the person who looks at the page, and open across restarts.
        api = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listen, advertise = self._lab.listen(self.name, "controller")
        command = (
            *(*self._program, "controller", "--data-dir", str(data_dir), "--cluster", self.name),
            *("--api", f"fd:{api.fileno()}", "--listen", listen, "--advertise", advertise),
        )
        self.controller = Part(self._lab, "controller", self.directory, command, tell=self._tell, keep=(api.fileno(),))
        stack.push_async_callback(self.controller.stop)
        await self.controller.start()
        self.url = f"http://127.0.0.1:{api.getsockname()[1]}"
        self.token = (data_dir / TOKEN_FILE).read_text()
        self.client = Client(Context(self.name, self.url, self.token))
        stack.callback(self.client.close)

    async def _start_node(self, stack: AsyncExitStack) -> None:
        made = await asyncio.to_thread(self.client.post, "/nodes/invite", Invitation, InviteRequest())
        listen, advertise = self._lab.listen(self.name, "node")
        command = (
            *(*self._program, "node", "--data-dir", str(self.directory / "node"), "--name", f"{self.name}-node"),
            *("--listen", listen, "--advertise", advertise, "--invitation", made.value.invitation),
        )
        self.node = Part(self._lab, "node", self.directory, command, tell=self._tell)
        stack.push_async_callback(self.node.stop)
        facts = await self.node.start()
        await asyncio.to_thread(self._until_ready, facts["node_id"])

    def _until_ready(self, node: str) -> None:
        """It serves; its controller has to have seen it, too."""
        for sight in watch_one(self.client, NODES, node):
            if sight.value is not None and sight.value.state == "ready":
                return


@asynccontextmanager
async def both_sites(
    lab: Lab, directory: Path, *, tell: Tell = lambda _: None
) -> AsyncIterator[tuple[DemoSite, DemoSite]]:
    """A cluster at each of the lab's ``SITES``."""
    async with AsyncExitStack() as stack:
        sites = (DemoSite.running(name, lab, directory, tell=tell) for name in SITES)
        a, b = await asyncio.gather(*map(stack.enter_async_context, sites))
        yield a, b
