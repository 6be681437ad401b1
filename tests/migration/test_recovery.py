"""A source that takes its VM back asks QEMU only for what QEMU can do at that moment."""

from dataclasses import dataclass, field

import pytest

from novacron.core.clock import SystemClock
from novacron.hypervisor.driver import MachineState, MigrationStatus
from novacron.migration.recovery import take_back


@dataclass
class Said:
    """What a QEMU says of its migration, one word a look, and what it was told between them."""

    words: list[str]
    vm_id: str = "vm-1"
    told: list[str] = field(default_factory=list)

    async def migration_status(self) -> MigrationStatus:
        word = self.words.pop(0)
        self.told.append(word)
        return MigrationStatus(word, 0, 0, 0, 0, 0, "", 0, 0, 0)

    async def cut_migration(self) -> bool:
        self.told.append("cut")
        return False

    async def cancel_migration(self) -> None:
        self.told.append("cancel")

    async def state(self) -> MachineState:
        return MachineState.RUNNING


@pytest.mark.parametrize("broken", ["postcopy-paused", "postcopy-recover"])
async def test_a_post_copy_that_was_cut_is_cancelled_once_it_stands_still(broken):
    """QEMU 7.2 that is told to cancel while it notices the end of its connection says «cancelling» for ever."""
    machine = Said(["postcopy-active", "postcopy-active", broken, "cancelled"])
    await take_back(machine, SystemClock(), running=False)
    assert machine.told == ["cut", "postcopy-active", "postcopy-active", broken, "cancel", "cancelled", "cut"]
