"""The source of a migration.

Until ``commit`` has returned the source owns the VM: whatever fails before, the caller takes the VM back
(``recovery.take_back``). From then on the destination owns it, and the source's QEMU stays paused, whatever happens.
"""

import asyncio
import mmap
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from novacron.content.digest import KEY_BYTES
from novacron.content.pages import PageEncoder
from novacron.core.clock import Clock
from novacron.core.ids import MigrationId, VmId
from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.driver import Machine, MigrationStatus
from novacron.hypervisor.spec import canonical_digest
from novacron.migration import native, postcopy
from novacron.migration.beside import beside
from novacron.migration.compression import Compression
from novacron.migration.disks import DiskSender
from novacron.migration.errors import ChannelProtocolError, HandoverPendingError, MigrationError
from novacron.migration.frames import (
    PROTOCOL_VERSION,
    Answer,
    Commit,
    Failed,
    FrameType,
    Listening,
    Offer,
    Ready,
    gave_up,
    pack,
    unpack,
)
from novacron.migration.known import RAM, TOLD, KnownContent
from novacron.migration.line import Line
from novacron.migration.meter import Meter
from novacron.migration.native import Begin
from novacron.migration.pipeline import Turns
from novacron.migration.qemu_socket import QemuSocket
from novacron.migration.qemu_watch import QemuWatch
from novacron.migration.ram import RamSender
from novacron.migration.shadow import shadow
from novacron.protocol.migration import DIRECT, MigrationPolicy, MigrationSummary, Verdict
from novacron.wire.channel import ParallelChannel

DISK_ROUND_EVERY_S: Final = 0.5
LOOK_EVERY_S: Final = 0.5  # at the latest; each round of RAM is looked at when it begins
SWITCHOVER_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 60.0
SLOWEST_DIGEST_BYTES_S: Final = 100e6  # at which a destination looks through what lies there
VERIFY_GRACE_S: Final = 50.0  # beyond the time that the guest is given
OVERHEAD_MS: Final = 60  # of a switchover beside RAM: device state, the last disk round, the destination's journal
MIN_DOWNTIME_MS: Final = 20


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What moves, and how."""

    migration_id: MigrationId
    vm_id: VmId
    epoch: int
    machine: Machine
    running: bool
    policy: MigrationPolicy
    socket: Path  # where QEMU will find the proxy
    ram_image: Path | None  # as it arrived here, unchanged: the other side may have the same
    known_state: str  # of the disks; empty: none
    scratch: Path  # a folder for what lies beside memory, and ends with the process
    shadow: mmap.mmap | None = None  # what an attempt before, which failed, took the other side's RAM for
    peer_host: str = ""  # where the other side's QEMU can be reached


class Source:
    """Moves one VM over ``channel``; ``commit`` must durably record the hand-over.

    Of a post-copy ``line`` outlives the channel once it was committed: whoever goes on with it closes it.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        channel: ParallelChannel,
        meter: Meter,
        clock: Clock,
        commit: Callable[[], Awaitable[None]],
    ) -> None:
        self._out = outgoing
        self._machine = outgoing.machine
        self._spec = outgoing.machine.spec
        self._channel = channel
        self._meter = meter
        self._clock = clock
        self._commit = commit
        self._key = secrets.token_bytes(KEY_BYTES)
        self._watch = QemuWatch(outgoing.machine, clock)
        self._answers: dict[FrameType, asyncio.Future[bytes]] = {}
        self._qemu: QemuSocket | None = None
        blocks = {number: disk.size_bytes // PAGE_BYTES for number, disk in enumerate(self._spec.disks)}
        self._known = KnownContent({RAM: self._spec.memory_bytes // PAGE_BYTES, **blocks}, self._key)
        self._turns = Turns()
        self._compression = Compression(clock, outgoing.policy.compression_level)
        self._disks = self._disk_sender("")
        strategy = outgoing.policy.strategy
        self._link = native.new_link(outgoing.policy) if strategy == "native" else None
        self._post_copy = strategy == "postcopy"
        self.line: Line | None = None
        self._leans = outgoing.shadow is not None or outgoing.ram_image is not None
        self.shadow = None  # what the other side's RAM is, as far as it went through here
        if strategy not in DIRECT:
            self.shadow = outgoing.shadow or shadow(outgoing.ram_image, self._spec.memory_bytes, outgoing.scratch)
        self.committed = False

    async def run(self) -> MigrationSummary:
        """Move it. Raises before the commit whatever went wrong, and HandoverPendingError after it."""
        try:
            async with self._machine.events() as events, beside(self._watch.run(events), self._listen()):
                encoder = await self._agree()
                await self._copy()
                async with await self._way(encoder) as begin:
                    await self._rounds(begin)
                    await self._switch_over()
                    if self._post_copy:
                        await self._hand_over()
                        return await self._see_it_whole()
                await self._hand_over()
                return await self._see_it_run()
        except Exception as error:
            if self.committed:
                raise HandoverPendingError(f"handed over, but the destination has not answered yet: {error}") from error
            raise

    async def _agree(self) -> PageEncoder | None:
        """Say what moves; the other side says what it has of it already. No encoder where QEMU sends by itself."""
        offer = Offer(
            version=PROTOCOL_VERSION,
            migration_id=self._out.migration_id,
            vm_id=self._out.vm_id,
            epoch=self._out.epoch,
            configuration=canonical_digest(self._spec),
            ram_bytes=self._spec.memory_bytes,
            key=self._key,
            running=self._out.running,
            link=self._link,
            post_copy=self._post_copy,
            disks=self._out.policy.move_disks,
        )
        await self._channel.send(FrameType.OFFER, pack(offer))
        answer = unpack(await self._expect(FrameType.ANSWER, ANSWER_TIMEOUT_S), Answer)
        self._disks = self._disk_sender(self._out.known_state if answer.disks_known else "")
        held = self._spec.memory_bytes + sum(disk.size_bytes for disk in self._spec.disks)
        within_s = ANSWER_TIMEOUT_S + held / SLOWEST_DIGEST_BYTES_S
        try:
            async with asyncio.timeout(within_s):
                return await self._learn(answer)
        except TimeoutError:
            raise MigrationError(f"what the destination holds was not found out within {within_s:.0f} s") from None

    async def _learn(self, answer: Answer) -> PageEncoder | None:
        """What the other side holds, from its digests: both sides look through what is theirs at the same time."""
        disks_move = self._out.policy.move_disks and not answer.disks_known
        if (answer.ram_held and self.shadow is None) or (answer.disks_held and not disks_move):
            raise ChannelProtocolError("the destination would tell of what is not compared")
        encoder, own = None, {}
        if self.shadow is not None:
            if self._leans and not answer.ram_held:
                self.shadow = shadow(None, self._spec.memory_bytes, self._out.scratch)
            fresh = not (self._leans and answer.ram_held)
            encoder = await asyncio.to_thread(PageEncoder, self.shadow, self._key, fresh=fresh)
            if answer.ram_held:
                own[RAM] = encoder.digests()
        if answer.disks_held:
            held = [await self._known.held(number) for number in range(len(self._spec.disks))]
            own |= enumerate(await self._disks.look_through(held))
        for disk, digests in own.items():
            for ask in await self._known.compare(disk, digests):
                await self._channel.send(FrameType.ASK, pack(ask))
        for disk in own:
            await self._adopt(disk, encoder)
        return encoder

    async def _adopt(self, disk: int, encoder: PageEncoder | None) -> None:
        digests = await self._known.of(disk)
        if disk != RAM:
            self._disks.adopt(disk, digests, await self._known.missing(disk))
        elif encoder is not None:
            encoder.adopt(digests)

    async def _copy(self) -> None:
        """The disks, while the guest goes on writing to them; then what it wrote meanwhile."""
        self._meter.phase, self._meter.streams, self._meter.share = "copy", self._channel.streams, self._channel.share
        self._meter.plan(self._spec.memory_bytes)
        throttle = self._out.policy.when_busy == "throttle"
        await self._machine.prepare_outgoing(throttle=throttle, post_copy=self._post_copy)
        await self._disks.copy()
        await self._disks.round()

    async def _way(self, encoder: PageEncoder | None) -> AbstractAsyncContextManager[Begin]:
        """Of the memory: through this process, or straight to the other side's QEMU."""
        if encoder is not None:
            return self._qemu_stream(encoder)
        if self._post_copy:
            return self._qemu_line()
        assert self._link is not None  # noqa: S101 - without an encoder there is one
        port = unpack(await self._expect(FrameType.LISTENING, ANSWER_TIMEOUT_S), Listening).port
        address = f"{self._out.peer_host}:{port}"
        return native.straight_to(address, self._link, self._machine, self._meter, self._out.policy.bandwidth_bytes_s)

    async def _rounds(self, begin: Begin) -> None:
        """QEMU sends RAM in rounds until what is left fits into the downtime, then it stops the guest; disks beside."""
        downtime_ms = max(MIN_DOWNTIME_MS, self._out.policy.max_downtime_ms - OVERHEAD_MS)
        if self._out.policy.strategy == "cold":
            await self._stand_still("as was asked for, the guest stands still while its memory moves")
        await begin(downtime_ms)
        disks_at, follows = 0.0, not self._post_copy
        while not await self._watch.reach("pre-switchover", within_s=LOOK_EVERY_S, round_after=self._meter.round):
            await self._look(downtime_ms)
            if not follows and self._watch.rounds > 1:
                await self._machine.start_post_copy()
                follows = True
            if self._clock.monotonic() >= disks_at:
                await self._disks.round()
                disks_at = self._clock.monotonic() + DISK_ROUND_EVERY_S
            if self._meter.converging is False and self._out.policy.when_busy == "stop":
                await self._stand_still("it outran the link: the guest stands still while the rest moves")

    async def _stand_still(self, why: str) -> None:
        """Hold the guest: what is left of it moves once. Whoever takes the VM back lets it run again."""
        if self._watch.stopped_at is None:
            await self._machine.pause()
            self._meter.hold(why)

    async def _look(self, downtime_ms: int) -> None:
        """Bring the figures up to date."""
        status = await self._machine.migration_status()
        self._count(status)
        self._meter.rtt_ms = self._channel.rtt_ms
        self._meter.plan(status.remaining_bytes)
        self._meter.dirty_rate_bytes_s = status.dirty_pages_s * 4096.0
        self._meter.compression_level = self._compression.level
        self._meter.throttle_percent = status.throttle_percent
        self._meter.judge(
            round_number=self._watch.rounds,
            remaining_bytes=status.remaining_bytes,
            bandwidth_bytes_s=self._meter.progress().rate_bytes_s,
            downtime_ms=downtime_ms,
        )

    def _count(self, status: MigrationStatus) -> None:
        """What went by where pages are not taken out of QEMU's stream."""
        if self.line is not None:
            postcopy.count(self._meter, status, self.line)
        elif self._link is not None:
            native.count(self._meter, status)

    async def _switch_over(self) -> None:
        """The guest is stopped: the last blocks, the last pages, the device state, until QEMU says: complete."""
        self._channel.hurry()
        self._meter.phase = "switchover"
        self._meter.round = self._watch.rounds
        self._meter.stopped_at = self._watch.stopped_at
        async with asyncio.timeout(SWITCHOVER_TIMEOUT_S):
            await self._disks.round()
            await self._channel.send(FrameType.FLUSH, b"")
            await self._disks.clean_up()
            await self._machine.continue_migration()
            ready = unpack(await self._expect(FrameType.READY, SWITCHOVER_TIMEOUT_S), Ready)
            if ready.epoch != self._out.epoch:
                raise ChannelProtocolError(f"ready at epoch {ready.epoch}, not {self._out.epoch}")
            self._meter.phase = "ready"
            await self._watch.reach("completed", "postcopy-active")

    async def _hand_over(self) -> None:
        """The point of no return: recorded, then said."""
        await self._commit()
        self.committed = True
        self._meter.phase = "committed"
        await self._channel.send(FrameType.COMMIT, pack(Commit(self._out.epoch)))

    async def _see_it_run(self) -> MigrationSummary:
        """The destination says that the guest runs, and that it lives."""
        await self._expect(FrameType.RUNNING, ANSWER_TIMEOUT_S)
        self._meter.resumed_at = self._clock.monotonic() - self._channel.rtt_ms / 2000
        self._meter.phase = "verify"
        within_s = self._out.policy.verify_within_ms / 1000 + VERIFY_GRACE_S
        verdict = unpack(await self._expect(FrameType.VERIFIED, within_s), Verdict)
        self._meter.phase = "window"
        return self.summary(verdict)

    async def _see_it_whole(self) -> MigrationSummary:
        """The guest runs over there; what it lacks follows, whichever page it waits for first."""
        await self._expect(FrameType.RUNNING, ANSWER_TIMEOUT_S)
        self._meter.resumed_at = self._clock.monotonic() - self._channel.rtt_ms / 2000
        self._meter.phase = "following"
        last_word = self._answer(FrameType.VERIFIED)
        while not last_word.done():
            status = await self._machine.migration_status()
            self._meter.plan(status.remaining_bytes)
            self._count(status)
            await asyncio.wait({last_word}, timeout=LOOK_EVERY_S)
        self._meter.phase = "window"
        return self.summary(unpack(last_word.result(), Verdict))

    async def conclude(self) -> None:
        """The guest was lost over there before it ran: nobody needs what was to follow it."""
        if self.line is not None:
            await postcopy.give_up(self._machine, self.line)

    def summary(self, verdict: Verdict) -> MigrationSummary:
        """What it came to, also when the destination's word came another way."""
        return self._meter.summary(
            guest_bytes=self._spec.memory_bytes + self._disks.in_use_bytes,
            wire_bytes=self._channel.wire_bytes_sent + (self._meter.ram.wire_bytes if self._link else 0),
            verdict=verdict,
        )

    def _disk_sender(self, known_state: str) -> DiskSender:
        return DiskSender(
            self._machine,
            self._spec.disks if self._out.policy.move_disks else (),
            self._channel,
            self._meter,
            self._turns,
            key=self._key,
            compression=self._compression,
            known_state=known_state,
        )

    @asynccontextmanager
    async def _qemu_stream(self, encoder: PageEncoder) -> AsyncIterator[Begin]:
        """The socket that the source's QEMU sends to. When one side of the proxy ends by an error, both do."""
        encoder.look_into(self._disks.encoders)
        sender = RamSender(
            self._channel,
            encoder,
            self._meter,
            self._turns,
            ram_bytes=self._spec.memory_bytes,
            compression=self._compression,
        )
        async with QemuSocket.at(self._out.socket) as qemu:

            async def send() -> None:
                await qemu.connected()
                self._qemu = qemu
                await sender.run(qemu.read_into)

            async with beside(send()):
                yield lambda downtime_ms: self._machine.migrate(self._out.socket, downtime_ms=downtime_ms)

    @asynccontextmanager
    async def _qemu_line(self) -> AsyncIterator[Begin]:
        """QEMU's connection to the other side's. Its end closes it, unless the guest has gone ahead of its memory.

        QEMU is told first to give up: one that has sent all of it, and then loses its connection, listens no more.
        """
        line = self.line = Line.at(self._out.socket, self._key, self._clock)

        async def begin(downtime_ms: int) -> None:
            await self._machine.migrate(self._out.socket, downtime_ms=downtime_ms)

        async def carry() -> None:
            await line.open()
            await line.carry(self._channel, lambda: self._channel.rtt_ms)

        try:
            async with beside(carry()):
                yield begin
        except BaseException:
            if not self.committed:
                await postcopy.give_up(self._machine, line)
                await line.close()
            raise
        await line.close()

    async def _listen(self) -> None:
        """Frames of the destination, up to its last word: bytes for QEMU, and answers to whoever waits for them."""
        kind = 0
        while kind != FrameType.VERIFIED:  # after which the destination closes
            kind, body = await self._channel.receive()
            if kind == FrameType.RETURN:
                if self._qemu is None:
                    raise ChannelProtocolError("bytes for a QEMU that sends nothing yet")
                await self._qemu.write(body)
            elif kind in postcopy.LINE_FRAMES and self.line is not None:
                await self.line.heard(kind, body)
            elif kind in TOLD:
                self._known.heard(kind, body)
            elif kind == FrameType.FAILED:
                raise gave_up(unpack(body, Failed))
            elif kind in FrameType.__members__.values():
                answer = self._answer(FrameType(kind))
                if answer.done():
                    raise ChannelProtocolError(f"a frame {FrameType(kind).name} came twice")
                answer.set_result(bytes(body))
            else:
                raise ChannelProtocolError(f"a frame of unknown type {kind}")

    def _answer(self, kind: FrameType) -> asyncio.Future[bytes]:
        if kind not in self._answers:
            self._answers[kind] = asyncio.get_running_loop().create_future()
        return self._answers[kind]

    async def _expect(self, kind: FrameType, timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._answer(kind))
        except TimeoutError:
            raise MigrationError(f"the destination did not say {kind.name} within {timeout_s:.0f} s") from None
