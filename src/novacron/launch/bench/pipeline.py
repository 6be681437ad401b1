"""``novacron bench pipeline``: what each end of a migration does with guest memory, without QEMU and without a link.

QEMU's stream comes from memory, frames go from the source to the destination by hand, pages end in the destination's
RAM, which is compared. The ends are measured each by itself, as hosts of their own, and both at once in one process.
The peer is zstd alone, at the same level (or at the first, where it is chosen), over the same bytes in one thread: what
compressing costs a program that does nothing else.
"""

import asyncio
import mmap
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from novacron.cli.output import table
from novacron.content.codec import encode
from novacron.content.digest import KEY_BYTES
from novacron.content.pages import PageEncoder
from novacron.core.allocation import keep_freed_buffers
from novacron.core.clock import SystemClock
from novacron.core.errors import VerificationError
from novacron.core.units import MIB, PAGE_BYTES
from novacron.hypervisor.memory import stream
from novacron.launch.bench.memory import dirtied, like_memory
from novacron.migration.compression import FIRST, Compression
from novacron.migration.frames import FrameType
from novacron.migration.meter import Meter
from novacron.migration.pipeline import Turns
from novacron.migration.qemu_socket import QemuSocket
from novacron.migration.ram import RamReceiver, RamSender
from novacron.migration.shadow import shadow

SECTION_PAGES: Final = 256
FRAMES_ON_THE_WAY: Final = 4
PEER: Final = "zstd alone"


Key = tuple[str, str, int]  # what, which end, on how many cores


class WrongPagesError(VerificationError):
    """The receiver's memory is not the sender's."""

    code = "bench_wrong_pages"


class Rate(Struct, frozen=True):
    """Guest memory a second."""

    what: str
    end: str  # source, destination, or both at once in one process
    cores: int
    guest_bytes_s: float
    ratio: float  # to zstd alone on one core
    wire_share: float  # of the guest's bytes


class Taken(Struct, frozen=True):
    """One measurement."""

    seconds: float
    wire_bytes: int


@click.command("pipeline")
@click.option("--memory", type=click.IntRange(1), default=128, show_default=True, help="MiB of guest memory.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Medians count.")
@click.option("--level", type=click.IntRange(0, 19), default=1, show_default=True, help="Of compression; 0: chosen.")
@click.option("--seed", type=click.IntRange(1), default=7, show_default=True, help="Of the memory's content.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(*, memory: int, runs: int, level: int, seed: int, output: str) -> None:
    """Measure what each end does with guest memory, on one core and on two."""
    keep_freed_buffers()
    rates = _measure(memory * MIB, runs, level, seed)
    if output == "json":
        document: dict[str, Any] = {"memory_bytes": memory * MIB, "runs": runs, "level": level, "rates": rates}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    click.echo(f"{memory} MiB of guest memory, zstd level {level}, medians of {runs}")
    table(
        ["", "end", "cores", "guest memory", "x", "on the wire"],
        [
            [
                one.what,
                one.end,
                str(one.cores),
                f"{one.guest_bytes_s / 1e6:.0f} MB/s",
                f"{one.ratio:.2f}",
                f"{one.wire_share:.1%}",
            ]
            for one in rates
        ],
    )


def _measure(memory_bytes: int, runs: int, level: int, seed: int) -> list[Rate]:
    first = like_memory(memory_bytes // PAGE_BYTES, seed)
    again = dirtied(first, seed)
    rounds = {"new pages": first, "dirty again": again, "unchanged": again}
    sections = {what: list(_sections(memory)) for what, memory in rounds.items()}
    cores = sorted(os.sched_getaffinity(0))
    found: dict[Key, list[Taken]] = {}
    for _ in range(runs):
        with _on(cores[:1]):
            found.setdefault((PEER, "", 1), []).append(_peer(first, level or FIRST))
        for count in dict.fromkeys((1, min(2, len(cores)))):
            with _on(cores[:count]):
                for ends in (_one_by_one, _both):
                    for (what, end), taken in asyncio.run(_ours(rounds, sections, level, ends)).items():
                        found.setdefault((what, end, count), []).append(taken)
    return _rates(found, memory_bytes)


def _rates(found: dict[Key, list[Taken]], memory_bytes: int) -> list[Rate]:
    seconds = {key: median(taken.seconds for taken in all_taken) for key, all_taken in found.items()}
    return [
        Rate(
            what,
            end,
            cores,
            memory_bytes / seconds[what, end, cores],
            seconds[PEER, "", 1] / seconds[what, end, cores],
            all_taken[0].wire_bytes / memory_bytes,
        )
        for (what, end, cores), all_taken in found.items()
    ]


def _peer(memory: bytes, level: int) -> Taken:
    view, began = memoryview(memory), time.perf_counter()
    packed = sum(len(encode(view[at : at + MIB], level)) for at in range(0, len(memory), MIB))
    return Taken(time.perf_counter() - began, packed)


async def _ours(
    rounds: dict[str, bytes], sections: dict[str, list[bytes]], level: int, ends: "Ends"
) -> dict[tuple[str, str], Taken]:
    """Round after round of one guest."""
    size = len(next(iter(rounds.values())))
    target = mmap.mmap(-1, size)
    encoder = PageEncoder(shadow(None, size, Path(gettempdir())), bytes(KEY_BYTES), fresh=True)
    taken = {}
    for what, memory in rounds.items():
        for end, one in (await ends(sections[what], encoder, target, level)).items():
            taken[what, end] = one
        if target[:] != memory:
            raise WrongPagesError(f"after the round of {what} the receiver's memory is not the sender's")
    return taken


Ends = Callable[[Sequence[bytes], PageEncoder, mmap.mmap, int], Awaitable[dict[str, Taken]]]


async def _one_by_one(
    sections: Sequence[bytes], encoder: PageEncoder, target: mmap.mmap, level: int
) -> dict[str, Taken]:
    """The source sends all; then the destination takes it."""
    hand, began = _Hand(frames=0), time.perf_counter()
    await _send(sections, encoder, hand, level, len(target))
    sent = time.perf_counter()
    await hand.receive(target)
    taken = time.perf_counter()
    return {"source": Taken(sent - began, hand.wire_bytes), "destination": Taken(taken - sent, hand.wire_bytes)}


async def _both(sections: Sequence[bytes], encoder: PageEncoder, target: mmap.mmap, level: int) -> dict[str, Taken]:
    """Source and destination at once."""
    hand, began = _Hand(frames=FRAMES_ON_THE_WAY), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(hand.receive(target))
        await _send(sections, encoder, hand, level, len(target))
    return {"both": Taken(time.perf_counter() - began, hand.wire_bytes)}


async def _send(sections: Sequence[bytes], encoder: PageEncoder, hand: "_Hand", level: int, ram_bytes: int) -> None:
    clock = SystemClock()
    sender = RamSender(
        hand,
        encoder,
        Meter(clock),
        Turns(),
        ram_bytes=ram_bytes,
        compression=Compression(clock, level),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "qemu"
        async with QemuSocket.at(path) as qemu, asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(_feed, path, sections))
            await qemu.connected()
            await sender.run(qemu.read_into)
            await hand.end()


class _Hand:
    """A link that costs nothing: frames in order, so many of them on the way at the most (0: all)."""

    def __init__(self, frames: int) -> None:
        self._frames: asyncio.Queue[bytes | bytearray | memoryview | None] = asyncio.Queue(frames)
        self.wire_bytes = 0

    async def send(self, kind: int, body: bytes | bytearray | memoryview) -> None:
        """What is for QEMU is dropped."""
        self.wire_bytes += len(body)
        if kind == FrameType.RAM:
            await self._frames.put(body)

    async def end(self) -> None:
        await self._frames.put(None)

    async def receive(self, target: mmap.mmap) -> None:
        """What a destination does with pages; there is no QEMU behind it."""
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_unix_connection(sock=ours)
        receiver = RamReceiver(target, writer, _no_blocks)
        with theirs, closing(writer):
            while (body := await self._frames.get()) is not None:
                await receiver.pages(bytes(body))


def _feed(path: Path, sections: Sequence[bytes]) -> None:
    """In a thread, in QEMU's place."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        for section in sections:
            sock.sendall(section)


def _sections(memory: bytes) -> Iterator[bytes]:
    """QEMU's stream of one round."""
    yield stream.begin(len(memory))
    step = SECTION_PAGES * PAGE_BYTES
    for start in range(0, len(memory), step):
        numbers = range(start // PAGE_BYTES, (start + min(step, len(memory) - start)) // PAGE_BYTES)
        yield stream.pages(stream.PART, ((n, memory[n * PAGE_BYTES : (n + 1) * PAGE_BYTES]) for n in numbers))


async def _no_blocks(_: Sequence[tuple[int, int, int]]) -> bytes:
    raise AssertionError  # no page here is a disk's


@contextmanager
def _on(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process to these cores; threads of its pool that live already, too."""
    before = os.sched_getaffinity(0)
    _keep_to(set(cores))
    try:
        yield
    finally:
        _keep_to(before)


def _keep_to(cores: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)
