"""Repositories of backups: what a controller asks of a node, and what it is told."""

from msgspec import Struct, field

from novacron.protocol.backup import RepositoryPlace
from novacron.protocol.checkpoint import WorkProgress
from novacron.repository.traits import Traits


class RepositoryCreate(Struct, frozen=True, kw_only=True):
    """Make a repository of that id, or with ``existing`` open the one that is there; asking twice is harmless.

    ``recovery`` is the text of a recovery key that is to open it too; ``repr`` does not tell it.
    """

    work_id: str
    place: RepositoryPlace
    repository_id: str
    chunker: str
    recovery: str = ""
    existing: bool = False

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Without the recovery key, as ``repr``."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "recovery"]

    def __repr__(self) -> str:
        return f"RepositoryCreate({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class RepositoryCheck(Struct, frozen=True):
    """Look whether all that manifests refer to is there, and with ``read`` whether it is what was stored."""

    work_id: str
    place: RepositoryPlace
    read: bool = False


class RepositoryPrune(Struct, frozen=True):
    """Remove what no manifest refers to; what is marked now goes no earlier than in ``grace_s``."""

    work_id: str
    place: RepositoryPlace
    grace_s: float


class RepositoryUnmake(Struct, frozen=True):
    """Give the making of a repository up: what was made of it goes, if it has that id and nothing was stored in it."""

    work_id: str
    place: RepositoryPlace
    repository_id: str


class RepositoryWorkRef(Struct, frozen=True):
    """Work on a repository, named."""

    work_id: str


class Made(Struct, frozen=True):
    """A repository that is there."""

    repository_id: str
    chunker: str
    traits: Traits
    has_recovery: bool  # whether a recovery key opens it


class CheckFault(Struct, frozen=True):
    """Something that is not as it was stored; ``manifests`` cannot be read whole because of it."""

    code: str
    cause: str
    manifests: tuple[str, ...] = ()


class CheckResult(Struct, frozen=True):
    """What a check has found; ``faults`` are the first of ``fault_count``."""

    read: bool
    manifests: int
    pages: int
    chunks: int
    packs: int
    loose_packs: int
    read_bytes: int
    fault_count: int = 0
    faults: tuple[CheckFault, ...] = ()
    at: float = 0.0  # when that was recorded, by the controller's clock


class PruneResult(Struct, frozen=True):
    """What a prune has done."""

    marked_packs: int
    removed_packs: int
    removed_bytes: int
    moved_bytes: int
    at: float = 0.0  # when that was recorded, by the controller's clock


class RepositoryStats(Struct, frozen=True):
    """What a repository takes, by its store's lists."""

    manifests: int
    packs: int
    pack_bytes: int
    index_bytes: int
    manifest_bytes: int
    going_packs: int  # that have a tombstone
    oldest_at: float = 0.0  # when the first manifest that there is was put; 0: there is none
    newest_at: float = 0.0


class RepositoryReport(Struct, frozen=True):
    """A node's word on work on a repository: ``working``, ``done``, ``failed``."""

    work_id: str
    state: str
    progress: WorkProgress = field(default_factory=WorkProgress)  # making, reading, looking, moving, removing
    made: Made | None = None
    checked: CheckResult | None = None
    pruned: PruneResult | None = None
    error_code: str = ""
    error_cause: str = ""
    error_next: str = ""
