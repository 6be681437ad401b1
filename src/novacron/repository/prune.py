"""Pruning: packs of which no manifest needs anything go, without a lock that writers would wait for.

1. A pack without use gets a tombstone: writers store its chunks again instead of using them.
2. One whose tombstone is older than the grace period is looked at again, against the manifests that there are then: it
   goes when it is still without use, else its tombstone does.

The order of step 2 (list the manifests while the tombstone stands, remove the pack, forget it in the index, then remove
the tombstone) is what a writer's last look leans on (see ``writer``). The grace period only keeps slow writers from
having to begin anew.
"""

from dataclasses import dataclass

from novacron.repository.errors import ChunkUnknownError
from novacron.repository.index import PREFIX_BYTES
from novacron.repository.packs import name_of, path
from novacron.repository.repository import TOMBSTONES, Repository

UNUSED = "unused"
DAMAGED = "damaged"


@dataclass(slots=True)
class Pruned:
    """What was done."""

    marked: int = 0
    removed: int = 0
    removed_bytes: int = 0
    kept_bytes: int = 0


def prune(repository: Repository, *, grace_s: float, now: float) -> Pruned:
    """Both steps.

    Raises IndexDamagedError, ChunkUnknownError, and DamagedError of a manifest: what is needed is not known then.
    """
    repository.refresh()
    done = Pruned()
    marked_at = {name_of(s.name): s.modified_at for s in repository.store.list(TOMBSTONES)}
    stored = repository.packs()
    needed = _needed(repository)
    for pack, (_, put_at) in stored.items():
        if pack not in needed and pack not in marked_at and now - put_at >= grace_s:
            repository.mark(pack, UNUSED)
            marked_at[pack] = now
            done.marked += 1
    repository.refresh()
    needed = _needed(repository)
    due = {pack for pack, at in marked_at.items() if now - at >= grace_s}
    gone = due - needed
    for pack in gone:
        repository.store.delete(path(pack))
        done.removed += pack in stored
        done.removed_bytes += stored.get(pack, (0, 0))[0]
    _forget(repository, gone)
    reasons = repository.tombstones()
    for pack in due:
        if pack in gone or reasons.get(pack) != DAMAGED:  # what a damaged one holds is stored again by the next writer
            repository.unmark(pack)
    done.kept_bytes = sum(size for pack, (size, _) in stored.items() if pack not in gone)
    return done


def _needed(repository: Repository) -> set[str]:
    """Packs in which a chunk of a manifest lies; of several that have it, the one that stays."""
    needed: set[str] = set()
    seen: set[bytes] = set()
    for name in repository.manifests():
        for identity in repository.manifest(name).chunk_ids():
            prefix = identity[:PREFIX_BYTES]
            if prefix not in seen:
                seen.add(prefix)
                places = repository.index.places(identity)
                if not places:
                    raise ChunkUnknownError(f"the index knows no place of a chunk of {name}: it must be rebuilt first")
                needed.add(places[0].pack)
    return needed


def _forget(repository: Repository, gone: set[str]) -> None:
    """Segments that name packs which are gone, written anew without them."""
    index = repository.index
    stale = [segment for segment in index.segments.values() if gone.intersection(segment.packs)]
    index.replace(stale, lambda pack: pack not in gone)
