"""Cluster to cluster."""

from typing import Annotated

from msgspec import Meta, Struct

from novacron.core.ids import ClusterId, MigrationId, VmId
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.vm import ShortText

Pem = Annotated[str, Meta(max_length=16384)]


class PeerIdentity(Struct, frozen=True):
    """Who a cluster is and how to verify it."""

    cluster_id: ClusterId
    name: str
    address: str
    root_pem: Pem


class PeerJoin(Struct, frozen=True):
    """The invited cluster to the inviter (anonymous, by token)."""

    token: ShortText
    identity: PeerIdentity


class PeerSummary(Struct, frozen=True):
    """What a peer tells of itself when asked."""

    cluster_id: ClusterId
    name: str
    version: str
    nodes: int
    memory_free_bytes: int
    disk_free_bytes: int


class ReturnVm(Struct, frozen=True):
    """Give this VM back: a rollback after the point of no return is a migration the other way."""

    vm_id: VmId
    rolls_back: MigrationId
    migration_id: MigrationId  # the name of the way back, chosen by whoever wants the VM again: asking twice is one
    policy: MigrationPolicy
