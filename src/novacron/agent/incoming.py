"""Migrations that come to this node.

Until the source has committed, what came in is never run. From ``ready`` on it is not given up either, until the source
has said what became of the attempt, or its own QEMU died.
"""

import asyncio
import mmap
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from novacron.agent import donors
from novacron.agent.arrivals import Arrivals
from novacron.agent.events import Events
from novacron.agent.following import Rests
from novacron.agent.hooks import Hooks
from novacron.agent.journal import Facts, Journal
from novacron.agent.possession import Possession, Transition
from novacron.agent.ram_images import RamImages
from novacron.agent.vms import Vms
from novacron.core.clock import Clock
from novacron.core.errors import RemoteError
from novacron.core.ids import MigrationId, VmId
from novacron.hypervisor.driver import Driver, Machine
from novacron.hypervisor.errors import QemuDiedError, VmStateError
from novacron.migration import handover
from novacron.migration.destination import Destination, Incoming
from novacron.migration.errors import JournalError, StaleEpochError
from novacron.migration.frames import FrameType, pack
from novacron.migration.handover import Attempt, Claim, Ownership, Role, State
from novacron.migration.line import Line
from novacron.protocol.migration import (
    HandoverAnswer,
    HandoverQuestion,
    IncomingOrder,
    IncomingReady,
    MigrationRef,
    MigrationReport,
)
from novacron.protocol.node import NodeEvent, Nothing
from novacron.wire.channel import ParallelChannel
from novacron.wire.client import Client
from novacron.wire.credentials import Credentials
from novacron.wire.errors import WireError
from novacron.wire.identity import SpiffeId

ASK_EVERY_S: Final = 1.0
VERDICT_S: Final = 10.0  # an answer waits at most so long for one: a caller asks again
log = structlog.get_logger()


@dataclass(slots=True)
class _Session:
    """A source's channel, and when all that follows its end has been done."""

    channel: ParallelChannel
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class IncomingMigrations:
    """What a controller and a source may ask of migrations that come."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        vms: Vms,
        events: Events,
        credentials: Credentials,
        clock: Clock,
        ram_images: RamImages,
        arrivals: Arrivals,
        hooks: Hooks,
        ports: tuple[int, int],
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._events = events
        self._ram_images = ram_images
        self._arrivals = arrivals
        self._hooks = hooks
        self._credentials = credentials
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._receiving: dict[MigrationId, _Session] = {}  # those whose channel is open
        self._possession = Possession(driver=driver, journal=journal, vms=vms, arrivals=arrivals)
        self._rests = Rests(driver, clock)
        self._resolving: dict[MigrationId, asyncio.Lock] = {}
        self._ports = ports  # at which a QEMU may wait for the source's, and the host's address for that
        self.address = self.host = ""

    async def close(self) -> None:
        """Stop asking; it goes on when the node starts again."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._rests.close()

    async def recover(self) -> None:
        """After a start: drop what was not ready, ask about what was, let run what had been recorded to run."""
        for attempt in self._journal.attempts():
            if attempt.role is not Role.DESTINATION:
                continue
            if attempt.state in {State.PREPARED, State.LOST}:
                await self._lose(attempt)  # also when it was lost before: its QEMU may still be there
            elif attempt.state is State.READY:
                self._after(self._watch_over(attempt))
            elif handover.is_following(attempt):
                self._after(self._possession.let_follow(attempt))
            elif attempt.state in {State.RUNNING, State.TAKEN_OVER}:
                await self._possession.let_run(attempt)

    async def prepare(self, _peer: SpiffeId, order: IncomingOrder) -> IncomingReady:
        """Start a QEMU that waits for the VM; the same answer when asked again."""
        self._arrivals.check(order.check)
        await self._supersede(order)
        async with self._vms.lock(order.vm_id):
            if self._journal.find_attempt(order.migration_id) is None:
                await self._begin(order)
        attempt = self._journal.attempt(order.migration_id)
        if attempt.state is not State.PREPARED:
            raise JournalError(f"migration {order.migration_id} is {attempt.state} here")
        return IncomingReady(order.migration_id, self.address, str(self._credentials.identity))

    async def _supersede(self, order: IncomingOrder) -> None:
        """Its source has given every earlier attempt up, also where that was not heard here: a link can die silently.

        What came of it is kept for the attempt that begins.
        """
        for older in self._journal.attempts():
            if older.vm_id != order.vm_id or older.state is not State.PREPARED or older.epoch >= order.epoch:
                continue
            session = self._receiving.get(older.migration_id)
            if session is not None:
                session.channel.abort()
                await session.ended.wait()
            else:
                await self._lose(older)

    async def _begin(self, order: IncomingOrder) -> None:
        wanted = Attempt(
            order.migration_id,
            order.vm_id,
            Role.DESTINATION,
            order.epoch,
            State.PREPARED,
            peer_node=order.source_node,
            peer_address=order.source_address,
            check=order.check,
        )
        handover.prepare(self._journal.find_claim(order.vm_id), wanted)  # refused before anything is made
        try:
            await self._hooks.arriving(wanted, order.spec)
            await self._make_ready(order, wanted)
        except BaseException:
            self._hooks.begin("left", wanted)
            raise

    async def _make_ready(self, order: IncomingOrder, wanted: Attempt) -> None:
        facts = self._journal.facts(order.vm_id)
        known = bool(order.known_state) and facts.cache_state == order.known_state
        filled = known or self._driver.has_disks(order.vm_id, order.spec)
        donor = None if filled else donors.find_donor(self._driver, order.vm_id, order.spec)
        ram = self._driver.ram_file(order.vm_id, order.migration_id)
        await self._driver.reserve_ram(ram, order.spec.memory_bytes)
        try:
            machine = await self._driver.prepare_incoming(
                order.vm_id, order.spec, ram_path=ram, overlay=filled, donor=donor, shared=order.direct
            )
        except BaseException:
            ram.unlink(missing_ok=True)
            raise
        power = "running" if order.running else "paused"
        wanted = msgspec.structs.replace(
            wanted,
            instance=machine.instance,
            disks_known=known,
            disks_filled=filled or donor is not None,
            donor=donor or "",
            direct=order.direct,
            post_copy=order.post_copy,
            power=power,
        )

        def decide() -> tuple[Claim, Attempt, Facts]:
            return *handover.prepare(self._journal.find_claim(order.vm_id), wanted), self._journal.facts(order.vm_id)

        try:
            await self._journal.change(decide)
        except BaseException:
            await self._driver.end_incoming(order.vm_id, machine.instance, keep_disks=False)
            ram.unlink(missing_ok=True)
            raise
        self._after(self._watch_over(wanted))

    async def abandon(self, _peer: SpiffeId, ref: MigrationRef) -> Nothing:
        """Drop a prepared attempt; refused once it is ready. Harmless when it is not here."""
        attempt = self._journal.find_attempt(ref.migration_id)
        if attempt is None or attempt.state is State.LOST:
            return Nothing()
        if attempt.state is not State.PREPARED:
            raise JournalError(f"migration {ref.migration_id} is {attempt.state}: only its source can end it")
        await self._lose(attempt)
        return Nothing()

    async def receive(self, peer: SpiffeId, session: str, channel: ParallelChannel) -> None:
        """A source's data channel has arrived."""
        attempt = self._journal.attempt(MigrationId(session))
        if attempt.peer_node == str(peer) and attempt.post_copy and attempt.state is State.RUNNING:
            await self._receive_rest(attempt, channel)
            return
        if attempt.peer_node != str(peer) or attempt.state is not State.PREPARED:
            raise StaleEpochError(f"{peer} sends for migration {session}, which is {attempt.state} here")
        machine = await self._possession.machine(attempt)
        if machine is None:
            await self._lose(attempt)
            raise StaleEpochError(f"what was prepared for migration {session} has gone")
        incoming = Incoming(
            migration_id=attempt.migration_id,
            vm_id=attempt.vm_id,
            epoch=attempt.epoch,
            machine=machine,
            socket=self._driver.socket_dir(machine) / "in",
            old_image=self._old_image(attempt, machine),
            disks_known=attempt.disks_known,
            disks_filled=attempt.disks_filled,
            direct=attempt.direct,
            post_copy=attempt.post_copy,
            host=self.host,
            ports=self._ports,
        )
        destination = Destination(
            incoming,
            channel,
            self._clock,
            ready=lambda: self._ready(attempt),
            run=lambda epoch: self._possession.record(
                attempt, machine, lambda claim, now: handover.run(claim, now, epoch)
            ),
            checkpoint=lambda ram, pieces: self._checkpoint(attempt.vm_id, ram, pieces),
            verify=lambda: self._arrivals.verdict(attempt),
            whole=lambda: self._whole(attempt),
        )
        receiving = self._receiving[attempt.migration_id] = _Session(channel)
        try:
            await destination.run()
            await self._possession.drop_image(attempt.vm_id)
            await self._vms.publish(attempt.vm_id)
        except BaseException:
            if handover.is_following(self._journal.attempt(attempt.migration_id)):
                self._after(self._possession.let_follow(self._journal.attempt(attempt.migration_id)))
            else:
                await asyncio.shield(self._broke(attempt.migration_id))
            raise
        finally:
            await self._keep_line(attempt, machine, destination.line)
            del self._receiving[attempt.migration_id]
            receiving.ended.set()

    async def _receive_rest(self, attempt: Attempt, channel: ParallelChannel) -> None:
        """The guest runs here; the channel over which its memory followed broke."""
        if (session := self._receiving.get(attempt.migration_id)) is not None:
            session.channel.abort()
            await session.ended.wait()
        try:
            machine = await self._possession.machine(attempt)
        except QemuDiedError as error:  # it waits for a page, and has nobody left whom it could ask
            log.warning("hung_qemu_ended", vm=attempt.vm_id, migration=attempt.migration_id, cause=error.cause)
            await self._driver.kill(attempt.vm_id, attempt.instance)
            machine = None
        await self._rests.receive(attempt, machine, channel)
        await self._whole(attempt)
        await channel.send(FrameType.VERIFIED, pack(await self._arrivals.verdict(attempt)))

    async def _keep_line(self, attempt: Attempt, machine: Machine, line: Line | None) -> None:
        """What a broken channel leaves of the QEMUs' connection goes on over the next one."""
        now = self._journal.attempt(attempt.migration_id)
        if line is None:
            return
        if handover.is_following(now):
            self._rests.keep(attempt, machine, line)
        else:
            await line.close()

    async def _whole(self, attempt: Attempt) -> None:
        def decide() -> tuple[None, Attempt, None]:
            return None, handover.complete(self._journal.attempt(attempt.migration_id)), None

        await self._journal.change(decide)

    def _old_image(self, attempt: Attempt, machine: Machine) -> Path | None:
        """RAM that is like what comes: of an earlier stay, of an attempt that broke off, of a VM of the same image."""
        if cached := self._journal.facts(attempt.vm_id).cache_image:
            return Path(cached)
        if not attempt.donor:
            return None
        return donors.ram_image(self._driver, self._journal, VmId(attempt.donor), machine.spec)

    async def commit(self, peer: SpiffeId, question: HandoverQuestion) -> HandoverAnswer:
        """The source says, again, that it handed over."""
        attempt = self._journal.attempt(question.migration_id)
        if attempt.peer_node != str(peer):
            raise StaleEpochError(f"{peer} is not the source of migration {question.migration_id}")
        async with self._resolving.setdefault(attempt.migration_id, asyncio.Lock()):
            attempt = self._journal.attempt(question.migration_id)
            if attempt.state is State.READY:
                await self._possess(attempt, lambda claim, now: handover.run(claim, now, question.epoch))
        word = self._word(question.migration_id)
        if word != "running":
            return HandoverAnswer(word, self._journal.claim(attempt.vm_id).burned)
        attempt = self._journal.attempt(question.migration_id)
        if handover.is_following(attempt):
            return HandoverAnswer("following", attempt.epoch)
        try:
            async with asyncio.timeout(VERDICT_S):
                return HandoverAnswer(word, attempt.epoch, await self._arrivals.verdict(attempt))
        except TimeoutError:
            return HandoverAnswer("verifying", attempt.epoch)

    async def report(self, migration_id: MigrationId) -> MigrationReport:
        """This node's word on it."""
        attempt = self._journal.attempt(migration_id)
        report = MigrationReport(migration_id, attempt.vm_id, attempt.epoch, "destination", str(attempt.state))
        return msgspec.structs.replace(report, notes=self._hooks.notes(migration_id))

    async def _ready(self, attempt: Attempt) -> None:
        await self._journal.change(
            lambda: (
                None,
                handover.ready(self._journal.claim(attempt.vm_id), self._journal.attempt(attempt.migration_id)),
                None,
            )
        )

    async def _checkpoint(self, vm_id: VmId, ram: mmap.mmap, pieces: set[int]) -> None:
        image = await self._ram_images.checkpoint(vm_id, ram, pieces)
        if self._journal.facts(vm_id).cache_image != str(image):
            await self._journal.note(vm_id, cache_image=str(image))

    async def take_over(self, attempt: Attempt, attestation: str) -> None:
        """Own what is ready here, on an operator's word; raises VmStateError when its QEMU has gone."""
        async with self._resolving.setdefault(attempt.migration_id, asyncio.Lock()):
            if not await self._possess(attempt, handover.take_over, attestation):
                raise VmStateError(
                    f"what came of VM {attempt.vm_id} has gone: it cannot be taken over here",
                    next_command="novacron vm take-over (at the cluster that it came from)",
                )

    async def _possess(self, attempt: Attempt, transition: Transition, attestation: str = "") -> bool:
        """Own it and let it run; False when it is lost."""
        if await self._possession.take(attempt, transition, attestation):
            return True
        await self._lose(attempt)
        return False

    async def _broke(self, migration_id: MigrationId) -> None:
        """The channel has ended by an error."""
        attempt = self._journal.attempt(migration_id)
        if attempt.state is State.PREPARED:
            await self._lose(attempt)
        elif attempt.state is State.RUNNING:
            await self._possession.let_run(attempt)
            await self._vms.publish(attempt.vm_id)

    async def _watch_over(self, attempt: Attempt) -> None:
        """While no channel is open: ask the source what became of it, for ever. Nobody else can tell."""
        question = HandoverQuestion(attempt.migration_id, attempt.vm_id, attempt.epoch)
        async with Client.known(
            attempt.peer_address, self._credentials, expect=SpiffeId.parse(attempt.peer_node)
        ) as source:
            while self._journal.attempt(attempt.migration_id).state in {State.PREPARED, State.READY}:
                await self._clock.sleep(ASK_EVERY_S)
                if attempt.migration_id in self._receiving:
                    continue
                try:
                    answer = await source.call("handover.ask", question, HandoverAnswer)
                except (WireError, RemoteError) as error:
                    log.info("source_silent", migration=attempt.migration_id, cause=str(error))
                else:
                    await self._resolve(attempt, answer)

    async def _resolve(self, attempt: Attempt, answer: HandoverAnswer) -> None:
        async with self._resolving.setdefault(attempt.migration_id, asyncio.Lock()):
            state = self._journal.attempt(attempt.migration_id).state
            if state not in {State.PREPARED, State.READY} or attempt.migration_id in self._receiving:
                return
            if answer.state == "committed" and state is State.READY:
                await self._possess(attempt, lambda claim, now: handover.run(claim, now, answer.epoch))
            elif answer.state == "aborted":
                await self._lose(attempt)

    async def _lose(self, attempt: Attempt) -> None:
        """Recorded first: what is lost never runs. The next attempt finds what is kept of it: it waits meanwhile."""
        async with self._vms.lock(attempt.vm_id):
            known = self._journal.attempt(attempt.migration_id).state is State.LOST
            await self._journal.change(lambda: (None, handover.lose(self._journal.attempt(attempt.migration_id)), None))
            await self.drop(attempt)
            if not known:
                self._hooks.begin("left", attempt)

    async def drop(self, attempt: Attempt) -> None:
        """What was made ready for an attempt that is lost ends. What had come is kept: the next one sends the rest."""
        self._events.publish(NodeEvent(migration=await self.report(attempt.migration_id)))
        keep = self._worth_keeping(attempt)
        ram = await self._driver.end_incoming(attempt.vm_id, attempt.instance, keep_disks=keep)
        if ram is None:
            return
        older = attempt.direct and self._journal.facts(attempt.vm_id).cache_image  # which it did not bring in
        if keep and not older and (image := await self._ram_images.keep_file(attempt.vm_id, ram)) is not None:
            await self._journal.note(attempt.vm_id, cache_image=str(image))
        ram.unlink(missing_ok=True)
        await self._driver.collapse(attempt.vm_id)

    def _worth_keeping(self, attempt: Attempt) -> bool:
        """Not where the VM has come since, nor over disks of an earlier stay, whose changes are known already."""
        claim, latest = self._journal.claim(attempt.vm_id), self._journal.latest(attempt.vm_id)
        newest = latest is not None and latest.migration_id == attempt.migration_id
        return newest and claim.ownership is not Ownership.OWNER and not attempt.disks_known

    def _word(self, migration_id: MigrationId) -> str:
        state = self._journal.attempt(migration_id).state
        if state is State.TAKEN_OVER:
            return str(State.RUNNING)
        if state is State.GIVEN_BACK:
            return str(State.LOST)
        return str(state) if state in {State.READY, State.RUNNING, State.LOST} else "pending"

    def _after(self, action: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
