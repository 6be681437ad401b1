"""VMs that have come: looked at once they run, watched for as long as their sources ask, given back when they died.

A guest that is given back never runs here again: that is recorded before its source hears of it, and only its source
asks for it.
"""

import asyncio
from typing import Final

import msgspec

from novacron.agent import programs
from novacron.agent.errors import ProbeUnknownError
from novacron.agent.hooks import Hooks, vm_facts
from novacron.agent.journal import Facts, Journal
from novacron.agent.operator import Operator
from novacron.agent.programs import Ended
from novacron.agent.vms import Vms
from novacron.core.clock import Clock
from novacron.core.ids import MigrationId
from novacron.hypervisor.driver import Driver, Machine, MachineState
from novacron.hypervisor.errors import QemuDiedError
from novacron.migration import handover
from novacron.migration.errors import StaleEpochError
from novacron.migration.handover import Attempt, Claim, Ownership, State
from novacron.migration.verify import Tried, sign_of_life, verify
from novacron.protocol.migration import Condition, GuestCheck, HandoverAnswer, HandoverQuestion, Verdict
from novacron.protocol.vm import VmSpec
from novacron.wire.identity import SpiffeId

LOOK_EVERY_S: Final = 0.25  # whether its memory is whole
SECOND_LOOK_S: Final = 2.0  # at a guest that gave no sign of life, before it is given back
CRASHED: Final = frozenset({MachineState.GUEST_PANICKED, MachineState.INTERNAL_ERROR})
DEAD: Final = "dead"
WELL, LEFT = Condition("well"), Condition("left")


class Arrivals:
    """What becomes of guests once they were let run here."""

    def __init__(
        self, *, driver: Driver, journal: Journal, vms: Vms, clock: Clock, operator: Operator, hooks: Hooks
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._clock = clock
        self._operator = operator
        self._hooks = hooks
        self._verdicts: dict[MigrationId, asyncio.Task[Verdict]] = {}
        self._attending: dict[MigrationId, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Look no longer; guests go on."""
        tasks = [*self._verdicts.values(), *self._attending.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def probes(self) -> tuple[str, ...]:
        """Names of those that are here now."""
        return tuple(programs.names(self._operator.probes_dir))

    def check(self, wanted: GuestCheck) -> None:
        """Whether guests can be looked at like that here; raises ProbeUnknownError."""
        if wanted.probe and programs.find(self._operator.probes_dir, wanted.probe) is None:
            there = ", ".join(self.probes()) or "none"
            raise ProbeUnknownError(
                f"{self._operator.place} has no probe {wanted.probe} (there: {there})",
                next_command="novacron migrate with another --probe, or put that program into the node's probes_dir",
            )

    async def verdict(self, attempt: Attempt) -> Verdict:
        """What the guest is found to be, looked at once by this process; a cancellation leaves the look going."""
        if attempt.migration_id not in self._verdicts:
            self._verdicts[attempt.migration_id] = asyncio.create_task(self._see(attempt))
        return await asyncio.shield(self._verdicts[attempt.migration_id])

    def attend(self, attempt: Attempt, machine: Machine) -> None:
        """From now on a guest that shuts itself down is known to have done so."""
        if attempt.migration_id not in self._attending:
            self._attending[attempt.migration_id] = asyncio.create_task(self._attend(machine))

    async def look(self, peer: SpiffeId, question: HandoverQuestion) -> Condition:
        """The source asks how the guest is."""
        return await self._condition(self._attempt(peer, question))

    async def give_back(self, peer: SpiffeId, question: HandoverQuestion) -> HandoverAnswer:
        """The source wants a guest again that has died here: ``lost`` once that is so for good, else ``running``."""
        attempt = self._attempt(peer, question)
        vm_id = attempt.vm_id
        async with self._vms.lock(vm_id):
            if attempt.state is not State.GIVEN_BACK:
                if (await self._condition(attempt)).state != DEAD:
                    return HandoverAnswer(str(State.RUNNING), self._journal.claim(vm_id).burned)
                for machine in await self._driver.adopt(vm_id):
                    await machine.kill()
                await self._journal.change(lambda: self._given_back(attempt))
                await self._driver.collapse(vm_id)
                self._hooks.begin("left", attempt)
        await self._vms.publish(vm_id)
        return HandoverAnswer(str(State.LOST), self._journal.claim(vm_id).burned)

    def _given_back(self, attempt: Attempt) -> tuple[Claim, Attempt, Facts]:
        facts = msgspec.structs.replace(
            self._journal.facts(attempt.vm_id), instance="", power="stopped", arrival_state="", arrival_image=""
        )
        claim, now = self._journal.claim(attempt.vm_id), self._journal.attempt(attempt.migration_id)
        return *handover.give_back(claim, now), facts

    def _attempt(self, peer: SpiffeId, question: HandoverQuestion) -> Attempt:
        attempt = self._journal.attempt(question.migration_id)
        if attempt.peer_node != str(peer):
            raise StaleEpochError(f"{peer} is not the source of migration {question.migration_id}")
        return attempt

    async def _see(self, attempt: Attempt) -> Verdict:
        """The operator's programs run beside the look: a probe may need what they do."""
        looking = asyncio.create_task(self._look_at(attempt))
        try:
            notes = await self._hooks.run("arrived", attempt)
            return msgspec.structs.replace(await looking, notes=notes)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_at(self, attempt: Attempt) -> Verdict:
        if attempt.power != "running":
            return Verdict(alive=True, word="paused, as it was")
        await self._until_whole(attempt)
        machine = await self._vms.machine(attempt.vm_id)
        if machine is None or machine.instance != attempt.instance:
            return Verdict(alive=False, word="its QEMU has died", lifeless=True)
        program = programs.find(self._operator.probes_dir, attempt.check.probe)

        async def probe(left_s: float) -> Tried:
            if program is None:
                return Tried(succeeded=False, word="the node has it no more")
            ended: Ended = await programs.run(program, self._facts(attempt, machine.spec), left_s)
            return Tried(ended.succeeded, ended.line)

        return await verify(machine, self._clock, attempt.check, probe if attempt.check.probe else None)

    async def _until_whole(self, attempt: Attempt) -> None:
        """A guest that waits for its memory gives no sign of life, and is well."""
        while handover.is_following(self._journal.attempt(attempt.migration_id)):
            machine = await self._vms.machine(attempt.vm_id)
            if machine is None or machine.instance != attempt.instance:
                return
            await self._clock.sleep(LOOK_EVERY_S)

    def _facts(self, attempt: Attempt, spec: VmSpec) -> dict[str, str]:
        return {**self._operator.facts, "MIGRATION_ID": attempt.migration_id, **vm_facts(attempt.vm_id, spec)}

    async def _attend(self, machine: Machine) -> None:
        async with machine.events() as events:
            async for event in events:
                if event.name == "SHUTDOWN" and event.data.get("guest"):
                    await self._journal.note(machine.vm_id, power="stopped")

    async def _condition(self, attempt: Attempt) -> Condition:
        """Of the guest that came by this attempt, as long as it is the one that is here."""
        if attempt.state is State.GIVEN_BACK:
            return Condition(DEAD, "it was given back")
        claim, vm_id = self._journal.claim(attempt.vm_id), attempt.vm_id
        ours = claim.ownership is Ownership.OWNER and claim.epoch == attempt.epoch
        if not ours or attempt.state is not State.RUNNING or self._journal.facts(vm_id).instance != attempt.instance:
            return LEFT
        machine = await self._vms.machine(vm_id)
        state = MachineState.GONE if machine is None else await machine.state()
        if machine is None or state is MachineState.GONE:
            return await self._gone(attempt)
        if state in CRASHED:
            return Condition(DEAD, f"its QEMU says {state}")
        if self._was_lifeless(attempt) and not await self._lives_now(machine):
            return Condition(DEAD, "it gives no sign of life")
        return WELL

    async def _gone(self, attempt: Attempt) -> Condition:
        """What its QEMU said last is heard first: a guest that has shut itself down has not died."""
        if (attending := self._attending.get(attempt.migration_id)) is not None:
            await asyncio.wait({attending})
        return LEFT if self._journal.facts(attempt.vm_id).power == "stopped" else Condition(DEAD, "its QEMU has died")

    def _was_lifeless(self, attempt: Attempt) -> bool:
        found = self._verdicts.get(attempt.migration_id)
        return found is not None and found.done() and not found.cancelled() and found.result().lifeless

    async def _lives_now(self, machine: Machine) -> bool:
        try:
            return bool(await sign_of_life(machine, self._clock, self._clock.monotonic() + SECOND_LOOK_S))
        except QemuDiedError:
            return False
