"""Migrations that leave this node: this is the coordinator of the hand-over.

The journal decides. Before it says ``committed`` every failure takes the VM back; from then on the destination is told
again and again, until it has answered that it runs, or that it lost what it had.
"""

import asyncio
import mmap
from pathlib import Path
from typing import Final

import structlog

from novacron.agent.events import Events
from novacron.agent.hooks import Hooks, Moment
from novacron.agent.journal import Journal
from novacron.agent.links import Links
from novacron.agent.move import Move, report
from novacron.agent.pursuit import SILENT, Pursuit
from novacron.agent.ram_images import RamImages
from novacron.agent.vms import Vms
from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError
from novacron.core.ids import MigrationId, VmId
from novacron.hypervisor.driver import Driver, Machine, MachineState
from novacron.hypervisor.errors import HypervisorError, VmStateError
from novacron.migration import busy, handover, stall
from novacron.migration.beside import beside
from novacron.migration.disks import since
from novacron.migration.errors import HandoverPendingError, JournalError, MigrationCancelledError
from novacron.migration.handover import Attempt, Claim, State
from novacron.migration.meter import Meter
from novacron.migration.recovery import take_back
from novacron.migration.source import Outgoing, Source
from novacron.protocol.migration import (
    HandoverAnswer,
    HandoverQuestion,
    MigrationRef,
    MigrationReport,
    OpenRequest,
    OutgoingOffer,
    OutgoingOrder,
)
from novacron.protocol.node import NodeEvent, Nothing
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId

PROGRESS_EVERY_S: Final = 0.25
RETURNED: Final = frozenset({State.ABORTED, State.RECLAIMED, State.TAKEN_OVER})  # the VM is this node's again
log = structlog.get_logger()


class OutgoingMigrations:
    """What a controller may ask of migrations that leave, and what destinations ask about them."""

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
        hooks: Hooks,
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._events = events
        self._credentials = credentials
        self._clock = clock
        self._ram_images = ram_images
        self._hooks = hooks
        self._moves: dict[MigrationId, Move] = {}
        self._links = Links(credentials)
        self._pursuit = Pursuit(driver=driver, vms=vms, links=self._links, credentials=credentials, clock=clock)
        self._shadows: dict[VmId, mmap.mmap] = {}  # of attempts that failed: the next one leans on them
        self.address = ""  # where this node serves

    async def close(self) -> None:
        """End what is under way: it breaks, and is taken up again when the node starts."""
        await asyncio.gather(*(move.end() for move in self._moves.values()))
        for move in self._moves.values():
            if move.source is not None and move.source.line is not None:
                await move.source.line.close()

    async def recover(self) -> None:
        """After a start: take back what was not handed over, tell again what was."""
        for attempt in self._journal.attempts():
            if attempt.role is not handover.Role.SOURCE:
                continue
            if attempt.state in {State.OPEN, State.MOVING}:
                await self._abort(attempt.migration_id, attempt.vm_id)
            elif attempt.state is State.COMMITTED:
                move = self._moves[attempt.migration_id] = Move(Meter(self._clock, phase="committed"))
                move.task = asyncio.create_task(self._pursue(attempt, move))
            elif attempt.state in RETURNED and self._journal.newest(attempt):
                await self.bring_back(attempt.vm_id)  # a stop may have come between the record and the deed

    async def open(self, _peer: SpiffeId, request: OpenRequest) -> OutgoingOffer:
        """Burn an epoch and say what there is to move; the same answer when asked again."""
        known = self._journal.find_attempt(request.migration_id)
        if known is None:
            machine = await self._vms.running(request.vm_id)

            def decide() -> tuple[Claim, Attempt, None]:
                self._vms.check_free(request.vm_id)
                if any(a.vm_id == request.vm_id and handover.is_under_way(a) for a in self._journal.attempts()):
                    raise VmStateError(f"VM {request.vm_id} is migrating", next_command="novacron migration list")
                return *handover.open_attempt(self._journal.owned(request.vm_id), request.migration_id), None

            await self._journal.change(decide)
        machine = await self._vms.running(request.vm_id)
        attempt = self._journal.attempt(request.migration_id)
        return OutgoingOffer(
            migration_id=request.migration_id,
            vm_id=request.vm_id,
            epoch=attempt.epoch,
            spec=self._driver.spec(request.vm_id),
            source_node=str(self._credentials.identity),
            source_address=self.address,
            known_state=await known_state(machine, self._journal),
            running=await machine.state() is MachineState.RUNNING,
        )

    async def run(self, _peer: SpiffeId, order: OutgoingOrder) -> MigrationReport:
        """Begin to move; harmless when it has begun."""
        move = self._moves.get(order.migration_id)
        if move is None:
            await self._journal.change(
                lambda: (
                    None,
                    handover.start_moving(
                        self._journal.claim(order.vm_id),
                        self._journal.attempt(order.migration_id),
                        peer_node=order.target.node,
                        peer_address=order.target.address,
                        post_copy=order.policy.strategy == "postcopy",
                    ),
                    None,
                )
            )
            move = self._moves[order.migration_id] = Move(Meter(self._clock), order.policy)
            move.task = asyncio.create_task(self._move(order, move))
            await self._vms.publish(order.vm_id)
        return self._report(order.migration_id)

    async def report(self, migration_id: MigrationId) -> MigrationReport:
        """This node's word on it."""
        return self._report(migration_id)

    async def cancel(self, _peer: SpiffeId, ref: MigrationRef) -> MigrationReport:
        """Give up before the commit; refused (JournalError) after it. Harmless when it was given up."""
        attempt = self._journal.attempt(ref.migration_id)
        if attempt.state not in {State.OPEN, State.MOVING, State.ABORTED}:
            raise _no_way_back(attempt)
        move = self._moves.get(ref.migration_id)
        if move is not None and move.task is not None and not move.task.done():
            move.error = MigrationCancelledError("the migration was cancelled; the VM runs on where it was")
            await move.end()
        else:
            await self._abort(ref.migration_id, ref.vm_id)
        return self._report(ref.migration_id)

    async def release(self, _peer: SpiffeId, ref: MigrationRef) -> Nothing:
        """The time for a rollback is over: the paused VM ends; its disks and RAM become content cache."""
        attempt = self._journal.attempt(ref.migration_id)
        if attempt.state in {State.RELEASED, State.TAKEN_OVER, State.RECLAIMED}:
            return Nothing()
        released = handover.release(attempt)
        await self._end_paused(attempt.vm_id)
        await self._journal.change(lambda: (None, released, None))
        self.tell_operator("released", attempt)
        return Nothing()

    async def ask(self, peer: SpiffeId, question: HandoverQuestion) -> HandoverAnswer:
        """A destination asks what became of an attempt."""
        attempt = self._journal.find_attempt(question.migration_id)
        if attempt is None:
            self._journal.claim(question.vm_id)  # a node that knows nothing at all must not say «aborted»
            return HandoverAnswer("aborted", question.epoch)
        if attempt.peer_node and attempt.peer_node != str(peer):
            return HandoverAnswer("aborted", attempt.epoch)
        return HandoverAnswer(handover.source_answer(attempt), attempt.epoch)

    async def _move(self, order: OutgoingOrder, move: Move) -> None:
        """The whole migration, its end recorded whatever happens."""
        telling = asyncio.create_task(self._tell_progress(order.migration_id))
        try:
            await self._transfer(order, move)
        except asyncio.CancelledError:
            if move.error is None:
                raise  # the node stops: what the journal says is taken up at its next start
            await self._settle_failure(order, move, move.error)
        except Exception as error:  # noqa: BLE001 - every failure has one of two ends, and the journal knows which
            log.info("migration_broke", migration=order.migration_id, cause=str(error))
            await self._settle_failure(order, move, _known(error))
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            self._publish(order.migration_id)

    async def _transfer(self, order: OutgoingOrder, move: Move) -> None:
        machine = await self._vms.running(order.vm_id)
        facts = self._journal.facts(order.vm_id)
        image = Path(facts.arrival_image) if facts.arrival_image else None
        outgoing = Outgoing(
            migration_id=order.migration_id,
            vm_id=order.vm_id,
            epoch=order.epoch,
            machine=machine,
            running=await machine.state() is MachineState.RUNNING,
            policy=order.policy,
            socket=self._driver.socket_dir(machine) / "out",
            ram_image=image if image is not None and image.exists() else None,
            known_state=facts.arrival_state,
            scratch=self._ram_images.directory,
            shadow=self._shadows.pop(order.vm_id, None),
            peer_host=order.target.address.rpartition(":")[0],
        )
        async with await self._links.open(self._journal.attempt(order.migration_id), order.policy) as channel:
            source = move.source = Source(outgoing, channel, move.meter, self._clock, lambda: self._commit(order))
            async with beside(
                stall.watch(move.meter, channel, self._clock, order.policy.stall_after_ms / 1000),
                busy.watch(move.meter, order.policy, self._clock),
            ):
                move.summary = await source.run()
        await self._settle(order.vm_id, order.migration_id, move)

    async def _commit(self, order: OutgoingOrder) -> None:
        """The point of no return."""

        def decide() -> tuple[Claim, Attempt, None]:
            claim, attempt = self._journal.claim(order.vm_id), self._journal.attempt(order.migration_id)
            return *handover.commit(claim, attempt, self._clock.now()), None

        await self._journal.change(decide)

    async def _settle(self, vm_id: VmId, migration_id: MigrationId, move: Move) -> None:
        """It runs there. A source of this process's life knows what RAM it runs with."""
        if move.source is not None:
            await self._keep(vm_id, migration_id, move.source.shadow)
            move.source = None  # it holds as much memory as the guest
        await self._journal.change(lambda: (None, handover.settle(self._journal.attempt(migration_id)), None))
        self.tell_operator("left", self._journal.attempt(migration_id))

    async def _keep(self, vm_id: VmId, migration_id: MigrationId, shadow: mmap.mmap | None) -> None:
        """What the destination's RAM was at the hand-over: the way back is told against it. None: nobody kept it."""
        image = str(await self._ram_images.keep(vm_id, shadow)) if shadow is not None else ""
        await self._journal.note(vm_id, cache_state=migration_id, cache_image=image)

    async def _settle_failure(self, order: OutgoingOrder, move: Move, error: NovaCronError) -> None:
        """Before the commit the VM is taken back; after it the destination is asked until it answers."""
        attempt = self._journal.attempt(order.migration_id)
        if attempt.state in {State.COMMITTED, State.SETTLED}:
            move.error = None
            await self._pursue(attempt, move)
            return
        move.error = error
        if move.source is not None:
            if move.source.shadow is not None:
                self._shadows[order.vm_id] = move.source.shadow
            move.source = None
        await self._abort(order.migration_id, order.vm_id)

    async def _abort(self, migration_id: MigrationId, vm_id: VmId) -> None:
        """Recorded first: no late message may hand over a VM that runs here again."""
        known = self._journal.attempt(migration_id)
        await self._journal.change(lambda: (None, handover.abort(self._journal.attempt(migration_id)), None))
        await self.bring_back(vm_id)
        if known.state is not State.ABORTED:
            self.tell_operator("returned", known)

    async def bring_back(self, vm_id: VmId) -> None:
        """A VM that is this node's again goes on, when it lives."""
        machine = await self._vms.machine(vm_id)
        if machine is not None:
            await self._take_back(machine)
        await self._vms.publish(vm_id)

    async def stop_pursuing(self, migration_id: MigrationId) -> None:
        """Ask the destination no longer."""
        if (move := self._moves.get(migration_id)) is not None:
            await move.end()

    async def _take_back(self, machine: Machine) -> None:
        await take_back(machine, self._clock, running=self._journal.facts(machine.vm_id).power == "running")
        await machine.end_exports()
        names = [disk.id for disk in machine.spec.disks]
        for bitmap in await machine.bitmaps_like("novacron-"):
            await machine.drop_tracking(names, bitmap)

    async def _pursue(self, attempt: Attempt, move: Move) -> None:
        """Until the destination has said what became of the VM."""
        answer = await self._pursuit.follow(attempt, move, lambda: self._publish(attempt.migration_id))
        if answer.state == "running":
            move.meter.phase = "window"
            move.sum_up(answer.verdict or SILENT, self._clock.monotonic())
            await self._settle(attempt.vm_id, attempt.migration_id, move)
        else:
            move.error = HandoverPendingError("the destination lost the VM before it ran; it runs on where it was")
            if move.source is not None:
                await move.source.conclude()
            await self.reclaim(attempt, answer.epoch)

    async def reclaim(self, attempt: Attempt, beyond: int) -> None:
        """The destination has given the VM up for good, with no epoch burned there ``beyond`` this one: it goes on."""

        def decide() -> tuple[Claim, Attempt, None]:
            claim = self._journal.claim(attempt.vm_id)
            return *handover.reclaim(claim, self._journal.attempt(attempt.migration_id), beyond), None

        await self._journal.change(decide)
        await self.bring_back(attempt.vm_id)
        self.tell_operator("returned", attempt)

    def tell_operator(self, moment: Moment, attempt: Attempt) -> None:
        """Run the operator's programs of that moment; what fails is noted."""
        self._hooks.begin(moment, attempt, lambda: self._publish(attempt.migration_id))

    async def _end_paused(self, vm_id: VmId) -> None:
        """The instance that handed over ends; nothing is left but files."""
        if self._journal.claim(vm_id).ownership is handover.Ownership.OWNER:
            return  # it came back meanwhile, and the way back has ended the old instance
        machine = await self._vms.machine(vm_id)
        if machine is not None:
            await machine.quit()
        await self._driver.collapse(vm_id)
        await self._journal.note(vm_id, instance="", arrival_image="", arrival_state="")

    async def _tell_progress(self, migration_id: MigrationId) -> None:
        while True:
            self._publish(migration_id)
            await self._clock.sleep(PROGRESS_EVERY_S)

    def _publish(self, migration_id: MigrationId) -> None:
        self._events.publish(NodeEvent(migration=self._report(migration_id)))

    def _report(self, migration_id: MigrationId) -> MigrationReport:
        move, notes = self._moves.get(migration_id), self._hooks.notes(migration_id)
        return report(self._journal.attempt(migration_id), move, notes)


async def known_state(machine: Machine, journal: Journal) -> str:
    """Name of the disks' content as it came here, when what was written since is marked; else empty."""
    state = journal.facts(machine.vm_id).arrival_state
    names = [disk.id for disk in machine.spec.disks]
    return state if state and await machine.tracked(names, since(state)) else ""


def _no_way_back(attempt: Attempt) -> JournalError:
    if attempt.post_copy and attempt.state is State.COMMITTED:
        return JournalError(
            f"the guest of migration {attempt.migration_id} runs over there, and its memory follows: there is no way "
            "back until all of it has come",
            next_command=f"novacron migration watch {attempt.migration_id}",
        )
    return JournalError(
        f"migration {attempt.migration_id} is {attempt.state}: it cannot be cancelled any more",
        next_command=f"novacron migration rollback {attempt.migration_id}",
    )


def _known(error: Exception) -> NovaCronError:
    if isinstance(error, NovaCronError):
        return error
    log.error("migration_fault", exc_info=error)
    return HypervisorError(f"the migration broke: {type(error).__name__}: {error}")
