"""How a cluster's record of a VM follows what nodes say of it.

A node's journal is the authority on what it runs; the record never goes back to an older epoch, whoever speaks.
"""

from typing import Final

import msgspec

from novacron.core.ids import NodeId
from novacron.protocol.migration import MigrationReport
from novacron.protocol.node import VmReport
from novacron.protocol.resources import Migration, Problem, Vm

CREATING: Final = "creating"
OUTGOING, INCOMING = "outgoing", "incoming"


def follow_vm(known: Vm | None, report: VmReport, node_id: NodeId, now: float) -> Vm | None:
    """The record after a node's word; None when there is none (any more) of a VM that this cluster owns."""
    if report.ownership == "fenced" and known is not None and known.node_id == node_id:
        return None  # it was taken over elsewhere
    if report.ownership != "owner":
        return known
    if known is None:
        return Vm(
            id=report.vm_id,
            name=report.spec.name,
            spec=report.spec,
            state=report.state,
            owner_epoch=report.epoch,
            node_id=node_id,
            created_at=now,
        )
    if report.epoch < known.owner_epoch or (report.epoch == known.owner_epoch and known.node_id != node_id):
        return known
    return msgspec.structs.replace(
        known,
        spec=report.spec,
        state=known.state if known.state == CREATING else report.state,
        owner_epoch=report.epoch,
        node_id=node_id,
        problem=Problem("vm_failed", report.error, f"novacron vm show {known.name}") if report.error else None,
    )


def missing(known: Vm) -> Vm:
    """The record of a VM that its own node does not know."""
    problem = Problem("vm_missing", "its node does not know it any more", f"novacron vm show {known.name}")
    return msgspec.structs.replace(known, state="failed", problem=problem)


def follow_arrival(known: Migration, report: MigrationReport, now: float) -> Migration:
    """The record of a migration that comes, after its node's word: one that is lost here has ended."""
    if known.outcome or known.direction != INCOMING or report.state != "lost":
        return known
    problem = Problem("migration_dismissed", f"{known.source_cluster} gave it up: the VM runs on there")
    return msgspec.structs.replace(known, outcome="failed", problem=problem, ended_at=now)


def noted(known: Migration, report: MigrationReport) -> Migration:
    """The record with what a node notes of a migration, also of one that has ended."""
    said = (*report.notes, *(report.summary.notes if report.summary else ()))
    new = tuple(note for note in dict.fromkeys(said) if note not in known.notes)
    return msgspec.structs.replace(known, notes=known.notes + new) if new else known


def follow_migration(known: Migration, report: MigrationReport) -> Migration:
    """The record after a node's word on a migration that is under way; its outcome is not a node's to say."""
    if known.outcome or report.epoch < known.epoch:
        return known
    return msgspec.structs.replace(
        known,
        epoch=report.epoch,
        phase=report.progress.phase,
        progress=report.progress,
        summary=report.summary or known.summary,
    )
