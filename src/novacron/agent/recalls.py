"""A guest that was handed over is watched for a while by its source, and taken back when it has died over there.

The paused VM here goes on only after the destination has recorded that it gave the guest up for good. From the question
to its answer nothing is released.
"""

from typing import Final

import structlog

from novacron.agent.journal import Journal
from novacron.agent.outgoing import OutgoingMigrations
from novacron.agent.vms import Vms
from novacron.core.errors import RemoteError
from novacron.hypervisor.errors import VmStateError
from novacron.migration import handover
from novacron.migration.errors import HandoverPendingError
from novacron.migration.handover import Attempt, State
from novacron.protocol.migration import Condition, HandoverAnswer, HandoverQuestion, MigrationRef, MigrationReport
from novacron.wire.client import Client
from novacron.wire.credentials import Credentials
from novacron.wire.errors import WireError
from novacron.wire.identity import SpiffeId

LOOK_TIMEOUT_S: Final = 10.0
log = structlog.get_logger()


class Recalls:
    """What a controller may ask about a guest that its node has handed over."""

    def __init__(self, *, journal: Journal, vms: Vms, outgoing: OutgoingMigrations, credentials: Credentials) -> None:
        self._journal = journal
        self._vms = vms
        self._outgoing = outgoing
        self._credentials = credentials

    async def look(self, _peer: SpiffeId, ref: MigrationRef) -> Condition:
        """How the guest is over there; ``silent`` when nobody answers."""
        attempt = self._journal.attempt(ref.migration_id)
        if attempt.state not in {State.SETTLED, State.RECALLED}:
            return Condition("left")
        try:
            async with self._peer(attempt) as peer:
                return await peer.call("handover.look", _question(attempt), Condition, timeout_s=LOOK_TIMEOUT_S)
        except WireError as error:
            return Condition("silent", error.cause)
        except RemoteError as error:
            log.info("look_refused", migration=ref.migration_id, cause=error.cause)
            return Condition("left", error.cause)

    async def recall(self, _peer: SpiffeId, ref: MigrationRef) -> MigrationReport:
        """Take back a guest that has died; the report says ``reclaimed``, or ``settled`` when it lives over there.

        Raises VmStateError when nothing is left here that could go on, HandoverPendingError until there is an answer.
        """
        attempt = self._journal.attempt(ref.migration_id)
        if attempt.state not in {State.RECLAIMED, State.TAKEN_OVER}:
            if await self._vms.machine(attempt.vm_id) is None:
                raise VmStateError(f"what VM {attempt.vm_id} left here has gone: it cannot go on from there")
            await self._journal.change(lambda: (None, self._recalled(attempt), None))
            await self._ask(attempt)
        return await self._outgoing.report(attempt.migration_id)

    async def _ask(self, attempt: Attempt) -> None:
        try:
            async with self._peer(attempt) as peer:
                answer = await peer.call("handover.give_back", _question(attempt), HandoverAnswer)
        except (WireError, RemoteError) as error:
            raise HandoverPendingError(f"whether the VM goes on here is not answered yet: {error}") from error
        if answer.state == str(State.LOST):
            await self._outgoing.reclaim(attempt, answer.epoch)
        else:
            await self._journal.change(lambda: (None, handover.leave(self._now(attempt)), None))

    def _recalled(self, attempt: Attempt) -> Attempt:
        return handover.recall(self._journal.claim(attempt.vm_id), self._now(attempt))

    def _now(self, attempt: Attempt) -> Attempt:
        return self._journal.attempt(attempt.migration_id)

    def _peer(self, attempt: Attempt) -> Client:
        return Client.known(attempt.peer_address, self._credentials, expect=SpiffeId.parse(attempt.peer_node))


def _question(attempt: Attempt) -> HandoverQuestion:
    return HandoverQuestion(attempt.migration_id, attempt.vm_id, attempt.epoch)
