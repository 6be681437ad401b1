"""What a process that was killed had begun here, and nobody knows of: found at the node's start, before it serves.

The journal says what is known. What may be the only copy of a VM is never removed: it is kept, and said to be there.
"""

from pathlib import Path
from typing import Final

import structlog

from novacron.agent.journal import Journal
from novacron.agent.ram_images import RamImages
from novacron.core.ids import VmId
from novacron.hypervisor.driver import Driver
from novacron.hypervisor.errors import VmUnknownError
from novacron.protocol.node import Orphan

log = structlog.get_logger()
HALF_MADE: Final = "a VM whose making was never finished"
UNKNOWN: Final = "a VM that the journal does not know: it may be the only copy"


class Orphans:
    """``found`` is what the last start came upon."""

    def __init__(self, driver: Driver, journal: Journal, ram_images: RamImages) -> None:
        self._driver = driver
        self._journal = journal
        self._ram_images = ram_images
        self.found: list[Orphan] = []

    async def clear(self) -> None:
        """Instances first: what they had open is nobody's then."""
        for vm_id in self._driver.vms():
            await self._end_instances(vm_id)
            if self._journal.find_claim(vm_id) is None:
                await self._judge(vm_id)
            else:
                self._remove(await self._driver.unused_disks(vm_id), "a disk that no VM uses")
        self._remove(self._driver.unused_ram(), "RAM of no VM")
        known = {self._journal.facts(vm_id).cache_image for vm_id in self._journal.vms()}
        self._remove(self._ram_images.besides(known), "an image of RAM that nothing leans on")

    async def _end_instances(self, vm_id: VmId) -> None:
        """Those that were begun by a process that died before the journal had them."""
        known = {attempt.instance for attempt in self._journal.attempts()} | {self._journal.facts(vm_id).instance}
        for instance in self._driver.instances(vm_id):
            if instance not in known:
                ram = await self._driver.end_incoming(vm_id, instance, keep_disks=False)
                if ram is not None:
                    ram.unlink(missing_ok=True)
                self._note(f"{vm_id}/{instance}", "an instance that the journal does not know", removed=True)

    async def _judge(self, vm_id: VmId) -> None:
        """A VM has its spec once it is whole."""
        try:
            self._driver.spec(vm_id)
        except VmUnknownError:
            await self._driver.delete(vm_id)
            self._note(vm_id, HALF_MADE, removed=True)
        else:
            self._note(vm_id, UNKNOWN, removed=False)

    def _remove(self, paths: list[Path], what: str) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
            self._note(str(path), what, removed=True)

    def _note(self, name: str, what: str, *, removed: bool) -> None:
        log.warning("orphan_removed" if removed else "orphan_kept", name=name, what=what)
        self.found.append(Orphan(name, what, removed))
