"""The destination of a migration.

It may run the VM only after the source's commit: until then its QEMU stays paused. From ``ready`` on it may not give up
by itself: when the channel breaks then, the caller asks the source what became of it.
"""

import asyncio
import mmap
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from novacron.content.pages import PageEncoder
from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError
from novacron.core.ids import MigrationId, VmId
from novacron.hypervisor.driver import DirectLink, Machine, MachineEvent, MachineState
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION
from novacron.hypervisor.spec import canonical_digest
from novacron.migration.announce import announce
from novacron.migration.beside import beside
from novacron.migration.disks import DiskReceiver, since
from novacron.migration.errors import (
    ChannelProtocolError,
    ConfigurationDiffersError,
    QemuFailedError,
    StaleEpochError,
)
from novacron.migration.frames import (
    PROTOCOL_VERSION,
    Answer,
    Commit,
    Failed,
    FrameType,
    Link,
    Listening,
    Marks,
    Offer,
    Ready,
    Running,
    pack,
    unpack,
)
from novacron.migration.known import RAM, HeldContent, digests_of_disk, held_groups
from novacron.migration.line import Line
from novacron.migration.native import loaded
from novacron.migration.postcopy import all_here, can_run, hear
from novacron.migration.ram import RamReceiver
from novacron.protocol.migration import Verdict
from novacron.wire.channel import ParallelChannel

LOAD_TIMEOUT_S: Final = 30.0
SAVE_TIMEOUT_S: Final = 5.0
CHECKPOINT_EVERY_S: Final = 20.0
WRITE_BACK_EVERY_S: Final = 1.0
log = structlog.get_logger()
_MESSAGE: Final = struct.Struct(">HH")  # of QEMU's return path: type, length of what follows
_SHUT: Final = 1
_MAX_RETURN_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Incoming:
    """What is expected, and what is here of it already."""

    migration_id: MigrationId
    vm_id: VmId
    epoch: int
    machine: Machine
    socket: Path  # where its QEMU listens for the stream
    old_image: Path | None  # a RAM image of this VM from an earlier stay
    disks_known: bool  # the machine's disks lie over those of an earlier stay
    disks_filled: bool = False  # they hold something else: what it is, is told by digests
    direct: bool = False  # its QEMU writes the memory itself
    post_copy: bool = False  # a part of the memory follows the guest
    host: str = "127.0.0.1"  # where it then waits for the source's
    ports: tuple[int, int] = (49152, 49215)  # the first and the last that it may


class Destination:
    """Receives one VM. ``ready`` and ``run`` must durably record what they are named for, before they return.

    ``checkpoint`` makes pieces of RAM durable (of ``PIECE_BYTES``, by number), as content for another attempt.
    ``verify`` looks at the guest once it runs, and its memory is whole. Of a post-copy ``line`` outlives the channel
    once the guest runs, and whoever goes on with it closes it; ``whole`` must record that all memory has come.
    """

    def __init__(
        self,
        incoming: Incoming,
        channel: ParallelChannel,
        clock: Clock,
        *,
        ready: Callable[[], Awaitable[None]],
        run: Callable[[int], Awaitable[None]],
        checkpoint: Callable[[mmap.mmap, set[int]], Awaitable[None]],
        verify: Callable[[], Awaitable[Verdict]],
        whole: Callable[[], Awaitable[None]],
    ) -> None:
        self._in = incoming
        self._machine = incoming.machine
        self._spec = incoming.machine.spec
        self._channel = channel
        self._clock = clock
        self._ready = ready
        self._run = run
        self._checkpoint = checkpoint
        self._verify = verify
        self._whole = whole
        self.line: Line | None = None
        self._owned = False
        self._clients = AsyncExitStack()  # of its disks
        self._flushing: asyncio.Task[None] | None = None
        self._flush_asked = asyncio.Event()
        self._is_ready = False
        self._disks_free = asyncio.Event()

    async def run(self) -> None:
        """Receive until the guest runs and was looked at; raises what went wrong.

        Before ``ready`` the source is told why; after it, nothing is given up here.
        """
        try:
            offer = await self._agree()
            async with self._line(offer), AsyncExitStack() as following:
                async with (
                    self._parts(offer) as (ram, disks),
                    beside(self._checkpoints(ram, disks), self._write_back(disks)),
                ):
                    await self._receive(ram, disks)
                    if self.line is not None:  # it may need a page at once
                        await following.enter_async_context(beside(hear(self._channel, self.line)))
                    await self._resume(offer)
                looking = asyncio.ensure_future(self._verify())
                following.callback(looking.cancel)
                if self.line is not None:
                    await all_here(self._machine, self.line, self._clock)
                    await self._whole()
                await self._channel.send(FrameType.VERIFIED, pack(await looking))
        except NovaCronError as error:
            if not self._is_ready:
                await self._tell(error)
            raise

    async def _agree(self) -> Offer:
        """See that both sides would run the same machine; bring in what is here of its RAM, and tell what is here."""
        offer = await self._expected_offer()
        old = None if self._in.direct else self._in.old_image
        answer = Answer(
            ram_held=old is not None and old.exists() and old.stat().st_size == offer.ram_bytes,
            disks_known=self._in.disks_known,
            disks_held=offer.disks and self._in.disks_filled and not self._in.disks_known,
        )
        await self._channel.send(FrameType.ANSWER, pack(answer))
        held = HeldContent(offer.key)
        async with self._held_disks(answer) as disks:
            for number, disk in enumerate(disks):
                for marks in await held_groups(number, disk):
                    await self._channel.send(FrameType.HELD, pack(marks))
            if answer.ram_held:
                assert old is not None  # noqa: S101 - it is held
                await self._tell_groups(held, RAM, await asyncio.to_thread(self._bring_in, old, offer.key))
            for number, disk in enumerate(disks):
                await self._tell_groups(held, number, await digests_of_disk(disk, offer.key))
        while held.is_asked:
            kind, body = await self._channel.receive()
            if kind != FrameType.ASK:
                raise ChannelProtocolError("the source does not ask for what it was told of")
            for part in held.asked(unpack(body, Marks)):
                await self._channel.send(FrameType.KNOWN, pack(part))
        return offer

    async def _expected_offer(self) -> Offer:
        kind, body = await self._channel.receive()
        if kind != FrameType.OFFER:
            raise ChannelProtocolError("the source does not begin with its offer")
        offer = unpack(body, Offer)
        if offer.version != PROTOCOL_VERSION:
            raise ChannelProtocolError(f"the source speaks version {offer.version}, this node {PROTOCOL_VERSION}")
        if (offer.migration_id, offer.vm_id, offer.epoch) != (self._in.migration_id, self._in.vm_id, self._in.epoch):
            raise StaleEpochError(f"an offer of epoch {offer.epoch}, where epoch {self._in.epoch} was prepared")
        if offer.configuration != canonical_digest(self._spec) or offer.ram_bytes != self._spec.memory_bytes:
            raise ConfigurationDiffersError(f"the two sides would not run the same machine for VM {self._in.vm_id}")
        ways = (offer.link is not None or offer.post_copy, offer.post_copy)
        if ways != (self._in.direct, self._in.post_copy):
            raise ChannelProtocolError("the source sends the memory another way than was prepared for")
        return offer

    def _bring_in(self, old: Path, key: bytes) -> bytes:
        """Fill the RAM file from the old image; the digests of its pages."""
        with closing(_mapped(self._machine.ram_path)) as ram:
            _copy_filled(old, ram)
            return PageEncoder(ram, key).digests()  # which lets go of the mapping

    @asynccontextmanager
    async def _held_disks(self, answer: Answer) -> AsyncIterator[list[NbdClient]]:
        if not answer.disks_held:
            yield []
            return
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(NbdClient.connect(export, contexts=[ALLOCATION]))
                for export in await self._machine.export_readable([disk.id for disk in self._spec.disks])
            ]
        await self._machine.end_exports()

    async def _tell_groups(self, held: HeldContent, disk: int, digests: bytes) -> None:
        for part in held.groups(disk, digests):
            await self._channel.send(FrameType.GROUPS, pack(part))

    @asynccontextmanager
    async def _parts(self, offer: Offer) -> AsyncIterator[tuple[RamReceiver | None, DiskReceiver]]:
        """The memory's way into QEMU, and connections to its disks. QEMU itself may receive the memory."""
        async with AsyncExitStack() as stack:
            names = [disk.id for disk in self._spec.disks]
            exports = await self._machine.export_writable(names) if names else []
            await stack.enter_async_context(self._clients)
            clients = [await self._clients.enter_async_context(NbdClient.connect(export)) for export in exports]
            disks = DiskReceiver(self._spec.disks, clients)
            if self.line is not None:
                ram = None
                await stack.enter_async_context(beside(self._see_that_it_can_run()))
            elif offer.link is None:
                ram = await stack.enter_async_context(self._through_the_file(disks))
            else:
                ram = None
                await stack.enter_async_context(self._by_itself(offer.link))
            try:
                yield ram, disks
            except BaseException:
                await self._save(disks)
                raise

    @asynccontextmanager
    async def _through_the_file(self, disks: DiskReceiver) -> AsyncIterator[RamReceiver]:
        """The memory as a file, QEMU's incoming socket for all else, and its return path."""
        await self._machine.listen_incoming(self._in.socket)
        reader, writer = await asyncio.open_unix_connection(self._in.socket)
        try:
            with closing(_mapped(self._machine.ram_path)) as ram:
                async with beside(self._return_path(reader)):
                    yield RamReceiver(ram, writer, disks.read)
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def _line(self, offer: Offer) -> AsyncIterator[None]:
        """Of a post-copy: the source's QEMU's connection to this one. Its end closes it, unless the guest runs."""
        if not offer.post_copy:
            yield
            return
        async with self._machine.events() as self._events:
            await self._machine.listen_incoming(self._in.socket, post_copy=True)
            line = self.line = Line.to(self._in.socket, offer.key, self._clock)
            try:
                await line.open()
                async with beside(line.carry(self._channel, lambda: self._channel.rtt_ms)):
                    yield
            finally:
                if not self._owned:
                    await line.close()

    async def _see_that_it_can_run(self) -> None:
        await can_run(self._machine, self._events, self._clock)
        await self._become_ready()
        await self._let_go()

    @asynccontextmanager
    async def _by_itself(self, link: Link) -> AsyncIterator[None]:
        """QEMU waits for the source's; that it has everything, it says by itself."""
        async with self._machine.events() as events:
            direct = DirectLink(link.key, link.channels)
            port = await self._machine.listen_direct(direct, self._in.host, self._in.ports)
            try:
                await self._channel.send(FrameType.LISTENING, pack(Listening(port)))
                async with beside(self._see_it_loaded(events)):
                    yield
            except BaseException:
                if not self._is_ready:
                    await self._machine.kill()  # it may hang in a silent connection, and is of no use any more
                raise
            await self._machine.end_direct()

    async def _see_it_loaded(self, events: AsyncIterator[MachineEvent]) -> None:
        await loaded(self._machine, events)
        await self._become_ready()
        await self._let_go()

    async def _save(self, disks: DiskReceiver) -> None:
        """What has come of the disks lies in their files, also when QEMU ends by itself: another attempt goes on there.

        Best effort: without it the blocks are sent again.
        """
        if self._is_ready:
            return  # they do already
        try:
            async with asyncio.timeout(SAVE_TIMEOUT_S):
                await disks.flush()
        except (NovaCronError, TimeoutError) as error:
            log.info("disks_not_saved", migration=self._in.migration_id, cause=str(error))

    async def _checkpoints(self, ram: RamReceiver | None, disks: DiskReceiver) -> None:
        """By intervals what has come is made durable: it survives the loss of this host's memory, too.

        Not once the guest stands still: it would wait for that.
        """
        while True:
            await self._clock.sleep(CHECKPOINT_EVERY_S)
            if self._flushing is not None:
                return
            try:
                await disks.flush()
                if ram is not None:
                    await self._checkpoint(ram.ram, ram.take_touched())
            except (NovaCronError, OSError) as error:
                log.warning("no_checkpoint", migration=self._in.migration_id, cause=str(error))

    async def _write_back(self, disks: DiskReceiver) -> None:
        """Little is left to be made durable when the guest stands still and waits for it."""
        while self._flushing is None:
            await disks.write_back()
            await self._clock.sleep(WRITE_BACK_EVERY_S)

    async def _receive(self, ram: RamReceiver | None, disks: DiskReceiver) -> None:
        """Frames in their order, until the source says that the VM is handed over."""
        while True:
            kind, body = await self._channel.receive()
            match kind:
                case FrameType.RAM if ram is not None:
                    await ram.pages(body)
                case FrameType.DISK:
                    await disks.blocks(body)
                case FrameType.RELAY if ram is not None:
                    await ram.relay(body)
                case FrameType.LINE | FrameType.TAKEN if self.line is not None:
                    await self.line.heard(kind, body)
                case FrameType.FLUSH:
                    self._flushing = asyncio.create_task(disks.flush())
                    self._flush_asked.set()
                case FrameType.COMMIT if self._is_ready:
                    if unpack(body, Commit).epoch != self._in.epoch:
                        raise StaleEpochError("a commit of another attempt")
                    return
                case FrameType.FAILED:
                    raise QemuFailedError(f"the source gave up: {unpack(body, Failed).cause}")
                case _:
                    raise ChannelProtocolError(f"a frame of type {kind} does not come now")

    async def _return_path(self, reader: asyncio.StreamReader) -> None:
        """What the destination's QEMU says to the source's. Its last word waits until all is durable here."""
        while True:
            try:
                head = await reader.readexactly(_MESSAGE.size)
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # QEMU closes when it has loaded everything, or dies: the machine's state tells which
            kind, length = _MESSAGE.unpack(head)
            if length > _MAX_RETURN_BYTES:
                raise QemuFailedError(f"this node's QEMU answers {length} bytes")
            body = await reader.readexactly(length)
            if kind == _SHUT:
                if int.from_bytes(body, "big"):
                    raise QemuFailedError(f"this node's QEMU could not load: {await self._machine.last_words()}")
                await self._become_ready()
            await self._channel.send(FrameType.RETURN, head + body)
            if kind == _SHUT:
                await self._let_go()

    async def _become_ready(self) -> None:
        """All is here: make it durable, begin to mark what the guest will write, record it, say it."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await self._flush_asked.wait()
        except TimeoutError:
            raise ChannelProtocolError("the source's memory is complete, its disks are not") from None
        assert self._flushing is not None  # noqa: S101 - it was asked for
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            await self._flushing
        names = [disk.id for disk in self._spec.disks]
        await self._machine.start_tracking(names, since(self._in.migration_id), persistent=True)
        await self._ready()
        self._is_ready = True
        load_ms = (self._clock.monotonic() - began) * 1000
        await self._channel.send(FrameType.READY, pack(Ready(self._in.epoch, load_ms)))

    async def _let_go(self) -> None:
        """Nothing is written to the disks any more. The source's commit is on its way meanwhile."""
        await self._clients.aclose()
        await self._machine.end_exports()
        self._disks_free.set()

    async def _resume(self, offer: Offer) -> None:
        """It is ours: record it, let it run, say it."""
        began = self._clock.monotonic()
        await self._disks_free.wait()
        self._owned = True
        await take_possession(self._machine, running=offer.running, record=lambda: self._run(offer.epoch))
        resume_ms = (self._clock.monotonic() - began) * 1000
        await self._channel.send(FrameType.RUNNING, pack(Running(offer.epoch, resume_ms)))

    async def _tell(self, error: NovaCronError) -> None:
        """Best effort: the source finds out by itself, too."""
        try:
            async with asyncio.timeout(1.0):
                await self._channel.send(FrameType.FAILED, pack(Failed(error.code, error.cause[:4096])))
        except (NovaCronError, TimeoutError):
            return


async def take_possession(machine: Machine, *, running: bool, record: Callable[[], Awaitable[None]]) -> None:
    """Close the exports, record the ownership, let the guest run. May be repeated, also by another process."""
    await machine.end_exports()
    await record()
    if running:
        if await machine.state() is not MachineState.RUNNING:
            await machine.resume()
        await announce(machine)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def _copy_filled(source: Path, ram: mmap.mmap) -> None:
    """Copy what is not zero: the rest of the RAM file stays a hole."""
    step = 1 << 20
    zeros = bytes(step)
    with source.open("rb") as file:
        at = 0
        while piece := file.read(step):
            if piece != zeros[: len(piece)]:
                ram[at : at + len(piece)] = piece
            at += len(piece)
