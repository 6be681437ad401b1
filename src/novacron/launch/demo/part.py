"""One process of a site, kept running: started again when it ends without having been told to, as systemd would."""

import asyncio
import contextlib
import os
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from novacron.launch.demo.errors import ProcessEndedError
from novacron.launch.lab.lab import Lab

READY_S: Final = 120.0  # the first start of a node boots a tiny guest to see what the host's accelerator is good for
STOP_S: Final = 20.0
AGAIN_AFTER_S: Final = 1.0  # when a start has failed
LAST_LINES: Final = 5
Tell = Callable[[str], None]


class Part:
    """``command`` must take ``--ready-fd``; its output and the user's contexts lie in ``directory``.

    ``keep`` are descriptors that it inherits.
    """

    def __init__(
        self, lab: Lab, name: str, directory: Path, command: Sequence[str], *, tell: Tell, keep: Sequence[int] = ()
    ) -> None:
        self._lab = lab
        self._site = directory.name
        self.name = f"{name} of {self._site}"
        self._command = command
        self._log = directory / f"{name}.log"
        self._config = directory.parent / "config"
        self._tell = tell
        self._keep = keep
        self._process: Process
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of its process of now."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal to its process of now; harmless when that has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def start(self) -> dict[str, Any]:
        """Start it and wait for its word that it serves; raises ProcessEndedError with its last lines."""
        facts = await self._launch()
        self._watching = asyncio.create_task(self._watch_over())
        return facts

    async def stop(self) -> None:
        """End it, and see it end."""
        if self._watching is None:
            return
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def _launch(self) -> dict[str, Any]:
        read, write = os.pipe()
        try:
            with self._log.open("ab") as output:
                self._process = await self._lab.start(
                    self._site,
                    (*self._command, "--ready-fd", str(write)),
                    env={**os.environ, "NOVACRON_CONFIG_DIR": str(self._config)},
                    pass_fds=(write, *self._keep),
                    stdout=output,
                    stderr=output,
                )
        finally:
            os.close(write)
        with os.fdopen(read, "rb") as pipe:
            async with asyncio.timeout(READY_S):
                line = await asyncio.to_thread(pipe.readline)
        if not line:
            last = "\n".join(self._log.read_text(errors="replace").splitlines()[-LAST_LINES:])
            raise ProcessEndedError(f"the {self.name} ended before it served:\n{last}", next_command="novacron doctor")
        facts: dict[str, Any] = msgspec.json.decode(line)
        return facts

    async def _watch_over(self) -> None:
        while True:
            status = await self._process.wait()
            self._tell(f"the {self.name} has ended (status {status}): it is started again")
            try:
                await self._launch()
            except ProcessEndedError:
                await asyncio.sleep(AGAIN_AFTER_S)
