"""Channels to the nodes at the other end of migrations; those of one cluster share its link."""

from collections import defaultdict

from novacron.migration.handover import Attempt
from novacron.protocol.migration import MigrationPolicy
from novacron.wire.channel import ParallelChannel, open_channel
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId
from novacron.wire.shares import Shares, weight_of


class Links:
    """Of one node, with its ``credentials``."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._shares: defaultdict[str, Shares] = defaultdict(Shares)  # by the cluster at their other end

    async def open(self, attempt: Attempt, policy: MigrationPolicy) -> ParallelChannel:
        """To the node at the other end of an attempt; raises WireError."""
        target = SpiffeId.parse(attempt.peer_node)
        return await open_channel(
            attempt.peer_address,
            self._credentials,
            target,
            attempt.migration_id,
            streams=policy.streams,
            rate_bytes_s=policy.bandwidth_bytes_s,
            shares=self._shares[target.trust_domain],
            weight=weight_of(policy.priority),
        )
