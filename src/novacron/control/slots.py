"""How many migrations go at once: so many at one link, so many at one host, one to one node.

Every migration of the cluster counts, whoever began it. An attempt that waits for its time uses nothing and does not.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from novacron.control.kinds import BATCHES, MIGRATIONS
from novacron.control.mirror import OUTGOING
from novacron.control.moves import WAITING, under_way
from novacron.database.database import Transaction


@dataclass(slots=True)
class Slots:
    """Those that are taken. Clusters and nodes go by their names."""

    links: Counter[str] = field(default_factory=Counter)  # by target cluster
    hosts: Counter[str] = field(default_factory=Counter)  # by source node
    nodes: set[tuple[str, str]] = field(default_factory=set)  # target cluster and node

    @classmethod
    def of(cls, tx: Transaction) -> Self:
        """As they are at this moment."""
        self = cls()
        for migration in MIGRATIONS.every(tx):
            if migration.outcome or migration.phase == WAITING:
                continue
            if migration.direction == OUTGOING:
                self.links[migration.target_cluster] += 1
                self.hosts[migration.source_node] += 1
            if migration.target_node:
                self.nodes.add((migration.target_cluster, migration.target_node))
        for batch in BATCHES.every(tx):  # a node that was chosen is not in the migration's record yet
            chosen = {move.target_node for move in batch.moves if under_way(move)} - {""}
            self.nodes |= {(batch.target_cluster, node) for node in chosen}
        return self

    def take(self, *, source_node: str, target_cluster: str, target_node: str, most: int) -> bool:
        """Take one more; False, and nothing is taken, when there is none."""
        full = self.links[target_cluster] >= most or self.hosts[source_node] >= most
        if full or (target_cluster, target_node) in self.nodes:
            return False
        self.links[target_cluster] += 1
        self.hosts[source_node] += 1
        if target_node:
            self.nodes.add((target_cluster, target_node))
        return True
