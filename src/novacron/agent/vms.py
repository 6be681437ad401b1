"""VMs of this node: their life from the first boot to their end."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from novacron.agent.errors import VmNotHereError
from novacron.agent.events import Events
from novacron.agent.journal import Facts, Journal
from novacron.core.ids import VmId
from novacron.hypervisor.driver import Driver, Machine, MachineState
from novacron.hypervisor.errors import VmStateError, VmUnknownError
from novacron.migration.handover import UNDER_WAY, Claim, Ownership, Role
from novacron.protocol.node import NodeEvent, Nothing, VmCreate, VmRef, VmReport, VmResize, VmStop
from novacron.wire.errors import ConnectionBrokenError
from novacron.wire.identity import SpiffeId
from novacron.wire.server import Duplex

CONSOLE_BYTES: Final = 4096
_PAUSED: Final = frozenset({MachineState.PAUSED, MachineState.PRELAUNCH, MachineState.SUSPENDED})
_MOVING: Final = frozenset({MachineState.FINISH_MIGRATE, MachineState.POSTMIGRATE, MachineState.INMIGRATE})


class Vms:
    """What a controller may ask of this node's VMs. Only the owner of a VM does anything with it."""

    def __init__(self, driver: Driver, journal: Journal, events: Events) -> None:
        self._driver = driver
        self._journal = journal
        self._events = events
        self._locks: dict[VmId, asyncio.Lock] = {}
        self._looks = itertools.count(1)
        self._held: dict[VmId, str] = {}

    def lock(self, vm_id: VmId) -> asyncio.Lock:
        """One change of a VM's power at a time."""
        return self._locks.setdefault(vm_id, asyncio.Lock())

    @asynccontextmanager
    async def held(self, vm_id: VmId, why: str) -> AsyncIterator[None]:
        """Nothing else changes this VM meanwhile; raises VmStateError when it is migrating, or held."""
        async with self.lock(vm_id):
            self._held[vm_id] = why
            try:
                await self._journal.settled()  # a migration that was let in before is known from here on
                self._not_moving(vm_id)
                yield
            finally:
                del self._held[vm_id]

    def check_free(self, vm_id: VmId) -> None:
        """Raises VmStateError while it is ``held``."""
        if why := self._held.get(vm_id):
            raise VmStateError(f"VM {vm_id} cannot move now: {why}", next_command="novacron job list")

    async def machine(self, vm_id: VmId) -> Machine | None:
        """The instance that is this VM, when it lives."""
        instance = self._journal.facts(vm_id).instance
        for machine in await self._driver.adopt(vm_id):
            if machine.instance == instance:
                return machine
        return None

    async def running(self, vm_id: VmId) -> Machine:
        """The living instance; raises VmStateError."""
        self._journal.owned(vm_id)
        machine = await self.machine(vm_id)
        if machine is None:
            name = self._driver.spec(vm_id).name
            raise VmStateError(f"VM {name} is stopped", next_command=f"novacron vm start {name}")
        return machine

    async def create(self, _peer: SpiffeId, request: VmCreate) -> VmReport:
        """Make its disks and own it."""
        async with self.lock(request.vm_id):
            claim = self._journal.find_claim(request.vm_id)
            if claim is not None and claim.ownership is not Ownership.OWNER:
                raise VmStateError(f"VM {request.vm_id} was here before, and was handed over")
            await self._driver.create(request.vm_id, request.spec)
            if claim is None:
                new = Claim(request.vm_id, Ownership.OWNER, request.epoch, request.epoch)
                await self._journal.change(lambda: (new, None, Facts()))
        return await self.publish(request.vm_id)

    async def start(self, _peer: SpiffeId, request: VmRef) -> VmReport:
        """A cold boot; harmless when it runs."""
        async with self.lock(request.vm_id):
            self._journal.owned(request.vm_id)
            if await self.machine(request.vm_id) is None:
                machine = await self._driver.start(request.vm_id)
                await self._journal.note(
                    request.vm_id, instance=machine.instance, power="running", arrival_state="", arrival_image=""
                )
        return await self.publish(request.vm_id)

    async def pause(self, _peer: SpiffeId, request: VmRef) -> VmReport:
        """Hold it."""
        self._not_moving(request.vm_id)
        async with self.lock(request.vm_id):
            await (await self.running(request.vm_id)).pause()
            await self._journal.note(request.vm_id, power="paused")
        return await self.publish(request.vm_id)

    async def resume(self, _peer: SpiffeId, request: VmRef) -> VmReport:
        """Let it go on."""
        self._not_moving(request.vm_id)
        async with self.lock(request.vm_id):
            machine = await self.running(request.vm_id)
            await self._journal.note(request.vm_id, power="running")
            await machine.resume()
        return await self.publish(request.vm_id)

    async def stop(self, _peer: SpiffeId, request: VmStop) -> VmReport:
        """Press the power button and wait; with ``force`` pull the plug. Harmless when it is stopped."""
        self._not_moving(request.vm_id)
        async with self.lock(request.vm_id):
            self._journal.owned(request.vm_id)
            machine = await self.machine(request.vm_id)
            if machine is not None:
                await self._end(machine, request)
            await self._journal.note(request.vm_id, power="stopped", instance="", arrival_image="")
        return await self.publish(request.vm_id)

    async def _end(self, machine: Machine, request: VmStop) -> None:
        if request.force:
            await machine.quit()
            return
        await machine.powerdown()
        try:
            async with asyncio.timeout(request.timeout_ms / 1000):
                await machine.wait_gone()
        except TimeoutError:
            name = machine.spec.name
            raise VmStateError(
                f"VM {name} did not shut down within {request.timeout_ms // 1000} s",
                next_command=f"novacron vm stop {name} --force",
            ) from None

    async def resize(self, _peer: SpiffeId, request: VmResize) -> VmReport:
        """Another size."""
        self._not_moving(request.vm_id)
        async with self.lock(request.vm_id):
            self._journal.owned(request.vm_id)
            await self._driver.resize(request.vm_id, request.spec)
        return await self.publish(request.vm_id)

    async def delete(self, _peer: SpiffeId, request: VmRef) -> Nothing:
        """Remove it, also what was made of it and never noted; harmless when it is not here."""
        self._not_moving(request.vm_id)
        async with self.lock(request.vm_id):
            if await self.machine(request.vm_id) is not None:
                name = self._driver.spec(request.vm_id).name
                raise VmStateError(f"VM {name} runs", next_command=f"novacron vm stop {name}")
            await self._driver.delete(request.vm_id)
            if image := self._journal.facts(request.vm_id).cache_image:
                Path(image).unlink(missing_ok=True)
            await self._journal.forget(request.vm_id)
        return Nothing()

    async def console(self, _peer: SpiffeId, request: VmRef, both: Duplex) -> None:
        """Bytes between the caller and the serial console, until one of them ends."""
        machine = await self.running(request.vm_id)
        reader, writer = await asyncio.open_unix_connection(await machine.console())

        async def out() -> None:
            while data := await reader.read(CONSOLE_BYTES):
                await both.send(data)

        async def into() -> None:
            while data := await both.receive():
                writer.write(data)
                await writer.drain()

        tasks = {asyncio.create_task(out()), asyncio.create_task(into())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, (ConnectionError, ConnectionBrokenError)):
                raise result

    async def end_all(self, vm_id: VmId) -> None:
        """End every instance of a VM that this node may not run."""
        async with self.lock(vm_id):
            for machine in await self._driver.adopt(vm_id):
                await machine.kill()

    async def report(self, _peer: SpiffeId, request: VmRef) -> VmReport:
        """This node's word on it."""
        return await self.look(request.vm_id)

    async def look(self, vm_id: VmId) -> VmReport:
        """This node's word on it; raises VmNotHereError."""
        claim = self._journal.claim(vm_id)
        machine = await self.machine(vm_id)
        state = await machine.state() if machine is not None else MachineState.GONE
        return VmReport(
            vm_id,
            claim.epoch,
            str(claim.ownership),
            self._word(vm_id, state),
            self._driver.spec(vm_id),
            sequence=next(self._looks),
        )

    async def looks(self) -> list[VmReport]:
        """All of them."""
        found = []
        for vm_id in self._journal.vms():
            try:
                if self._journal.claim(vm_id).ownership is not Ownership.NONE:
                    found.append(await self.look(vm_id))
            except (VmNotHereError, VmUnknownError):
                continue  # deleted meanwhile
        return found

    async def publish(self, vm_id: VmId) -> VmReport:
        """Tell the watchers how it stands now."""
        report = await self.look(vm_id)
        self._events.publish(NodeEvent(vm=report))
        return report

    def _word(self, vm_id: VmId, state: MachineState) -> str:
        if self._moving(vm_id):
            return "migrating"
        if state is MachineState.RUNNING:
            return "running"
        if state is MachineState.GONE:
            return "stopped"
        return "paused" if state in _PAUSED | _MOVING else "failed"

    def _moving(self, vm_id: VmId) -> bool:
        return any(
            a.vm_id == vm_id and a.state in UNDER_WAY and a.role is Role.SOURCE for a in self._journal.attempts()
        )

    def _not_moving(self, vm_id: VmId) -> None:
        if self._moving(vm_id):
            raise VmStateError(f"VM {vm_id} is migrating", next_command="novacron migration list")
