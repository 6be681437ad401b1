"""The life of one instance in memory: its guest works while it runs, and it says what happens to it."""

import asyncio
import mmap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from novacron.core.ids import VmId
from novacron.hypervisor.driver import MachineEvent, MachineState
from novacron.hypervisor.errors import QemuDiedError, VmStateError
from novacron.hypervisor.memory.disk import MemoryDisk
from novacron.hypervisor.memory.guest import GuestState, MemoryGuest
from novacron.protocol.vm import VmSpec


class Life:
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
        self.settled = not incoming  # it is the VM, not what waits to become it
        self._state = MachineState.INMIGRATE if incoming else MachineState.RUNNING
        self._runs = asyncio.Event()  # set while the guest runs
        self._ended = asyncio.Event()
        self._watchers: set[asyncio.Queue[MachineEvent | None]] = set()
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

    async def freeze(self) -> bool:
        """Nobody would do it."""
        return False

    async def thaw(self) -> None:
        """Nothing is held."""

    async def peek(self, offsets: Sequence[int], length: int) -> list[bytes]:
        """As it is now."""
        self._must_live()
        self._look()
        return [self._ram[offset : offset + length] for offset in offsets]

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

    def _load(self, state: GuestState) -> None:
        """The RAM file as it is now, mapped privately: the guest's writes never reach it."""
        with self.ram_path.open("rb") as file:
            self._ram = mmap.mmap(file.fileno(), self.spec.memory_bytes, access=mmap.ACCESS_COPY)
        first = self.disks.get(self.spec.disks[0].id) if self.spec.disks else None
        self._guest = MemoryGuest(self._ram, first, state)


async def _drain(queue: asyncio.Queue[MachineEvent | None]) -> AsyncIterator[MachineEvent]:
    while (event := await queue.get()) is not None:
        yield event
