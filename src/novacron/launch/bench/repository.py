"""``novacron bench repository``: a disk stored whole, again, and after a change, read back and checked.

The peers work on the same file in the same run: zstd alone, at the same level on all cores, which is what compressing
costs a program that does nothing else; restic and Borg where they are installed. All of them read the whole disk each
time: what a dirty bitmap spares is not measured here. Files are in the page cache; the repository's are synced.
"""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import blake3
import click
import msgspec
from msgspec import Struct

from novacron.cli.output import table
from novacron.content.codec import encode
from novacron.core.allocation import keep_freed_buffers
from novacron.core.errors import VerificationError
from novacron.core.units import KIB, MIB, format_size
from novacron.launch.bench.backup_peers import Peer, call, installed_peers
from novacron.launch.bench.disk import change_disk, make_disk, make_disk_of_files
from novacron.launch.bench.footprint import footprint
from novacron.launch.bench.large_index import fill
from novacron.repository import reader
from novacron.repository.check import check
from novacron.repository.chunkers import CHUNKERS, Chunker
from novacron.repository.chunks import LEVEL
from novacron.repository.folder import FolderStore
from novacron.repository.keys import Secret
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.regions import Piece
from novacron.repository.repository import Repository
from novacron.repository.writer import Writer

READ_BYTES: Final = 4 * MIB
ZSTD: Final = "zstd alone"
FULL, UNCHANGED, CHANGED, READ, CHECK = "full", "unchanged", "4 % changed", "read back", "check"


class WrongDiskError(VerificationError):
    """What was read back is not what was stored."""

    code = "bench_wrong_disk"


class Rate(Struct, frozen=True):
    """One measurement; ``stored_bytes``: of the repository after it."""

    who: str
    what: str
    bytes_s: float
    cpu_bytes_s: float  # bytes of the disk a second of processor time
    stored_bytes: int = 0
    memory_bytes: int = 0  # anonymous, at the peak, of this process


@click.command("repository")
@click.option("--size", type=click.IntRange(8), default=1024, show_default=True, help="MiB of the disk.")
@click.option("--of", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its content: files in here.")
@click.option("--index", type=click.IntRange(0), default=0, help="So many chunks are in the repository before.")
@click.option("--peers/--no-peers", default=True, help="restic and Borg, too.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work, not on a memory file system.")
@click.option("--seed", type=click.IntRange(1), default=7, show_default=True, help="Of content and of changes.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(
    *, size: int, of: Path | None, index: int, peers: bool, folder: Path | None, seed: int, output: str
) -> None:
    """Measure how fast a disk goes into a repository and comes back, by each chunker."""
    keep_freed_buffers()
    rates: list[Rate] = []
    with TemporaryDirectory(prefix="novacron-bench-", dir=folder) as place:
        for name, chunker in CHUNKERS.items():
            disk = _disk(Path(place), size * MIB, of, seed)
            if not rates:
                rates.append(_zstd(disk))
            rates += asyncio.run(_ours(Path(place) / name, disk, chunker, index, seed))
        for peer in installed_peers(Path(place), disk) if peers else ():
            rates += _peer(peer, Path(place), _disk(Path(place), size * MIB, of, seed), seed)
    if output == "json":
        document: dict[str, Any] = {"size_bytes": size * MIB, "index": index, "rates": rates}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    _show(rates)


def _show(rates: list[Rate]) -> None:
    by = {(one.who, one.what): one for one in rates}
    others = list(dict.fromkeys(one.who for one in rates if one.who not in {*CHUNKERS, ZSTD}))
    rows = []
    for one in rates:
        compared = [by.get((ZSTD, FULL)), *(by.get((other, one.what)) for other in others)]
        rows.append(
            [
                one.who,
                one.what,
                f"{one.bytes_s / 1e6:.0f} MB/s",
                f"{one.cpu_bytes_s / 1e6:.0f} MB",
                *(f"{one.bytes_s / other.bytes_s:.2f}" if other else "" for other in compared),
                format_size(one.stored_bytes) if one.stored_bytes else "",
                format_size(one.memory_bytes) if one.memory_bytes else "",
            ]
        )
    table(["", "", "disk", "a CPU second", f"x {ZSTD}", *(f"x {other}" for other in others), "stored", "memory"], rows)


def _disk(place: Path, size_bytes: int, of: Path | None, seed: int) -> Path:
    """As it is before its change."""
    path = place / "disk"
    if of is None:
        make_disk(path, size_bytes, seed)
    else:
        make_disk_of_files(path, of, size_bytes)
    return path


async def _ours(place: Path, disk: Path, chunker: Chunker, index: int, seed: int) -> list[Rate]:
    key, cache = os.urandom(32), place.with_suffix(".cache")
    repository = Repository.create(FolderStore(place), Secret.file(key), cache, chunker)
    if index:
        await asyncio.to_thread(fill, place, cache, key, index, seed)
        repository.refresh()
    stream = Stream.empty("disk", disk.stat().st_size)
    rates = []

    async def measured(what: str, work: Callable[[], Awaitable[None]]) -> None:
        async with footprint(os.getpid()) as found:
            seconds, cpu_s = time.perf_counter(), time.process_time()
            await work()
            seconds, cpu_s = time.perf_counter() - seconds, time.process_time() - cpu_s
        size = stream.size_bytes
        memory_bytes = found.peak_bytes
        rates.append(Rate(chunker.name, what, size / seconds, size / cpu_s, _taken(place), memory_bytes))

    async def store(name: str) -> None:
        nonlocal stream
        writer = Writer(repository)
        stream = await writer.store(Stream.empty("disk", stream.size_bytes), _read(disk))
        await asyncio.to_thread(writer.commit, name, Manifest(time.time(), chunker.name, (stream,)))

    async def look() -> None:
        found = await asyncio.to_thread(check, repository, read=not index)
        if found.faults:
            raise WrongDiskError(f"the repository has {len(found.faults)} faults: {found.faults[0].cause}")

    await measured(FULL, lambda: store("one"))
    await measured(UNCHANGED, lambda: store("two"))
    await asyncio.to_thread(change_disk, disk, seed)
    await measured(CHANGED, lambda: store("three"))
    await _compare(repository, stream, disk)
    await measured(READ, lambda: _drain(repository, stream))
    await measured(CHECK, look)
    return rates


async def _read(disk: Path) -> AsyncIterator[Piece]:
    with disk.open("rb") as file:
        offset = 0
        while data := await asyncio.to_thread(file.read, READ_BYTES):
            yield offset, data
            offset += len(data)


async def _drain(repository: Repository, stream: Stream) -> None:
    async for _ in reader.pieces(repository, stream):
        pass


async def _compare(repository: Repository, stream: Stream, disk: Path) -> None:
    stored, at = blake3.blake3(), 0
    async for offset, data in reader.pieces(repository, stream):
        stored.update(bytes(offset - at))
        stored.update(data)
        at = offset + len(data)
    stored.update(bytes(stream.size_bytes - at))
    whole = blake3.blake3()
    async for _, data in _read(disk):
        whole.update(data)
    if stored.digest() != whole.digest():
        raise WrongDiskError("what was read back is not what was stored")


def _zstd(disk: Path) -> Rate:
    size, parts = disk.stat().st_size, range(0, disk.stat().st_size, 256 * KIB)
    with disk.open("rb") as file, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        seconds, cpu_s = time.perf_counter(), time.process_time()
        lengths = threads.map(lambda at: len(encode(os.pread(file.fileno(), 256 * KIB, at), LEVEL)), parts)
        stored_bytes = sum(lengths)
        seconds, cpu_s = time.perf_counter() - seconds, time.process_time() - cpu_s
    return Rate(ZSTD, FULL, size / seconds, size / cpu_s, stored_bytes)


def _peer(peer: Peer, place: Path, disk: Path, seed: int) -> Iterable[Rate]:
    call(peer.make, place)
    for what, step in peer.steps.items():
        if what == CHANGED:
            change_disk(disk, seed)
        seconds, cpu_s = time.perf_counter(), _children_s()
        call(step, place)
        seconds, cpu_s = time.perf_counter() - seconds, _children_s() - cpu_s
        size = disk.stat().st_size
        yield Rate(peer.name, what, size / seconds, size / cpu_s, _taken(place / peer.name))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _taken(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
