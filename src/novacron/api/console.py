"""``/vms/{vm}/console``: the serial console over a WebSocket."""

import asyncio
import contextlib
from typing import Any, Final

from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from novacron.api.auth import WRITE
from novacron.api.given import Named, ServedController
from novacron.core.errors import NovaCronError
from novacron.wire.errors import WireError
from novacron.wire.server import Duplex

CLOSE_CODE_BASE: Final = 4000  # 4404 says what HTTP's 404 says
LONGEST_REASON: Final = 120  # bytes that a close frame has room for


@websocket("/vms/{vm:str}/console", opt=WRITE)
async def vm_console(socket: WebSocket[Any, Any, Any], controller: ServedController, vm: Named) -> None:
    """Binary frames both ways, until one side ends."""
    await socket.accept()
    try:
        async with controller.vms.console(vm) as both:
            await _join(socket, both)
    except NovaCronError as error:
        await socket.close(
            CLOSE_CODE_BASE + error.http_status, error.cause.encode()[:LONGEST_REASON].decode("utf-8", "ignore")
        )
        return
    with contextlib.suppress(RuntimeError):  # closed by the other side already
        await socket.close()


async def _join(socket: WebSocket[Any, Any, Any], both: Duplex) -> None:
    async def out() -> None:
        while data := await both.receive():
            await socket.send_bytes(data)

    async def into() -> None:
        while True:
            await both.send(await socket.receive_bytes())

    tasks = {asyncio.create_task(out()), asyncio.create_task(into())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, (WebSocketDisconnect, WireError)):
            raise result
