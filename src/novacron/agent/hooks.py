"""Programs that a node's operator has run at moments of a migration: for addresses, routes, whatever the network needs.

``arriving`` must succeed, or the VM does not come. Of the others a failure is noted in the migration's record: by then
the VM is where it is. Each may be run again after a restart of the node, and must bear it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from novacron.agent import programs
from novacron.agent.errors import HookFailedError
from novacron.agent.operator import Operator
from novacron.core.clock import Clock
from novacron.core.ids import MigrationId, VmId
from novacron.hypervisor.driver import Driver
from novacron.hypervisor.errors import VmUnknownError
from novacron.migration.handover import Attempt
from novacron.protocol.vm import VmSpec

Moment = Literal["arriving", "arrived", "left", "released", "returned"]
SEPARATORS: Final = ("-", ".")


class Hooks:
    """Runs those of this node, by the names of their moments."""

    def __init__(self, driver: Driver, operator: Operator, clock: Clock) -> None:
        self._driver = driver
        self._clock = clock
        self._operator = operator
        self._notes: dict[MigrationId, list[str]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._specs: dict[MigrationId, VmSpec] = {}  # of VMs that came
        self._turns: dict[VmId, asyncio.Lock] = {}

    async def close(self) -> None:
        """End what runs."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def notes(self, migration_id: MigrationId) -> tuple[str, ...]:
        """What failed of a migration, since this process has started."""
        return tuple(self._notes.get(migration_id, ()))

    async def arriving(self, attempt: Attempt, spec: VmSpec) -> None:
        """Before anything is made ready for a VM; raises HookFailedError."""
        self._specs[attempt.migration_id] = spec
        if failed := await self._run_all("arriving", attempt):
            raise HookFailedError(failed[0], next_command=f"look at that program at {self._operator.place}")

    async def run(self, moment: Moment, attempt: Attempt) -> tuple[str, ...]:
        """One program after the other, in the order of their names; what failed."""
        failed = await self._run_all(moment, attempt)
        if failed:
            notes = self._notes.setdefault(attempt.migration_id, [])
            notes += [note for note in failed if note not in notes]
        return tuple(failed)

    def begin(self, moment: Moment, attempt: Attempt, tell: Callable[[], object] | None = None) -> None:
        """Run them beside everything else; ``tell`` is called when there is something to note."""

        async def run() -> None:
            if await self.run(moment, attempt) and tell is not None:
                tell()

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_all(self, moment: Moment, attempt: Attempt) -> list[str]:
        """One moment of a VM after the other. What a moment's time does not suffice for has failed."""
        told = {**self._operator.facts, **vm_facts(attempt.vm_id, self._spec(attempt)), "MOMENT": moment}
        told["MIGRATION_ID"] = attempt.migration_id
        failed = []
        async with self._turns.setdefault(attempt.vm_id, asyncio.Lock()):
            until = self._clock.monotonic() + self._operator.hook_timeout_s
            for program in self._of(moment):
                ended = await programs.run(program, told, max(0.0, until - self._clock.monotonic()))
                if not ended.succeeded:
                    failed.append(f"the hook {program.name} of {self._operator.place} failed: {ended.line}")
        return failed

    def _spec(self, attempt: Attempt) -> VmSpec | None:
        """As it came, or is here; None when nothing of it has stayed."""
        try:
            return self._specs.get(attempt.migration_id) or self._driver.spec(attempt.vm_id)
        except VmUnknownError:
            return None

    def _of(self, moment: Moment) -> list[Path]:
        folder, begins = self._operator.hooks_dir, tuple(moment + separator for separator in SEPARATORS)
        if folder is None:
            return []
        return [folder / name for name in programs.names(folder) if name == moment or name.startswith(begins)]


def vm_facts(vm_id: VmId, spec: VmSpec | None) -> dict[str, str]:
    """What programs of the operator are told of a VM; a network card is one word of each list."""
    if spec is None:
        return {"VM_ID": vm_id}
    return {
        "VM_ID": vm_id,
        "VM_NAME": spec.name,
        "VM_MACS": " ".join(nic.mac for nic in spec.nics),
        "VM_BRIDGES": " ".join(nic.bridge or "-" for nic in spec.nics),
    }
