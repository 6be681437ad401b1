"""What moves are expected to cost, before they begin: by it a batch is ordered, and fitted into its time window."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from novacron.control import attempts
from novacron.control.kinds import VMS
from novacron.control.peers import Destination
from novacron.control.plans import Plans
from novacron.core.errors import NovaCronError
from novacron.core.ids import VmId
from novacron.database.database import Database
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.plan import LinkSample, Prediction
from novacron.protocol.resources import Plan
from novacron.protocol.vm import VmSpec

AT_ONCE: Final = 8  # VMs that are looked at; each takes a second, most of which it waits
log = structlog.get_logger()


def predict_bytes(spec: VmSpec) -> int:
    """Guest bytes: all its memory and all its disks, since how much of them is in use is not known here."""
    return spec.memory_bytes + sum(disk.size_bytes for disk in spec.disks)


class Costs:
    """Plans for a few VMs that go to one place; the link to it is probed once."""

    def __init__(self, database: Database, plans: Plans) -> None:
        self._database = database
        self._plans = plans

    async def predict(self, vms: Sequence[VmId], to: Destination, policy: MigrationPolicy) -> dict[VmId, Prediction]:
        """Of those of which something can be told; what is wrong with others shows when they are to move."""
        found: dict[VmId, Prediction] = {}

        async def look(vm_id: VmId, link: LinkSample | None) -> LinkSample | None:
            plan = await self._plan(vm_id, to, policy, link)
            if plan is not None and plan.predicted is not None:
                found[vm_id] = plan.predicted
            return plan.link if plan is not None else link

        link, left = None, list(vms)
        while left and link is None:
            link = await look(left.pop(0), None)
        async with asyncio.TaskGroup() as group:
            for vm_id in left:
                group.create_task(look(vm_id, link))
        return found

    async def _plan(
        self, vm_id: VmId, to: Destination, policy: MigrationPolicy, link: LinkSample | None
    ) -> Plan | None:
        try:
            vm = (await self._database.read(lambda tx: VMS.get(tx, vm_id))).value
            attempts.check_movable(vm)
            return await self._plans.plan(vm, to, policy, probed=link)
        except NovaCronError as error:
            log.info("cost_not_known", vm=vm_id, cause=error.cause)
            return None
