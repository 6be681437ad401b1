"""A VM brought back as a capture has it: disks and memory are written, and a QEMU loads the state of the devices."""

import asyncio
import mmap
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from novacron.core.clock import Clock
from novacron.hypervisor.driver import DiskExport, Machine, MachineState
from novacron.hypervisor.nbd.client import NbdClient
from novacron.migration.capture import DEVICES, RAM
from novacron.migration.errors import QemuFailedError
from novacron.migration.ram_file import MAX_DEVICE_BYTES
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.reader import pieces
from novacron.repository.repository import Repository

WRITES_IN_FLIGHT: Final = 4
LOAD_TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.01
_COMING_IN: Final = frozenset({MachineState.INMIGRATE, MachineState.FINISH_MIGRATE})


class Revival:
    """Fills what the driver made: first ``memory``, then, once an instance waits for its state, ``disks`` and ``load``.

    Raises RepositoryError, NbdError, QemuFailedError; nothing but the new files was touched then.
    """

    def __init__(self, repository: Repository, manifest: Manifest, clock: Clock, wrote: Callable[[int], None]) -> None:
        self._repository = repository
        self._manifest = manifest
        self._clock = clock
        self._wrote = wrote  # told how many bytes more are in place

    async def memory(self, path: Path) -> None:
        """Into a file of zeros, which the guest's own writes will never reach."""
        with path.open("r+b") as file, closing(mmap.mmap(file.fileno(), 0)) as ram:
            async for offset, data in pieces(self._repository, self._manifest.stream(RAM)):
                ram[offset : offset + len(data)] = data
                self._wrote(len(data))

    async def disks(self, machine: Machine) -> None:
        """Durable when this returns."""
        names = [disk.id for disk in machine.spec.disks]
        for name, export in zip(names, await machine.export_writable(names) if names else [], strict=True):
            await self._disk(export, self._manifest.stream(f"disk/{name}"))

    async def load(self, machine: Machine, socket: Path) -> None:
        """The state of the devices; the guest stands still then, ready to run."""
        devices = bytearray()
        async for _, data in pieces(self._repository, self._manifest.stream(DEVICES)):
            devices += data
            if len(devices) > MAX_DEVICE_BYTES:
                raise QemuFailedError(f"a state of devices of more than {MAX_DEVICE_BYTES} bytes")
        await machine.listen_incoming(socket)
        _, writer = await asyncio.open_unix_connection(socket)
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                writer.write(devices)
                await writer.drain()
                while (state := await machine.state()) in _COMING_IN:
                    await self._clock.sleep(LOOK_EVERY_S)  # a captured stream has no return path that would tell
        except (TimeoutError, ConnectionError) as error:
            raise QemuFailedError(f"QEMU did not load the checkpoint: {await machine.last_words()}") from error
        finally:
            writer.transport.abort()
        if state is MachineState.GONE:
            raise QemuFailedError(f"QEMU could not load the checkpoint: {await machine.last_words()}")
        await machine.end_exports()

    async def _disk(self, export: DiskExport, stream: Stream) -> None:
        writing: deque[asyncio.Task[None]] = deque()
        async with NbdClient.connect(export) as disk:
            try:
                async for offset, data in pieces(self._repository, stream):
                    if len(writing) == WRITES_IN_FLIGHT:
                        await writing.popleft()
                    writing.append(asyncio.create_task(disk.write(offset, data)))
                    self._wrote(len(data))
                while writing:
                    await writing.popleft()
                await disk.flush()
            finally:
                await asyncio.gather(*writing, return_exceptions=True)
