"""One QEMU at a site of the lab, started with NovaCron's own command line and steered by nobody else."""

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from novacron.hypervisor.driver import MachineEvent
from novacron.hypervisor.errors import QemuDiedError
from novacron.hypervisor.qemu.command import Launch, command
from novacron.hypervisor.qemu.qmp import Qmp
from novacron.launch.guest.console import WorkloadConsole
from novacron.launch.lab.lab import Lab

START_S: Final = 30.0
LOOK_EVERY_S: Final = 0.02  # for the monitor's socket of a QEMU that starts


class StockInstance:
    """Use ``running``."""

    def __init__(self, launch: Launch, process: Process, qmp: Qmp) -> None:
        self._launch = launch
        self._process = process
        self._qmp = qmp

    @classmethod
    @asynccontextmanager
    async def running(cls, lab: Lab, site: str, launch: Launch) -> AsyncIterator["StockInstance"]:
        """A QEMU that ends with the context, its RAM file with it."""
        launch.run_dir.mkdir(parents=True)
        log = launch.run_dir / "log"
        with log.open("wb") as output:
            process = await lab.start(
                site,
                command(launch),
                env=dict(os.environ),
                pass_fds=(),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            qmp = await _monitor(launch.run_dir / "qmp", process, log)
            try:
                yield cls(launch, process, qmp)
            finally:
                await qmp.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            launch.ram_path.unlink(missing_ok=True)

    async def qmp(self, name: str, /, **arguments: Any) -> Any:
        """One command of QEMU's."""
        return await self._qmp.execute(name, **arguments)

    def events(self) -> contextlib.AbstractAsyncContextManager[AsyncIterator[MachineEvent]]:
        """What it says by itself."""
        return self._qmp.events()

    @asynccontextmanager
    async def console(self) -> AsyncIterator[WorkloadConsole]:
        """The workload's."""
        reader, writer = await asyncio.open_unix_connection(self._launch.run_dir / "console")
        try:
            yield WorkloadConsole(reader, writer)
        finally:
            writer.close()


async def _monitor(path: Path, process: Process, log: Path) -> Qmp:
    """QEMU's monitor, once it listens."""
    async with asyncio.timeout(START_S):
        while process.returncode is None:
            if path.exists():
                with contextlib.suppress(QemuDiedError):  # the socket is there before somebody listens
                    return await Qmp.connect(path)
            await asyncio.sleep(LOOK_EVERY_S)
    raise QemuDiedError(f"QEMU ended before its monitor answered: {log.read_text(errors='replace').strip()[-500:]}")
