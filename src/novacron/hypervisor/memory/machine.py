"""One instance of a VM in memory; see ``driver.Machine``. It goes through the states that QEMU goes through."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from novacron.core.ids import VmId
from novacron.hypervisor.driver import DirectLink, DiskExport, MachineState
from novacron.hypervisor.errors import QmpError, UnsupportedError
from novacron.hypervisor.memory import stream
from novacron.hypervisor.memory.disk import BLOCK_BYTES, DiskView, MemoryDisk
from novacron.hypervisor.memory.guest import GuestState
from novacron.hypervisor.memory.outgoing import Leaving
from novacron.hypervisor.nbd.server import NbdServer
from novacron.protocol.vm import VmSpec

STATUS_EVERY_S: Final = 1.0  # the demo guest's pace


class MemoryMachine(Leaving):
    """An instance; ``incoming`` ones wait for their state."""

    def __init__(
        self,
        vm_id: VmId,
        instance: str,
        spec: VmSpec,
        *,
        ram_path: Path,
        run_dir: Path,
        disks: dict[str, MemoryDisk],
        incoming: bool,
    ) -> None:
        super().__init__(vm_id, instance, spec, ram_path=ram_path, run_dir=run_dir, disks=disks, incoming=incoming)
        self.announced = 0  # times
        self._exports: dict[str, DiskView] = {}
        self._export_server: NbdServer | None = None
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._console: Path | None = None

    async def announce(self) -> None:
        """There is no network that would hear it."""
        self._must_live()
        self.announced += 1

    async def powerdown(self) -> None:
        """Press the power button: this guest obeys at once."""
        self._must_live()
        self._say("SHUTDOWN", guest=True, reason="guest-shutdown")
        await self.kill()

    async def quit(self) -> None:
        """End it."""
        await self.kill()

    async def kill(self) -> None:
        """End it, with everything that it has open."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._runs.clear()
        tasks = [task for task in (self._out.task, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            server.close()
        await self._close_exports()
        for disk in self.disks.values():
            disk.forget_bitmaps()
        for watcher in self._watchers:
            watcher.put_nowait(None)

    async def console(self) -> Path:
        """A socket at which the guest speaks as the demo guest does."""
        self._must_live()
        if self._console is None:
            self._console = self.run_dir / "console"
            self._servers.append(await asyncio.start_unix_server(self._accept_console, self._console))
        return self._console

    async def listen_incoming(self, socket: Path, *, post_copy: bool = False) -> None:
        """Wait for the stream."""
        self._must_live()
        if post_copy:
            raise UnsupportedError("no memory follows a VM in memory")
        self._servers.append(await asyncio.start_unix_server(self._accept_stream, socket))

    async def recover_incoming(self, socket: Path) -> None:
        """Nothing of it follows."""
        del socket
        raise UnsupportedError("no memory follows a VM in memory")

    async def listen_direct(self, link: DirectLink, host: str, ports: tuple[int, int]) -> int:
        """There is no other process that it could speak with."""
        del link, host, ports
        raise UnsupportedError("VMs in memory do not come by themselves")

    async def export_writable(self, disks: Sequence[str]) -> list[DiskExport]:
        """Exports that can be written."""
        return await self._export(disks, writable=True)

    async def export_readable(self, disks: Sequence[str], bitmap: str = "") -> list[DiskExport]:
        """Exports that can be read, with a bitmap."""
        return await self._export(disks, writable=False, bitmap=bitmap)

    async def end_exports(self) -> None:
        """Close every export."""
        self._must_live()
        await self._close_exports()

    async def start_tracking(self, disks: Sequence[str], bitmap: str, *, persistent: bool = False) -> None:
        """A bitmap a disk."""
        self._must_live()
        for disk in disks:
            self.disks[disk].track(bitmap, persistent=persistent)

    async def rotate_tracking(self, disks: Sequence[str], old: str, new: str) -> None:
        """No write falls between: nothing else runs meanwhile."""
        self._must_live()
        self._look()
        olds = [self.disks[disk].bitmap(old) for disk in disks]
        for disk, bitmap in zip(disks, olds, strict=True):
            self.disks[disk].track(new)
            bitmap.enabled = False

    async def fork_tracking(self, disks: Sequence[str], source: str, copy: str, new: str) -> None:
        """No write falls between: nothing else runs meanwhile."""
        self._must_live()
        sources = [self.disks[disk].bitmap(source) for disk in disks]
        for disk, bitmap in zip(disks, sources, strict=True):
            self.disks[disk].track(new)
            self.disks[disk].track(copy, enabled=False).marked.update(bitmap.marked)

    async def drop_tracking(self, disks: Sequence[str], bitmap: str) -> None:
        """Forget it."""
        self._must_live()
        for disk in disks:
            self.disks[disk].bitmaps.pop(bitmap, None)

    async def tracked(self, disks: Sequence[str], bitmap: str) -> bool:
        """Whether every disk has it."""
        self._must_live()
        return all(bitmap in self.disks[disk].bitmaps for disk in disks)

    async def marked_bytes(self, disks: Sequence[str], bitmap: str) -> int:
        """Whole blocks."""
        self._must_live()
        found = [self.disks[disk].bitmaps.get(bitmap) for disk in disks]
        return sum(len(one.marked) * BLOCK_BYTES for one in found if one is not None)

    async def bitmaps_like(self, prefix: str) -> list[str]:
        """Names that begin with ``prefix``."""
        self._must_live()
        return sorted({name for disk in self.disks.values() for name in disk.bitmaps if name.startswith(prefix)})

    async def grow_disk(self, disk: str, size_bytes: int) -> None:
        """More room at its end."""
        self._must_live()
        self.disks[disk].size_bytes = size_bytes

    async def _export(self, disks: Sequence[str], *, writable: bool, bitmap: str = "") -> list[DiskExport]:
        self._must_live()
        for disk in disks:
            self._exports[disk] = DiskView(self.disks[disk], writable=writable, bitmap=bitmap)
        socket = self.run_dir / "nbd"
        if self._export_server is None:
            self._export_server = await NbdServer(socket, self._exports).__aenter__()
        context = f"qemu:dirty-bitmap:{bitmap}" if bitmap else ""
        return [DiskExport(socket, disk, context) for disk in disks]

    async def _close_exports(self) -> None:
        self._exports.clear()
        if self._export_server is not None:
            await self._export_server.__aexit__()
            self._export_server = None

    async def _accept_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._receive(reader, writer))

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Load; an instance that cannot is of no use, and ends, as QEMU does."""
        try:
            state = msgspec.json.decode(await stream.load(reader, writer), type=GuestState)
            self._load(state)
            self._state = MachineState.PAUSED
            writer.write(stream.loaded())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, QmpError, msgspec.DecodeError):
            self._tasks.discard(asyncio.current_task())
            await self.kill()
        finally:
            writer.close()

    async def _accept_console(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._talk(reader, writer))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A status line now and then, and answers; a guest that stands still says nothing."""
        line = b"\n"
        try:
            while line:
                await self._runs.wait()
                self._look()
                writer.write(self._answer(line.decode(errors="replace").strip()))
                await writer.drain()
                line = await _line(reader)
        except ConnectionError:
            return  # whoever listened has gone
        finally:
            writer.close()

    def _answer(self, line: str) -> bytes:
        state = self._guest.state
        if line.startswith("check "):
            return msgspec.json.encode(self._guest.check(line.removeprefix("check "))) + b"\n"
        status = {"t": state.ticks, "pages_dirtied": state.ticks, "records": state.records, "kept": 0, "errors": 0}
        return msgspec.json.encode(status) + b"\n"

    def _keep(self, action: Any) -> None:
        task = asyncio.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """What was typed, or an empty line after a while; nothing at the end."""
    try:
        async with asyncio.timeout(STATUS_EVERY_S):
            return await reader.readline()
    except TimeoutError:
        return b"\n"
