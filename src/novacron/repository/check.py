"""Checking: is everything there that manifests refer to, and is it what was stored?"""

from collections.abc import Callable
from dataclasses import dataclass, field

from novacron.core.errors import NovaCronError
from novacron.repository.errors import ChunkUnknownError, DamagedError, PackMissingError
from novacron.repository.manifest import Manifest
from novacron.repository.packs import PackReader
from novacron.repository.prune import DAMAGED
from novacron.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was stored; ``manifests`` cannot be read whole because of it."""

    code: str
    cause: str
    manifests: tuple[str, ...] = ()


@dataclass(slots=True)
class Checked:
    """What was looked at, and what is wrong."""

    manifests: int = 0
    chunks: int = 0
    packs: int = 0
    read_bytes: int = 0
    loose_packs: int = 0  # not in the index: a writer is at work or was broken off, or the index lost them
    faults: list[Fault] = field(default_factory=list)


def check(repository: Repository, *, read: bool, progress: Callable[[Checked], None] = lambda _: None) -> Checked:
    """Every manifest, and every pack that it needs; with ``read`` the content of every chunk of every pack, too.

    A damaged pack gets a tombstone: what it holds is stored again by the next writer that meets it, which heals the
    manifests that need it. Raises IndexDamagedError.
    """
    repository.refresh()
    done = Checked()
    stored = repository.packs()
    done.packs = len(stored)
    done.loose_packs = len(stored.keys() - repository.index.packs())
    bad: set[str] = repository.index.packs() - stored.keys()
    if read:
        for name, (size, _) in sorted(stored.items()):
            try:
                PackReader(repository.store, repository.keys, name).check()
            except DamagedError as error:
                bad.add(name)
                repository.mark(name, DAMAGED)
                done.faults.append(Fault(error.code, error.cause))
            done.read_bytes += size
            progress(done)
    for name in repository.manifests():
        try:
            manifest = repository.manifest(name)
        except DamagedError as error:
            done.faults.append(Fault(error.code, error.cause, (name,)))
            continue
        done.manifests += 1
        done.faults += [Fault(error.code, error.cause, (name,)) for error in _missing(repository, manifest, bad, done)]
    return done


def _missing(repository: Repository, manifest: Manifest, bad: set[str], done: Checked) -> list[NovaCronError]:
    """One error for each pack, and one for all chunks that no place is known of."""
    lost: dict[str, int] = {}
    unknown = 0
    for identity in set(manifest.chunk_ids()):
        done.chunks += 1
        places = {place.pack for place in repository.index.places(identity)}
        if not places:
            unknown += 1
        elif places <= bad:
            pack = min(places)
            lost[pack] = lost.get(pack, 0) + 1
    found: list[NovaCronError] = [
        PackMissingError(f"{count} chunks lie in pack {pack[:16]}, which is missing or damaged")
        for pack, count in sorted(lost.items())
    ]
    return [*found, *([ChunkUnknownError(f"the index knows no place of {unknown} chunks")] if unknown else [])]
