"""The cluster in Prometheus' words: read from the records at each scrape, so that nothing is counted twice.

docs/metrics.md says what each name means.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from novacron.control import migration_metrics
from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.database.database import Transaction
from novacron.protocol.resources import Cluster

NODE_STATES: Final = ("joining", "ready", "unreachable")
VM_STATES: Final = ("creating", "stopped", "running", "paused", "migrating", "failed")


def exposition(tx: Transaction, cluster: Cluster) -> bytes:
    """All metrics, in Prometheus' text format."""
    return generate_latest(_Scrape(tx, cluster))


class _Scrape(Collector):
    """One look at the records, and at this process."""

    def __init__(self, tx: Transaction, cluster: Cluster) -> None:
        self._tx = tx
        self._cluster = cluster

    def collect(self) -> Iterator[Metric]:
        build = {"cluster": self._cluster.name, "version": self._cluster.version}
        yield InfoMetricFamily("novacron_build", "The cluster that answers and its version.", value=build)
        nodes, vms = NODES.every(self._tx), VMS.every(self._tx)
        yield _by_state("novacron_nodes", "Nodes by state.", NODE_STATES, [node.state for node in nodes])
        yield _by_state("novacron_vms", "VMs of this cluster by state.", VM_STATES, [vm.state for vm in vms])
        yield from migration_metrics.families(list(MIGRATIONS.every(self._tx)))
        yield from ProcessCollector(registry=None).collect()


def _by_state(name: str, said: str, states: Sequence[str], found: Sequence[str]) -> Metric:
    """Also of a state that nothing is in: an alert needs a number."""
    family, counts = GaugeMetricFamily(name, said, labels=["state"]), Counter(found)
    for state in states:
        family.add_metric([state], counts[state])
    return family
