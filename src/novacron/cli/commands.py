"""The commands that speak with a cluster, as a table of what to import when."""

from collections.abc import Mapping
from typing import Final

from novacron.cli.lazy import Lazy

COMMANDS: Final[Mapping[str, Lazy]] = {
    "vm": Lazy("novacron.cli.vm:group", "Make, run, look at and remove VMs."),
    "image": Lazy("novacron.cli.image:group", "What VMs are made from."),
    "repo": Lazy("novacron.cli.repository:group", "Where backups are kept."),
    "backup": Lazy("novacron.cli.backup:group", "VMs' disks at one instant: run, list, show, watch, cancel, delete."),
    "migrate": Lazy("novacron.cli.migrate:command", "Move VMs to another cluster or node while they run."),
    "migration": Lazy("novacron.cli.migration:group", "Migrations: list, show, series, watch, cancel, rollback."),
    "plan": Lazy("novacron.cli.plan:group", "How migrations would go: list, show."),
    "batch": Lazy("novacron.cli.batch:group", "Many VMs at once: list, show, watch, cancel."),
    "federation": Lazy("novacron.cli.federation:group", "Clusters that this one moves VMs to and from."),
    "job": Lazy("novacron.cli.job:group", "Long work of the cluster."),
    "event": Lazy("novacron.cli.event:group", "Changes of the cluster, as they happen."),
    "metrics": Lazy("novacron.cli.metrics:command", "What Prometheus reads of the cluster."),
    "context": Lazy("novacron.cli.context:group", "Which clusters commands speak with."),
    "config": Lazy("novacron.cli.config:group", "Settings, and where each one comes from."),
}
CONTROLLER: Final[Mapping[str, Lazy]] = {
    "show": Lazy("novacron.cli.controller:show", "Show the cluster that answers."),
    "save": Lazy("novacron.cli.controller:save", "Keep the controller's state in a file."),
}
NODE: Final[Mapping[str, Lazy]] = {
    "list": Lazy("novacron.cli.node:list_nodes", "List the nodes of the cluster."),
    "show": Lazy("novacron.cli.node:show", "Show one node."),
    "invite": Lazy("novacron.cli.node:invite", "Print an invitation by which one host joins."),
    "drain": Lazy("novacron.cli.node:drain", "Let a node take no VM, and move away what runs there."),
    "undrain": Lazy("novacron.cli.node:undrain", "Let a node take VMs again."),
    "remove": Lazy("novacron.cli.node:remove", "Forget a node that is gone for good."),
}
