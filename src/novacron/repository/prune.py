"""Pruning: packs of which no manifest needs anything go, without a lock that writers would wait for.

1. Of a pack that is needed in small part, that part is stored anew.
2. A pack without use gets a tombstone: writers store its chunks again instead of using them.
3. One whose tombstone is older than the grace period is looked at again, against the manifests that there are then: it
   goes when it is still without use, else its tombstone does.

The order of step 3 (list the manifests while the tombstone stands, remove the pack, forget it in the index, then remove
the tombstone) is what a writer's last look leans on (see ``writer``). The grace period only keeps slow writers from
having to begin anew.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from novacron.content.records import PREFIX_BYTES
from novacron.repository.chunks import pack_chunk
from novacron.repository.errors import ChunkUnknownError
from novacron.repository.packs import PackBuilder, name_of, path, size_of
from novacron.repository.repository import TOMBSTONES, Repository

UNUSED: Final = "unused"
DAMAGED: Final = "damaged"
WORTHWHILE: Final = 0.7  # a pack of which less is needed is not kept for that

Needed = dict[str, dict[bytes, int]]  # pack → ids of its chunks that a manifest needs → how long each is there


@dataclass(slots=True)
class Pruned:
    """What was done."""

    phase: str = "looking"  # moving, removing
    moved_chunks: int = 0
    moved_bytes: int = 0
    total_bytes: int = 0  # that are to be moved
    marked: int = 0
    removed: int = 0
    removed_bytes: int = 0


def prune(
    repository: Repository, *, grace_s: float, now: float, progress: Callable[[Pruned], None] = lambda _: None
) -> Pruned:
    """All steps; what ``progress`` raises ends it, and the next one goes on.

    Raises IndexDamagedError, ChunkUnknownError, and DamagedError of a manifest: what is needed is not known then.
    """
    done = Pruned()
    progress(done)
    repository.refresh()
    needed = _needed(repository, lambda: progress(done))
    ripe = {pack: size for pack, (size, put_at) in repository.packs().items() if now - put_at >= grace_s}
    marked_at = {name_of(stored.name): stored.modified_at for stored in repository.store.list(TOMBSTONES)}
    poor = {
        pack: needed.get(pack, {})
        for pack, size in ripe.items()
        if pack not in marked_at and _part(needed, pack) < WORTHWHILE * size
    }
    done.phase, done.total_bytes = "moving", sum(sum(chunks.values()) for chunks in poor.values())
    _store_anew(repository, poor.values(), done, progress)
    for pack in poor:
        repository.mark(pack, UNUSED)
        marked_at[pack] = now
    done.marked = len(poor)
    done.phase = "removing"
    due = {pack for pack, at in marked_at.items() if now - at >= grace_s}
    _remove(repository, due, done, lambda: progress(done))
    return done


def _remove(repository: Repository, due: set[str], done: Pruned, look: Callable[[], None]) -> None:
    repository.refresh()
    needed, stored = _needed(repository, look), repository.packs()
    gone = due - needed.keys()
    for pack in sorted(gone):
        repository.store.delete(path(pack))
        done.removed += pack in stored
        done.removed_bytes += stored.get(pack, (0, 0))[0]
    _forget(repository, gone)
    reasons = repository.tombstones()
    for pack in sorted(due):
        if pack in gone or reasons.get(pack) != DAMAGED:  # what a damaged one holds is stored again by the next writer
            repository.unmark(pack)


def _needed(repository: Repository, look: Callable[[], None]) -> Needed:
    """Of several packs that have a chunk, the one that stays is needed."""
    needed: Needed = {}
    seen: set[bytes] = set()
    passed: set[bytes] = set()
    for name in repository.manifests():
        look()
        for identity in repository.needs(repository.manifest(name), passed):
            prefix = identity[:PREFIX_BYTES]
            if prefix not in seen:
                seen.add(prefix)
                (places,) = repository.index.find([identity])
                if not places:
                    raise ChunkUnknownError(f"the index knows no place of a chunk of {name}: it must be rebuilt first")
                needed.setdefault(places[0].pack, {})[identity] = places[0].length
    return needed


def _part(needed: Needed, pack: str) -> int:
    """What a pack would take that had only what is needed of this one."""
    chunks = needed.get(pack)
    return size_of(chunks.values()) if chunks else 0


def _store_anew(
    repository: Repository, chunks: Iterable[dict[bytes, int]], done: Pruned, progress: Callable[[Pruned], None]
) -> None:
    """These chunks in packs of their own, known to the index."""
    packs: dict[str, bytes] = {}
    pack = PackBuilder(repository.keys)

    def put() -> None:
        name, content = pack.finish()
        repository.store.put(path(name), content)
        packs[name] = bytes(pack.entries)

    for identity, length in (chunk for of_pack in chunks for chunk in of_pack.items()):
        key = repository.keys.chunk_id
        pack.add(identity, pack_chunk(repository.chunk(identity), identity, key))
        done.moved_chunks += 1
        done.moved_bytes += length
        progress(done)
        if pack.full:
            put()
            pack = PackBuilder(repository.keys)
    if pack.entries:
        put()
    repository.index.add(packs)


def _forget(repository: Repository, gone: set[str]) -> None:
    """Segments that name packs which are gone, written anew without them."""
    index = repository.index
    stale = [segment for segment in index.segments.values() if gone.intersection(segment.packs)]
    index.replace(stale, lambda pack: pack not in gone)
