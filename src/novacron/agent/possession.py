"""A VM that has come is this node's: recorded first, then its disks are the VM's, and it runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from novacron.agent.arrivals import Arrivals
from novacron.agent.journal import Facts, Journal
from novacron.agent.vms import Vms
from novacron.core.ids import VmId
from novacron.hypervisor.driver import Driver, Machine
from novacron.hypervisor.errors import HypervisorError
from novacron.migration.destination import take_possession
from novacron.migration.handover import Attempt, Claim, Ownership

Transition = Callable[[Claim, Attempt], tuple[Claim, Attempt]]
log = structlog.get_logger()


class Possession:
    """Each step may be repeated: a restart may come between the record and the deeds."""

    def __init__(self, *, driver: Driver, journal: Journal, vms: Vms, arrivals: Arrivals) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._arrivals = arrivals

    async def machine(self, attempt: Attempt) -> Machine | None:
        """What was made ready for it; None when that has gone."""
        for machine in await self._driver.adopt(attempt.vm_id):
            if machine.instance == attempt.instance:
                return machine
        return None

    async def take(self, attempt: Attempt, transition: Transition, attestation: str = "") -> bool:
        """Own it and let it run; False when it has gone."""
        machine = await self.machine(attempt)
        if machine is None:
            return False
        running = attempt.power == "running"
        await take_possession(
            machine, running=running, record=lambda: self.record(attempt, machine, transition, attestation)
        )
        await self.drop_image(attempt.vm_id)
        await self._vms.publish(attempt.vm_id)
        return True

    async def record(self, attempt: Attempt, machine: Machine, transition: Transition, attestation: str = "") -> None:
        """The journal says that it is this node's."""

        def decide() -> tuple[Claim, Attempt, Facts]:
            claim, now = self._journal.claim(attempt.vm_id), self._journal.attempt(attempt.migration_id)
            facts = msgspec.structs.replace(
                self._journal.facts(attempt.vm_id),
                instance=attempt.instance,
                power=attempt.power,
                arrival_state=attempt.migration_id,
                arrival_image="" if attempt.direct else str(machine.ram_path),
                attestation=attestation,
            )
            return *transition(claim, now), facts

        await self._journal.change(decide)
        self._arrivals.attend(attempt, machine)
        await self._take_its_place(machine)

    async def let_run(self, attempt: Attempt) -> None:
        """It was recorded that it runs. One that has gone on since, or is about to, is not woken by that."""
        if self._journal.claim(attempt.vm_id).ownership is not Ownership.OWNER:
            return
        machine = await self._vms.machine(attempt.vm_id)
        if machine is None or machine.instance != attempt.instance:
            return
        self._arrivals.attend(attempt, machine)
        await self._take_its_place(machine)
        if self._journal.newest(attempt) and self._journal.facts(attempt.vm_id).power == "running":
            await take_possession(machine, running=True, record=_nothing)

    async def let_follow(self, attempt: Attempt) -> None:
        """The same of one that lacks memory: it may answer only once a channel has brought it a page."""
        try:
            await self.let_run(attempt)
        except HypervisorError as error:
            log.info("guest_waits_for_memory", vm=attempt.vm_id, migration=attempt.migration_id, cause=error.cause)

    async def drop_image(self, vm_id: VmId) -> None:
        """Once the VM is here, what was kept for its coming takes room for nothing: its RAM file is newer."""
        if image := self._journal.facts(vm_id).cache_image:
            await self._journal.note(vm_id, cache_image="")
            await asyncio.to_thread(Path(image).unlink, missing_ok=True)

    async def _take_its_place(self, machine: Machine) -> None:
        """Its disks are the VM's, whatever was here of it before ends."""
        await self._driver.settle_incoming(machine)
        for other in await self._driver.adopt(machine.vm_id):
            if other.instance != machine.instance:
                await other.kill()


async def _nothing() -> None:
    """The record was made before."""
