"""The kinds of resources that the API has: where they are, what they are."""

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from novacron.protocol.resources import (
    Backup,
    Batch,
    Checkpoint,
    Image,
    Job,
    Migration,
    Node,
    PeerCluster,
    Plan,
    Repository,
    Vm,
)

T = TypeVar("T", bound=Struct)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind; ``event`` is its word in ``/events``."""

    path: str
    event: str
    struct: type[T]


class Found(Struct, Generic[T], frozen=True):
    """A resource with the version of its last change; ``location`` is the path of the work that a request began."""

    value: T
    version: int = 0
    location: str = ""

    def plain(self) -> dict[str, Any]:
        """As the API writes it."""
        plain: dict[str, Any] = msgspec.to_builtins(self.value)
        return {**plain, "resource_version": self.version} if self.version else plain


VMS: Final = Kind("/vms", "vm", Vm)
NODES: Final = Kind("/nodes", "node", Node)
IMAGES: Final = Kind("/images", "image", Image)
MIGRATIONS: Final = Kind("/migrations", "migration", Migration)
PLANS: Final = Kind("/plans", "", Plan)  # plans do not change
BATCHES: Final = Kind("/batches", "batch", Batch)
CHECKPOINTS: Final = Kind("/checkpoints", "checkpoint", Checkpoint)
REPOSITORIES: Final = Kind("/repositories", "repository", Repository)
BACKUPS: Final = Kind("/backups", "backup", Backup)
PEERS: Final = Kind("/peers", "peer", PeerCluster)
JOBS: Final = Kind("/jobs", "", Job)  # jobs change without an event


def at(kind: Kind[T], reference: str, action: str = "") -> str:
    """The path of one resource, by name or id, or of an action on it."""
    path = f"{kind.path}/{quote(reference, safe='')}"
    return f"{path}/{action}" if action else path
