"""The client of block exports, against a server of our own."""

import asyncio

from novacron.core.units import MIB
from novacron.hypervisor.driver import DiskExport
from novacron.hypervisor.memory.disk import DiskView, MemoryDisk
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.server import NbdServer


async def test_one_that_is_cancelled_again_while_it_leaves_is_closed(tmp_path):
    async with NbdServer(tmp_path / "socket", {"disk0": DiskView(MemoryDisk(MIB), writable=True)}):
        clients: asyncio.Queue[NbdClient] = asyncio.Queue()

        async def use() -> None:
            async with NbdClient.connect(DiskExport(tmp_path / "socket", "disk0", "")) as client:
                clients.put_nowait(client)
                await asyncio.Event().wait()

        using = asyncio.create_task(use())
        client = await clients.get()
        using.cancel()
        await asyncio.sleep(0)
        using.cancel()
        await asyncio.gather(using, return_exceptions=True)
        assert client._writer.is_closing()
