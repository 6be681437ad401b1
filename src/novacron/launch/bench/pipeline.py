"""``novacron bench pipeline``: what both ends of a migration do with guest memory, without QEMU and without a link.

QEMU's stream comes from memory, frames go from the sender to the receiver by hand, pages end in the receiver's RAM,
which is compared. The peer is zstd alone, at the same level, over the same bytes in one thread: what compressing costs
a program that does nothing else.
"""

import asyncio
import mmap
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from novacron.cli.output import table
from novacron.content.codec import encode
from novacron.content.digest import KEY_BYTES
from novacron.content.pages import PageEncoder
from novacron.core.clock import SystemClock
from novacron.core.errors import VerificationError
from novacron.core.units import MIB, PAGE_BYTES
from novacron.hypervisor.memory import stream
from novacron.launch.bench.memory import dirtied, like_memory
from novacron.migration.compression import Compression
from novacron.migration.frames import FrameType
from novacron.migration.meter import Meter
from novacron.migration.pipeline import Turns
from novacron.migration.ram import RamReceiver, RamSender

SECTION_PAGES: Final = 256
FRAMES_ON_THE_WAY: Final = 4
PEER: Final = "zstd alone"


class WrongPagesError(VerificationError):
    """The receiver's memory is not the sender's."""

    code = "bench_wrong_pages"


class Rate(Struct, frozen=True):
    """Guest memory a second; of ours both ends together, in one process."""

    what: str
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
@click.option("--level", type=click.IntRange(1, 19), default=1, show_default=True, help="Of compression.")
@click.option("--seed", type=click.IntRange(1), default=7, show_default=True, help="Of the memory's content.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(*, memory: int, runs: int, level: int, seed: int, output: str) -> None:
    """Measure what both ends do with guest memory, on one core and on two."""
    rates = _measure(memory * MIB, runs, level, seed)
    if output == "json":
        document: dict[str, Any] = {"memory_bytes": memory * MIB, "runs": runs, "level": level, "rates": rates}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    click.echo(f"{memory} MiB of guest memory, zstd level {level}, medians of {runs}; both ends together")
    table(
        ["", "cores", "guest memory", "x", "on the wire"],
        [
            [
                one.what,
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
    found: dict[tuple[str, int], list[Taken]] = {}
    for _ in range(runs):
        with _on(cores[:1]):
            found.setdefault((PEER, 1), []).append(_peer(first, level))
        for count in dict.fromkeys((1, min(2, len(cores)))):
            with _on(cores[:count]):
                for what, taken in asyncio.run(_ours(rounds, sections, level)).items():
                    found.setdefault((what, count), []).append(taken)
    return _rates(found, memory_bytes)


def _rates(found: dict[tuple[str, int], list[Taken]], memory_bytes: int) -> list[Rate]:
    seconds = {key: median(taken.seconds for taken in all_taken) for key, all_taken in found.items()}
    return [
        Rate(
            what,
            cores,
            memory_bytes / seconds[what, cores],
            seconds[PEER, 1] / seconds[what, cores],
            all_taken[0].wire_bytes / memory_bytes,
        )
        for (what, cores), all_taken in found.items()
    ]


def _peer(memory: bytes, level: int) -> Taken:
    view, began = memoryview(memory), time.perf_counter()
    packed = sum(len(encode(view[at : at + MIB], level)) for at in range(0, len(memory), MIB))
    return Taken(time.perf_counter() - began, packed)


async def _ours(rounds: dict[str, bytes], sections: dict[str, list[bytes]], level: int) -> dict[str, Taken]:
    """Round after round of one guest."""
    size = len(next(iter(rounds.values())))
    target, shadow = mmap.mmap(-1, size), mmap.mmap(-1, size)
    encoder = PageEncoder(shadow, bytes(KEY_BYTES))
    taken = {}
    for what, memory in rounds.items():
        taken[what] = await _round(sections[what], encoder, target, level)
        if target[:] != memory:
            raise WrongPagesError(f"after the round of {what} the receiver's memory is not the sender's")
    return taken


async def _round(sections: Sequence[bytes], encoder: PageEncoder, target: mmap.mmap, level: int) -> Taken:
    ours, qemus = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MIB)
    hand = _Hand(RamReceiver(target, writer, _no_blocks))
    clock = SystemClock()
    compression = Compression(clock, level)
    sender = RamSender(hand, encoder, Meter(clock), Turns(), ram_bytes=len(target), compression=compression)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(_feed, qemus, sections))
        group.create_task(hand.receive())
        await sender.run(reader)
        await hand.end()
    seconds = time.perf_counter() - began
    writer.close()
    return Taken(seconds, hand.wire_bytes)


class _Hand:
    """A link that costs nothing: frames in order, a few of them on the way."""

    def __init__(self, receiver: RamReceiver) -> None:
        self._receiver = receiver
        self._frames: asyncio.Queue[bytes | bytearray | memoryview | None] = asyncio.Queue(FRAMES_ON_THE_WAY)
        self.wire_bytes = 0

    async def send(self, kind: int, body: bytes | bytearray | memoryview) -> None:
        """What is for QEMU is dropped."""
        self.wire_bytes += len(body)
        if kind == FrameType.RAM:
            await self._frames.put(body)

    async def end(self) -> None:
        await self._frames.put(None)

    async def receive(self) -> None:
        while (body := await self._frames.get()) is not None:
            await self._receiver.pages(bytes(body))


def _feed(sock: socket.socket, sections: Sequence[bytes]) -> None:
    """In a thread, in QEMU's place."""
    with sock:
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
