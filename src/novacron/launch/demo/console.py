"""The workload's console, over the API's WebSocket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from novacron.launch.guest.console import WorkloadConsole


class _Writer:
    """What a console is written by, as far as the workload needs it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._waiting = b""

    def write(self, data: bytes) -> None:
        """Keep until ``drain``."""
        self._waiting += data

    async def drain(self) -> None:
        """Send."""
        data, self._waiting = self._waiting, b""
        await self._connection.send(data)


@asynccontextmanager
async def workload_console(url: str, token: str, vm: str) -> AsyncIterator[WorkloadConsole]:
    """The console of a VM's workload while the context lasts."""
    address = f"{url.replace('http', 'ws', 1)}/api/v1/vms/{vm}/console"
    async with connect(address, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None) as connection:
        reader = asyncio.StreamReader()

        async def pump() -> None:
            try:
                async for data in connection:
                    reader.feed_data(data if isinstance(data, bytes) else data.encode())
            except ConnectionClosed:
                pass
            finally:
                reader.feed_eof()

        pumping = asyncio.create_task(pump())
        try:
            yield WorkloadConsole(reader, _Writer(connection))
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)
