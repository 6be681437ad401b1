"""What VMs left at this node when they went: kept for their next visit, until somebody else needs the room.

Evictable is what belongs to a VM that this node does not own, that no attempt is about, and of which nothing lives
here. What a fenced VM left is its operator's to remove.
"""

from pathlib import Path
from typing import Final

import structlog

from novacron.agent.journal import Journal
from novacron.agent.vms import Vms
from novacron.core.ids import VmId
from novacron.hypervisor.driver import Driver
from novacron.migration.handover import UNDER_WAY, Ownership, State

_OPEN: Final = UNDER_WAY | {State.SETTLED, State.TAKEN_OVER}  # what lies here may still be needed
log = structlog.get_logger()


class ContentCache:
    """Counts and evicts; the VM that left longest ago goes first."""

    def __init__(self, driver: Driver, journal: Journal, vms: Vms) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms

    async def evictable_bytes(self) -> int:
        """Room on disk that it would give up."""
        return sum([self._bytes(vm_id) for vm_id in await self._evictable()])

    async def make_room(self, needed_bytes: int, *, keep: VmId) -> None:
        """Evict until so much is free, or nothing is left to evict; never what ``keep`` left."""
        for vm_id in await self._evictable():
            if (await self._driver.capabilities()).disk_free_bytes >= needed_bytes:
                return
            if vm_id != keep:
                await self._evict(vm_id)

    async def _evictable(self) -> list[VmId]:
        """The oldest first."""
        found = [vm_id for vm_id in self._driver.vms() if await self._has_left(vm_id)]
        return sorted(found, key=lambda vm_id: self._driver.stored(vm_id).changed_at)

    async def _has_left(self, vm_id: VmId) -> bool:
        claim = self._journal.find_claim(vm_id)
        left = claim is not None and claim.ownership in {Ownership.HANDED_OVER, Ownership.NONE}
        moving = any(attempt.vm_id == vm_id and attempt.state in _OPEN for attempt in self._journal.attempts())
        return left and not moving and not await self._driver.adopt(vm_id)

    async def _evict(self, vm_id: VmId) -> None:
        """The journal forgets first: nobody leans on what is about to go."""
        async with self._vms.lock(vm_id):
            if not await self._has_left(vm_id):
                return  # it has come back meanwhile
            image, freed = self._journal.facts(vm_id).cache_image, self._bytes(vm_id)
            await self._journal.note(vm_id, cache_state="", cache_image="")
            await self._driver.delete(vm_id)
            if image:
                Path(image).unlink(missing_ok=True)
        log.info("content_evicted", vm=vm_id, freed_bytes=freed)

    def _bytes(self, vm_id: VmId) -> int:
        image = self._journal.facts(vm_id).cache_image
        ram = Path(image).stat().st_blocks * 512 if image and Path(image).exists() else 0
        return self._driver.stored(vm_id).bytes + ram
