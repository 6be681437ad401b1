"""A VM taken over by force: an operator attests that whoever else may hold it is fenced.

The rules never let a node run a VM because the other one is silent; a person may know more. The word is recorded before
anything runs. The other end is told, for as long as it takes, and gives up what it has: its disks stay where they are.
"""

import asyncio
from typing import Final

import msgspec
import structlog

from novacron.agent.incoming import IncomingMigrations
from novacron.agent.journal import Facts, Journal
from novacron.agent.outgoing import OutgoingMigrations
from novacron.agent.vms import Vms
from novacron.core.clock import Clock
from novacron.core.errors import RemoteError
from novacron.hypervisor.errors import VmStateError
from novacron.migration import handover
from novacron.migration.errors import StaleEpochError
from novacron.migration.handover import Attempt, Claim, Role, State
from novacron.protocol.migration import HandoverAnswer, HandoverQuestion
from novacron.protocol.node import TakeOver, VmReport
from novacron.wire.client import Client
from novacron.wire.credentials import Credentials
from novacron.wire.errors import WireError
from novacron.wire.identity import SpiffeId

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
STOOD_DOWN: Final = "stopped"
log = structlog.get_logger()


class TakeOvers:
    """What a controller may order, and what the other end of a hand-over is told."""

    def __init__(
        self,
        *,
        journal: Journal,
        vms: Vms,
        outgoing: OutgoingMigrations,
        incoming: IncomingMigrations,
        credentials: Credentials,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._vms = vms
        self._outgoing = outgoing
        self._incoming = incoming
        self._credentials = credentials
        self._clock = clock
        self._telling: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop telling; it goes on when the node starts again."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    def recover(self) -> None:
        """After a start: tell those who have not heard yet."""
        for attempt in self._journal.attempts():
            if attempt.state is State.TAKEN_OVER:
                self._tell(attempt)

    async def take_over(self, _peer: SpiffeId, request: TakeOver) -> VmReport:
        """Own the VM here, at a fresh epoch; the same answer when asked again.

        Raises VmStateError, JournalError, VmUnknownError.
        """
        claim, attempt = self._journal.claim(request.vm_id), self._journal.latest(request.vm_id)
        if attempt is None:
            raise VmStateError(f"VM {request.vm_id} was never handed over: there is nothing to take over")
        owned, taken = handover.take_over(claim, attempt)
        if owned == claim:
            return await self._vms.publish(request.vm_id)
        log.warning("taken_over", vm=request.vm_id, epoch=owned.epoch, attestation=request.attestation)
        if attempt.role is Role.SOURCE:
            await self._vms.look(request.vm_id)  # raises when what it left has made room for others
            await self._outgoing.stop_pursuing(attempt.migration_id)
            await self._own(request)
            await self._outgoing.bring_back(request.vm_id)
            self._outgoing.tell_operator("returned", attempt)
        else:
            await self._incoming.take_over(attempt, request.attestation)
        self._tell(taken)
        return await self._vms.publish(request.vm_id)

    async def stand_down(self, peer: SpiffeId, question: HandoverQuestion) -> HandoverAnswer:
        """The other end has taken the VM over: what is here of it ends, and never runs again.

        Disks of a VM that ran here stay; what came and never ran is at the other end, whole.
        """
        attempt = self._journal.attempt(question.migration_id)
        if attempt.peer_node != str(peer):
            raise StaleEpochError(f"{peer} has no part in migration {question.migration_id}")

        def decide() -> tuple[Claim, Attempt, Facts]:
            claim, now = self._journal.claim(attempt.vm_id), self._journal.attempt(attempt.migration_id)
            facts = msgspec.structs.replace(
                self._journal.facts(attempt.vm_id), power="stopped", arrival_state="", arrival_image=""
            )
            return *handover.stand_down(claim, now, question.epoch), facts

        await self._outgoing.stop_pursuing(attempt.migration_id)
        await self._journal.change(decide)
        if attempt.state in {State.PREPARED, State.READY}:
            await self._incoming.drop(attempt)
        else:
            await self._vms.end_all(attempt.vm_id)
            self._outgoing.tell_operator("left", attempt)
            await self._vms.publish(attempt.vm_id)
        return HandoverAnswer(STOOD_DOWN, question.epoch)

    async def _own(self, request: TakeOver) -> None:
        def decide() -> tuple[Claim, Attempt, Facts]:
            attempt = self._journal.latest(request.vm_id)
            assert attempt is not None  # noqa: S101 - the caller has looked, and attempts are never forgotten
            facts = msgspec.structs.replace(self._journal.facts(request.vm_id), attestation=request.attestation)
            return *handover.take_over(self._journal.claim(request.vm_id), attempt), facts

        await self._journal.change(decide)

    def _tell(self, attempt: Attempt) -> None:
        task = asyncio.create_task(self._until_told(attempt))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _until_told(self, attempt: Attempt) -> None:
        """The other end may be off for months: it hears of it before it can do harm, or as soon as it can."""
        epoch = self._journal.claim(attempt.vm_id).epoch
        question = HandoverQuestion(attempt.migration_id, attempt.vm_id, epoch)
        expect, wait_s = SpiffeId.parse(attempt.peer_node), FIRST_WAIT_S
        async with Client.known(attempt.peer_address, self._credentials, expect=expect) as peer:
            while True:
                try:
                    answer = await peer.call("handover.stand_down", question, HandoverAnswer)
                except (WireError, RemoteError) as error:
                    log.info("other_end_not_told", migration=attempt.migration_id, cause=str(error))
                else:
                    if answer.state == STOOD_DOWN:
                        break
                await self._clock.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        await self._journal.change(lambda: (None, handover.told(self._journal.attempt(attempt.migration_id)), None))
