"""Attempts at a migration: the first one, and the next one when an attempt broke for a reason that passes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from novacron.control import hours, recovery
from novacron.control.errors import MigrationRefusedError
from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.control.mirror import OUTGOING
from novacron.control.recovery import Failure
from novacron.core.ids import ClusterId, MigrationId, NodeId, VmId, new_id
from novacron.database.database import Transaction
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.resources import Migration, Plan, Vm
from novacron.workflow import journal

MOVABLE: Final = frozenset({"running", "paused"})


class Wanted(Struct, frozen=True):
    """Input of the job that runs one attempt."""

    migration_id: MigrationId
    vm_id: VmId
    node_id: NodeId
    target: ClusterId
    wanted_node: str
    policy: MigrationPolicy
    attempt: int = 1
    give_up_at: float = 0.0  # no attempt begins later; 0: it is the first, and not said yet
    rolls_back: MigrationId | None = None
    asked: MigrationPolicy | None = None  # where ``policy`` is another than was asked for
    failures: tuple[str, ...] = ()  # of the attempts before
    refused: tuple[MigrationId, ...] = ()  # those of them whose node could not take it

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """As the job keeps it."""
        return msgspec.convert(given, cls)


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for: a VM, and where it shall go."""

    migration_id: MigrationId
    vm: str  # name or id
    source_cluster: str
    target: ClusterId
    target_cluster: str
    wanted_node: str
    policy: MigrationPolicy
    plan: Plan | None = None  # that it follows
    rolls_back: MigrationId | None = None  # the migration that it is the way back of


def begin(tx: Transaction, order: Order, now: float) -> Migration:
    """Put down the first attempt and its job; raises InvalidInputError, MigrationRefusedError, ResourceUnknownError."""
    hours.check(order.policy.window)
    vm = VMS.get(tx, order.vm).value
    check_movable(vm)
    source = NODES.get(tx, vm.node_id or "").value
    wait = hours.wait_for(order.policy.window, now)
    migration = Migration(
        id=order.migration_id,
        vm_id=vm.id,
        vm_name=vm.name,
        source_cluster=order.source_cluster,
        target_cluster=order.target_cluster,
        direction=OUTGOING,
        phase="waiting" if wait else "prepare",
        begins_at=wait.begins_at if wait else now,
        waits_for=wait.why if wait else "",
        source_node=source.name,
        started_at=now,
        priority=order.policy.priority,
        plan_id=order.plan.id if order.plan else None,
        predicted=order.plan.predicted if order.plan else None,
        rolls_back=order.rolls_back,
    )
    wanted = Wanted(
        migration_id=order.migration_id,
        vm_id=vm.id,
        node_id=source.id,
        target=order.target,
        wanted_node=order.wanted_node,
        policy=order.policy,
        rolls_back=order.rolls_back,
    )
    return _put(tx, vm, migration, wanted)


def follow_up(tx: Transaction, broken: Migration, wanted: Wanted, now: float) -> Migration | None:
    """Put down the attempt after one that broke; None when it is not worth one, or its time is over."""
    failures, asked = (*wanted.failures, broken.failure), wanted.asked or wanted.policy
    way = recovery.next_way([Failure(failure) for failure in failures], asked)
    vm = VMS.find(tx, wanted.vm_id)
    if way is None or vm is None or vm.value.migration_id is not None:
        return None
    wait = hours.wait_for(asked.window, now + way.wait_s)
    begins_at = wait.begins_at if wait else now + way.wait_s
    give_up_at = wanted.give_up_at or broken.begins_at + asked.retry_for_ms / 1000
    if begins_at > give_up_at:
        return None
    again = msgspec.structs.replace(
        wanted,
        migration_id=MigrationId(new_id("migration")),
        attempt=wanted.attempt + 1,
        give_up_at=give_up_at,
        policy=way.policy,
        asked=asked,
        failures=failures,
        refused=(*wanted.refused, broken.id) if broken.failure == Failure.NODE else wanted.refused,
    )
    waiting = Migration(
        id=again.migration_id,
        vm_id=broken.vm_id,
        vm_name=broken.vm_name,
        source_cluster=broken.source_cluster,
        target_cluster=broken.target_cluster,
        direction=OUTGOING,
        phase="waiting",
        attempt=again.attempt,
        retry_of=broken.id,
        begins_at=begins_at,
        waits_for=wait.why if wait else "",
        differs=way.differs,
        source_node=broken.source_node,
        started_at=now,
        rolls_back=broken.rolls_back,
        priority=broken.priority,
    )
    return _put(tx, vm.value, waiting, again)


def wanted(tx: Transaction, migration_id: MigrationId) -> Wanted:
    """What an attempt was told to do; raises JobUnknownError."""
    return Wanted.of(journal.get(tx, job_of(migration_id)).body.input)


def job_of(migration_id: MigrationId) -> str:
    """The job that runs an attempt."""
    return migration_id.replace("migration-", "job-", 1)


def _put(tx: Transaction, vm: Vm, migration: Migration, wanted: Wanted) -> Migration:
    MIGRATIONS.put(tx, migration, named=False)
    VMS.put(tx, msgspec.structs.replace(vm, migration_id=migration.id))
    subject = f"/api/v1/migrations/{migration.id}"
    journal.submit(tx, job_of(migration.id), "migrate", subject, msgspec.to_builtins(wanted))
    return migration


def check_movable(vm: Vm) -> None:
    """Raises MigrationRefusedError."""
    if vm.migration_id is not None:
        raise MigrationRefusedError(
            f"VM {vm.name} is migrating", next_command=f"novacron migration watch {vm.migration_id}"
        )
    if vm.state not in MOVABLE:
        raise MigrationRefusedError(
            f"VM {vm.name} is {vm.state}: only a running or paused VM moves",
            next_command=f"novacron vm start {vm.name}",
        )
