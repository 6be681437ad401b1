"""One instance of a VM in memory; see ``driver.Machine``. It goes through the states that QEMU goes through."""

import asyncio
import mmap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from novacron.core.ids import VmId
from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.driver import DiskExport, MachineEvent, MachineState, MigrationStatus
from novacron.hypervisor.errors import QemuDiedError, QmpError, VmStateError
from novacron.hypervisor.memory import stream
from novacron.hypervisor.memory.disk import BLOCK_BYTES, DiskView, MemoryDisk
from novacron.hypervisor.memory.guest import GuestState, MemoryGuest
from novacron.hypervisor.nbd.server import NbdServer
from novacron.protocol.vm import VmSpec

PAGES_A_SECTION: Final = 256
FEW_PAGES: Final = 8  # so many may be left when the guest is stopped
TICKS_A_ROUND: Final = 6
STATUS_EVERY_S: Final = 1.0  # the demo guest's pace


@dataclass(slots=True)
class _Outgoing:
    """A migration that leaves."""

    status: str = "none"
    error: str = ""
    rounds: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class MemoryMachine:
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
        self.vm_id = vm_id
        self.instance = instance
        self.spec = spec
        self.ram_path = ram_path
        self.run_dir = run_dir
        self.disks = disks
        self.announced = 0  # times
        self.settled = not incoming  # it is the VM, not what waits to become it
        self._state = MachineState.INMIGRATE if incoming else MachineState.RUNNING
        self._runs = asyncio.Event()  # set while the guest runs
        self._ended = asyncio.Event()
        self._watchers: set[asyncio.Queue[MachineEvent | None]] = set()
        self._out = _Outgoing()
        self._answered = True  # what leaves is told by its destination that it has come
        self._exports: dict[str, DiskView] = {}
        self._export_server: NbdServer | None = None
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._console: Path | None = None
        self._ram: mmap.mmap
        self._guest: MemoryGuest
        if not incoming:
            self._load(GuestState(seed=len(vm_id) + spec.vcpus))
            self._guest.boot()
            self._runs.set()

    @property
    def living(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    async def state(self) -> MachineState:
        """What it does now."""
        return self._state if self.living else MachineState.GONE

    async def resume(self) -> None:
        """Let the guest run."""
        self._must_live()
        if self._state in {MachineState.INMIGRATE, MachineState.FINISH_MIGRATE}:
            raise VmStateError(f"VM {self.vm_id} is {self._state}: it cannot run before its state is here")
        self._go()

    async def pause(self) -> None:
        """Hold the guest."""
        self._must_live()
        self._hold(MachineState.PAUSED)

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

    async def wait_gone(self) -> None:
        """Return when it has ended."""
        await self._ended.wait()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[MachineEvent]]:
        """Subscribe."""
        queue: asyncio.Queue[MachineEvent | None] = asyncio.Queue()
        if not self.living:
            queue.put_nowait(None)
        self._watchers.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._watchers.discard(queue)

    async def last_words(self) -> str:
        """It says nothing."""
        return ""

    async def vital_signs(self) -> tuple[float, int]:
        """Its ticks as seconds of CPU, and its records."""
        self._must_live()
        self._look()
        return float(self._guest.state.ticks), self._guest.state.records

    async def guest_ping(self) -> bool:
        """There is no agent in it."""
        return False

    async def peek(self, offsets: Sequence[int], length: int) -> list[bytes]:
        """As it is now."""
        self._must_live()
        self._look()
        return [self._ram[offset : offset + length] for offset in offsets]

    async def console(self) -> Path:
        """A socket at which the guest speaks as the demo guest does."""
        self._must_live()
        if self._console is None:
            self._console = self.run_dir / "console"
            self._servers.append(await asyncio.start_unix_server(self._accept_console, self._console))
        return self._console

    async def prepare_outgoing(self, *, throttle: bool = False) -> None:  # noqa: ARG002 - these guests outrun nothing
        """It is always ready to leave."""
        self._must_live()
        self._answered = True

    async def prepare_capture(self) -> None:
        """Without a return path."""
        self._must_live()
        self._answered = False

    async def migrate(self, socket: Path, *, downtime_ms: int) -> None:
        """Start to send."""
        del downtime_ms  # a few pages always fit
        self._must_live()
        if self._out.task is not None and not self._out.task.done():
            raise QmpError("migrate", "GenericError", "There's a migration process in progress")
        self._out = _Outgoing()
        self._tell("setup")
        self._out.task = asyncio.create_task(self._send(socket, runs=self._runs.is_set()))

    async def set_downtime(self, downtime_ms: int) -> None:
        """It makes no difference here."""
        del downtime_ms
        self._must_live()

    async def migration_status(self) -> MigrationStatus:
        """How it stands."""
        self._must_live()
        self._look()
        left = len(self._guest.dirty) * PAGE_BYTES if self._out.status == "active" else 0
        return MigrationStatus(self._out.status, left, 0, self._out.rounds, error=self._out.error)

    async def continue_migration(self) -> None:
        """Go on from ``pre-switchover``."""
        self._must_live()
        if self._out.status != "pre-switchover":
            raise QmpError("migrate-continue", "GenericError", f"Migration not in expected state: {self._out.status}")
        self._out.go_on.set()

    async def cancel_migration(self) -> None:
        """Give it up."""
        self._must_live()
        task = self._out.task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def listen_incoming(self, socket: Path) -> None:
        """Wait for the stream."""
        self._must_live()
        self._servers.append(await asyncio.start_unix_server(self._accept_stream, socket))

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

    def _must_live(self) -> None:
        if not self.living:
            raise QemuDiedError(f"the instance {self.instance} of {self.vm_id} has ended")

    def _look(self) -> None:
        if self._runs.is_set():
            self._guest.work()

    def _go(self) -> None:
        if not self._runs.is_set():
            self._state = MachineState.RUNNING
            self._runs.set()
            self._say("RESUME")

    def _hold(self, state: MachineState) -> None:
        self._state = state
        if self._runs.is_set():
            self._runs.clear()
            self._say("STOP")

    def _say(self, name: str, **data: Any) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(MachineEvent(name, data))

    def _tell(self, status: str) -> None:
        """Where its migration is now."""
        self._out.status = status
        self._say("MIGRATION", status=status)

    def _load(self, state: GuestState) -> None:
        """The RAM file as it is now, mapped privately: the guest's writes never reach it."""
        with self.ram_path.open("rb") as file:
            self._ram = mmap.mmap(file.fileno(), self.spec.memory_bytes, access=mmap.ACCESS_COPY)
        first = self.disks.get(self.spec.disks[0].id) if self.spec.disks else None
        self._guest = MemoryGuest(self._ram, first, state)

    async def _send(self, socket: Path, *, runs: bool) -> None:
        """From the first page to the destination's last word; whatever breaks it lets the guest go on."""
        try:
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                await self._send_rounds(writer)
                self._tell("pre-switchover")
                await self._out.go_on.wait()
                self._tell("device")
                await self._send_pages(writer, self._take_dirty(), stream.END)
                writer.write(stream.device(msgspec.json.encode(self._guest.state)))
                await writer.drain()
                if self._answered:
                    await stream.until_loaded(reader)
            finally:
                writer.close()
        except asyncio.CancelledError:
            self._gave_up("cancelled", "", runs=runs)
            raise
        except (OSError, asyncio.IncompleteReadError, QmpError) as error:
            self._gave_up("failed", str(error), runs=runs)
        else:
            self._state = MachineState.POSTMIGRATE
            self._tell("completed")

    def _gave_up(self, status: str, error: str, *, runs: bool) -> None:
        self._out.error = error
        self._tell(status)
        self._state = MachineState.PAUSED
        if runs and self.living:
            self._go()

    async def _send_rounds(self, writer: asyncio.StreamWriter) -> None:
        """All pages, then those that changed, until few are left; the guest stands still then."""
        writer.write(stream.begin(self.spec.memory_bytes, answered=self._answered))
        self._tell("active")
        self._guest.dirty.clear()
        left: Sequence[int] = range(self.spec.memory_bytes // PAGE_BYTES)
        while True:
            self._out.rounds += 1
            self._say("MIGRATION_PASS", **{"pass": self._out.rounds})
            await self._send_pages(writer, left, stream.PART)
            if self._runs.is_set():
                self._guest.work(TICKS_A_ROUND)
            if len(self._guest.dirty) <= FEW_PAGES:
                break
            left = self._take_dirty()
        self._hold(MachineState.FINISH_MIGRATE)

    async def _send_pages(self, writer: asyncio.StreamWriter, numbers: Sequence[int], kind: int) -> None:
        for at in range(0, max(len(numbers), 1), PAGES_A_SECTION):
            chosen = numbers[at : at + PAGES_A_SECTION]
            content = ((n, self._ram[n * PAGE_BYTES : (n + 1) * PAGE_BYTES]) for n in chosen)
            writer.write(stream.pages(kind, content))
            await writer.drain()

    def _take_dirty(self) -> list[int]:
        taken = sorted(self._guest.dirty)
        self._guest.dirty.clear()
        return taken

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


async def _drain(queue: asyncio.Queue[MachineEvent | None]) -> AsyncIterator[MachineEvent]:
    while (event := await queue.get()) is not None:
        yield event
