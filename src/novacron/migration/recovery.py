"""The source takes its VM back: after a failure before the commit, or after a restart that finds one half-way."""

from typing import Final

from novacron.core.clock import Clock
from novacron.hypervisor.driver import Machine, MachineState
from novacron.hypervisor.errors import QemuDiedError, QmpError, VmStateError
from novacron.migration.announce import announce
from novacron.migration.errors import QemuFailedError

POST_COPY: Final = frozenset({"postcopy-active", "postcopy-paused", "postcopy-recover"})
UNDER_WAY: Final = POST_COPY | {"setup", "active", "pre-switchover", "device", "wait-unplug", "cancelling"}
NOTICES_BY_ITSELF: Final = "postcopy-active"  # that its connection has gone
PATIENCE_S: Final = 20.0  # less than whoever asked has
LOOK_EVERY_S: Final = 0.01


async def take_back(machine: Machine, clock: Clock, *, running: bool) -> None:
    """Cancel whatever is under way and let the guest run again if it did before. May be repeated.

    Only for a source whose journal does not say that it handed over. Raises QemuFailedError when QEMU does not come
    back within ``PATIENCE_S``, QemuDiedError when it is gone.
    """
    deadline = clock.monotonic() + PATIENCE_S
    await _give_up(machine, clock, deadline)
    if running:
        await _let_run(machine, clock, deadline)


async def _give_up(machine: Machine, clock: Clock, deadline: float) -> None:
    """Cut first, then cancel: QEMU may hang in a connection that nobody reads any more.

    A post-copy that is cut must be left to notice it: one that is cancelled in that moment neither goes on nor ends.
    """
    await machine.cut_migration()
    while (status := (await machine.migration_status()).status) in UNDER_WAY:
        if status not in {"cancelling", NOTICES_BY_ITSELF}:
            await machine.cancel_migration()
        if clock.monotonic() > deadline:
            if await machine.state() is MachineState.RUNNING:
                return  # what was being set up lets go only when TCP does; the guest runs on
            raise QemuFailedError(f"the migration of {machine.vm_id} cannot be cancelled: QEMU says {status}")
        await clock.sleep(LOOK_EVERY_S)  # no event tells every way out of cancelling
    while await machine.cut_migration() and clock.monotonic() < deadline:
        await clock.sleep(LOOK_EVERY_S)  # QEMU begins no other before it has closed what this one had open


async def _let_run(machine: Machine, clock: Clock, deadline: float) -> None:
    while (state := await machine.state()) is not MachineState.RUNNING:
        if state is MachineState.GONE:
            raise QemuDiedError(f"the QEMU of {machine.vm_id} is gone")
        try:
            await machine.resume()
        except (QmpError, VmStateError):  # the latter: it is about to settle
            if clock.monotonic() > deadline:
                raise
        await clock.sleep(LOOK_EVERY_S)
    await announce(machine)  # the other side may have done so, while its state came in
