"""What there would be to move of a VM, and what of one lies here: looked at, and nothing touched.

Memory is read in pieces three times. QEMU's own ``calc-dirty-rate`` would pass over memory of less than 128 MiB,
answers in whole MiB/s, and knows neither what a page costs that is sent again nor how many are dirtied ever again.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from novacron.agent import donors
from novacron.agent.journal import Journal
from novacron.agent.outgoing import known_state
from novacron.agent.vms import Vms
from novacron.core.clock import Clock
from novacron.core.units import KIB
from novacron.hypervisor.driver import LOW_RAM_BYTES, Driver, Machine, MachineState
from novacron.migration.disks import since
from novacron.migration.sample import Sample, judge
from novacron.protocol.plan import Holdings, HoldingsRequest, Survey, SurveyRequest
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId

PIECES: Final = 256
PIECE_BYTES: Final = 16 * KIB
SHORT_S: Final = 0.25  # from the first reading to the second
LONG_S: Final = 1.0  # from the first reading to the third


class Surveys:
    """What a controller may ask before a migration."""

    def __init__(self, driver: Driver, journal: Journal, vms: Vms, credentials: Credentials, clock: Clock) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._credentials = credentials
        self._clock = clock

    async def survey(self, _peer: SpiffeId, request: SurveyRequest) -> Survey:
        """Of a VM that runs or is paused here; raises VmStateError, VmNotHereError."""
        machine = await self._vms.running(request.vm_id)
        running = await machine.state() is MachineState.RUNNING
        offsets = _places(machine.spec.memory_bytes)
        sample = await self._sample(machine, offsets, running=running)
        arrived = await asyncio.to_thread(self._arrived, machine, offsets)
        seen = await asyncio.to_thread(judge, sample, arrived, request.compression_level)
        known = await known_state(machine, self._journal)
        names = [disk.id for disk in machine.spec.disks]
        memory, room = machine.spec.memory_bytes, sum(disk.size_bytes for disk in machine.spec.disks)
        return Survey(
            source_node=str(self._credentials.identity),
            running=running,
            memory_bytes=memory,
            zero_bytes=round(seen.zero_share * memory),
            ram_wire_bytes=round(seen.cost * memory),
            ram_return_bytes=round(seen.return_cost * memory),
            encode_bytes_s=seen.encode_bytes_s,
            dirty_bytes_s=seen.dirty_share_s * memory,
            working_set_bytes=round(seen.working_share * memory),
            dirty_cost=seen.again_cost,
            disk_bytes=min(self._driver.stored(machine.vm_id).bytes, room),
            disk_return_bytes=await machine.marked_bytes(names, since(known)) if known else 0,
            known_state=known,
            direct=(await self._driver.capabilities()).direct,
        )

    async def holdings(self, _peer: SpiffeId, request: HoldingsRequest) -> Holdings:
        """What lies here of a VM that may come."""
        facts = self._journal.facts(request.vm_id)
        if request.known_state and facts.cache_state == request.known_state and facts.cache_image:
            return Holdings("same")
        similar = (
            facts.cache_image
            or self._driver.has_disks(request.vm_id, request.spec)
            or donors.find_donor(self._driver, request.vm_id, request.spec)
        )
        return Holdings("similar" if similar else "nothing")

    async def _sample(self, machine: Machine, offsets: Sequence[int], *, running: bool) -> Sample:
        begun = self._clock.monotonic()
        first = second = third = b"".join(await machine.peek(offsets, PIECE_BYTES))
        short_s, long_s = SHORT_S, LONG_S
        if running:
            await self._clock.sleep(SHORT_S)
            short_s = self._clock.monotonic() - begun
            second = b"".join(await machine.peek(offsets, PIECE_BYTES))
            await self._clock.sleep(max(0.0, begun + LONG_S - self._clock.monotonic()))
            long_s = self._clock.monotonic() - begun
            third = b"".join(await machine.peek(offsets, PIECE_BYTES))
        return Sample(first, second, third, short_s, long_s)

    def _arrived(self, machine: Machine, offsets: Sequence[int]) -> bytes:
        """The same places of the memory as it came here; empty when it did not."""
        image = Path(self._journal.facts(machine.vm_id).arrival_image)
        if not image.is_file():
            return b""
        with image.open("rb") as file:
            return b"".join(os.pread(file.fileno(), PIECE_BYTES, offset) for offset in offsets)


def _places(memory_bytes: int) -> list[int]:
    """One place in each of equal parts of the memory, anywhere in it; the same for every guest of that size."""
    dice = random.Random(memory_bytes)  # noqa: S311 - nothing is to be kept secret
    pieces = min(memory_bytes, LOW_RAM_BYTES) // PIECE_BYTES
    parts = min(PIECES, pieces)
    return [dice.randrange(n * pieces // parts, (n + 1) * pieces // parts) * PIECE_BYTES for n in range(parts)]
