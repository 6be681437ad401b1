"""Batches under test: their ends, and the history of their migrations."""

from collections import Counter

import msgspec
import pytest

from novacron.control.kinds import BATCHES, MIGRATIONS, VMS
from novacron.core.errors import NovaCronError
from novacron.database.resources import changes
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.resources import Migration

QUICK = MigrationPolicy(verify_window_ms=0)
URGENT = MigrationPolicy(verify_window_ms=0, priority=1)
SLOW = MigrationPolicy(bandwidth_bytes_s=20)  # the small guest takes about a minute


async def ended(site, batch_id: str):
    return await site.until(BATCHES, batch_id, lambda batch: batch.outcome, 20)


async def begun(site, vm: str, phase: str = "copy") -> Migration:
    """The migration of a VM, once it is that far."""
    found = await site.until(VMS, vm, lambda value: value.migration_id is not None, 20)
    return await site.until(MIGRATIONS, found.migration_id, lambda move: move.phase == phase, 20)


async def history(site) -> list[Migration]:
    """Every state of every migration, in order."""
    found = await site.database.read(lambda tx: changes(tx, 0, 100_000))
    return [msgspec.json.decode(change.body, type=Migration) for change in found if change.kind == "migration"]


def most_at_once(states: list[Migration]) -> tuple[int, int]:
    """How many migrations there were at one time, in all and to one node."""
    under_way: dict[str, Migration] = {}
    most = most_to_one = 0
    for state in states:
        under_way[state.id] = state
        if state.outcome:
            del under_way[state.id]
        targets = Counter(move.target_node for move in under_way.values() if move.target_node)
        most, most_to_one = max(most, len(under_way)), max(most_to_one, *targets.values(), 0)
    return most, most_to_one


async def outcomes(site, batch_id: str) -> dict[str, str]:
    batch = (await site.database.read(lambda tx: BATCHES.get(tx, batch_id))).value
    return {move.vm_name: move.outcome for move in batch.moves}


async def refusal(asked) -> NovaCronError:
    with pytest.raises(NovaCronError) as refused:
        await asked
    return refused.value
