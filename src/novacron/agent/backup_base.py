"""What a backup leans on: the newest one in its repository since which every write to the VM's disks is marked.

A bitmap is named by its repository and by the backup at whose instant it began. It is a base only together with that
backup: where either is missing, or not whole, everything is read, and why is told.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from novacron.core.ids import BackupId
from novacron.hypervisor.point_in_time import PointInTime
from novacron.protocol.vm import VmSpec
from novacron.repository.errors import ManifestUnknownError
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.repository import Repository

NOT_WHOLE: Final = "QEMU has not ended in order since the last backup: writes may be missing in its marks"
NO_MARKS: Final = (
    "no marks of a backup in this repository are on its disks: there was none, QEMU has not ended in order since, or "
    "the disks are others"
)


@dataclass(frozen=True, slots=True)
class Base:
    """``bitmap`` has what changed since ``streams``; without one, these are empty, and ``full_because`` says why."""

    streams: tuple[Stream, ...]
    backup: str = ""
    bitmap: str = ""
    full_because: str = ""


def bitmaps_of(repository: Repository) -> str:
    """What all bitmaps of backups in this repository begin with."""
    return f"backup-{repository.keys.repository_id[:8]}-"


async def find_base(repository: Repository, point: PointInTime, spec: VmSpec) -> Base:
    """The newest whole one; raises HypervisorError, RepositoryError."""
    prefix = bitmaps_of(repository)
    marks = await point.marks(prefix)
    because = NO_MARKS
    found: list[tuple[float, Base]] = []
    for bitmap, whole in marks.items():
        backup = BackupId(bitmap.removeprefix(prefix))
        if not whole:
            because = NOT_WHOLE
            continue
        try:
            manifest = await asyncio.to_thread(repository.manifest, backup)
        except ManifestUnknownError:
            because = "the backup to which the marks belong is not in the repository"
            continue
        streams = _fitting(manifest, spec)
        if streams is None or manifest.chunker != repository.chunker.name:
            because = "its disks have another size now"
            continue
        found.append((manifest.created_at, Base(streams, backup, bitmap)))
    return max(found, key=lambda one: one[0])[1] if found else all_of_it(spec, because)


def all_of_it(spec: VmSpec, because: str) -> Base:
    """Nothing to lean on."""
    return Base(tuple(Stream.empty(f"disk/{disk.id}", disk.size_bytes) for disk in spec.disks), full_because=because)


def _fitting(manifest: Manifest, spec: VmSpec) -> tuple[Stream, ...] | None:
    """The streams of these disks, when there are such."""
    there = {stream.name: stream for stream in manifest.streams}
    streams = tuple(there[name] for disk in spec.disks if (name := f"disk/{disk.id}") in there)
    sizes = tuple(disk.size_bytes for disk in spec.disks)
    return streams if tuple(stream.size_bytes for stream in streams) == sizes else None
