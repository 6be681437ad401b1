"""How an instance in memory leaves: its stream is in the form of QEMU's, and so are the states that it goes through."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.driver import DirectLink, MachineState, MigrationStatus
from novacron.hypervisor.errors import QmpError, UnsupportedError
from novacron.hypervisor.memory import stream
from novacron.hypervisor.memory.life import Life

PAGES_A_SECTION: Final = 256
FEW_PAGES: Final = 8  # so many may be left when the guest is stopped
TICKS_A_ROUND: Final = 6


@dataclass(slots=True)
class _Outgoing:
    """A migration that leaves."""

    status: str = "none"
    error: str = ""
    rounds: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Leaving(Life):
    """An instance that can move out."""

    def __init__(self, *place: Any, **made_of: Any) -> None:
        super().__init__(*place, **made_of)
        self._out = _Outgoing()
        self._answered = True  # what leaves is told by its destination that it has come

    async def prepare_outgoing(self, *, throttle: bool = False, post_copy: bool = False) -> None:
        """It is always ready to leave."""
        del throttle  # these guests outrun nothing
        self._must_live()
        if post_copy:
            raise UnsupportedError("no memory follows a VM in memory: only --strategy stream and cold move it")
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

    async def migrate_direct(
        self, link: DirectLink, address: str, *, downtime_ms: int, bandwidth_bytes_s: int | None
    ) -> None:
        """There is no other process that it could speak with."""
        del link, address, downtime_ms, bandwidth_bytes_s
        raise UnsupportedError("VMs in memory do not move by themselves: only --strategy stream and cold move them")

    async def end_direct(self) -> None:
        """There never is a link."""

    async def start_post_copy(self) -> None:
        """It is never prepared for that."""
        raise UnsupportedError("no memory follows a VM in memory")

    async def resume_migration(self, socket: Path) -> None:
        """Nothing of it follows."""
        del socket
        raise UnsupportedError("no memory follows a VM in memory")

    async def cut_migration(self) -> bool:
        """Its connection hangs in nothing."""
        self._must_live()
        return False

    async def cancel_migration(self) -> None:
        """Give it up."""
        self._must_live()
        task = self._out.task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _tell(self, status: str) -> None:
        """Where its migration is now."""
        self._out.status = status
        self._say("MIGRATION", status=status)

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
