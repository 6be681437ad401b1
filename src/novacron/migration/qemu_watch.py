"""What a source's QEMU says of its migration, as it says it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from novacron.core.clock import Clock
from novacron.hypervisor.driver import Machine, MachineEvent
from novacron.hypervisor.errors import QemuDiedError
from novacron.migration.errors import QemuFailedError

FAILURES: Final = frozenset({"failed", "cancelled", "cancelling"})


class QemuWatch:
    """Follows one migration by QEMU's events; ``reach`` waits for a status."""

    def __init__(self, machine: Machine, clock: Clock) -> None:
        self._machine = machine
        self._clock = clock
        self._changed = asyncio.Condition()
        self._gone = False
        self.seen: list[str] = []  # every status, in order
        self.rounds = 0
        self.stopped_at: float | None = None  # when the guest stopped, on the monotonic clock

    async def run(self, events: AsyncIterator[MachineEvent]) -> None:
        """Take events until the machine is gone."""
        async for event in events:
            async with self._changed:
                match event.name:
                    case "MIGRATION":
                        self.seen.append(event.data["status"])
                    case "MIGRATION_PASS":
                        self.rounds = event.data["pass"]
                    case "STOP":
                        self.stopped_at = self._clock.monotonic()
                self._changed.notify_all()
        async with self._changed:
            self._gone = True
            self._changed.notify_all()

    async def reach(self, *statuses: str, within_s: float | None = None, round_after: int | None = None) -> bool:
        """Wait for one of ``statuses``; False when the time is over, or RAM has come to a round beyond ``round_after``.

        Raises QemuFailedError, QemuDiedError.
        """
        wanted = frozenset(statuses)

        def told() -> bool:
            another = round_after is not None and self.rounds > round_after
            return another or self._ended() or bool(wanted.intersection(self.seen))

        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(told)
        except TimeoutError:
            return False
        if wanted.intersection(self.seen):
            return True
        if not self._ended():
            return False
        if self._gone:
            raise QemuDiedError(f"the source's QEMU died: {await self._machine.last_words() or 'without a word'}")
        error = (await self._machine.migration_status()).error
        raise QemuFailedError(f"the source's QEMU gave the migration up: {error or self.seen[-1]}")

    def _ended(self) -> bool:
        return self._gone or bool(FAILURES.intersection(self.seen))
