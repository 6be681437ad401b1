"""After the commit: the destination is told of it until it has answered, and gets the memory that follows its guest."""

from collections.abc import Callable
from typing import Final

from novacron.agent.following import send_rest
from novacron.agent.links import Links
from novacron.agent.move import Move
from novacron.agent.vms import Vms
from novacron.core.clock import Clock
from novacron.core.errors import RemoteError
from novacron.hypervisor.driver import Driver
from novacron.hypervisor.errors import QemuDiedError
from novacron.migration.handover import Attempt
from novacron.migration.postcopy import Held
from novacron.protocol.migration import HandoverAnswer, HandoverQuestion, Verdict
from novacron.wire.client import Client
from novacron.wire.credentials import Credentials
from novacron.wire.errors import WireError
from novacron.wire.identity import SpiffeId

ASK_EVERY_S: Final = 1.0
LOST_ITS_MEMORY: Final = "its QEMU here died before all of its memory had come: it must be started from its disks"
SILENT: Final = Verdict(alive=False, word="its node has not said how it is")


class Pursuit:
    """Asks one destination at a time, for as long as it takes; asking twice is harmless."""

    def __init__(self, *, driver: Driver, vms: Vms, links: Links, credentials: Credentials, clock: Clock) -> None:
        self._driver = driver
        self._vms = vms
        self._links = links
        self._credentials = credentials
        self._clock = clock

    async def follow(self, attempt: Attempt, move: Move, tell: Callable[[], None]) -> HandoverAnswer:
        """Its last word: ``running``, with a verdict, or ``lost``. ``tell`` is called while there is none."""
        move.meter.phase = "committed"
        question = HandoverQuestion(attempt.migration_id, attempt.vm_id, attempt.epoch)
        async with Client.known(
            attempt.peer_address, self._credentials, expect=SpiffeId.parse(attempt.peer_node)
        ) as peer:
            while True:
                try:
                    answer = await peer.call("handover.commit", question, HandoverAnswer)
                except (WireError, RemoteError) as error:
                    move.meter.note = f"handed over; waiting for the destination to answer: {error}"
                else:
                    move.meter.note = ""
                    if answer.state == "following":
                        return HandoverAnswer("running", answer.epoch, await self._send_rest(attempt, move))
                    if answer.state == "running":
                        return HandoverAnswer("running", answer.epoch, answer.verdict or SILENT)
                    if answer.state == "lost":
                        return answer
                    if answer.state == "verifying":
                        move.meter.phase = "verify"
                tell()
                await self._clock.sleep(ASK_EVERY_S)

    async def _send_rest(self, attempt: Attempt, move: Move) -> Verdict:
        """What the guest has gone ahead of, and how it is then."""
        move.meter.phase = "following"
        machine = await self._vms.machine(attempt.vm_id)
        if machine is None:
            return Verdict(alive=False, word=LOST_ITS_MEMORY, broken=True)
        socket = self._driver.socket_dir(machine) / "out"
        line = move.source.line if move.source is not None else None
        held = Held(machine, socket, attempt.epoch, move.meter, self._clock, line)
        try:
            return await send_rest(held, lambda: self._links.open(attempt, move.policy), vm=attempt.vm_id)
        except QemuDiedError:
            return Verdict(alive=False, word=LOST_ITS_MEMORY, broken=True)
