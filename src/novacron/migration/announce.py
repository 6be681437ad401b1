"""A guest that runs at another place than before: the networks learn where its addresses are now."""

import structlog

from novacron.hypervisor.driver import Machine
from novacron.hypervisor.errors import HypervisorError

log = structlog.get_logger()


async def announce(machine: Machine) -> None:
    """Best effort: nothing of a hand-over depends on it, and a guest that speaks is found, too."""
    try:
        await machine.announce()
    except HypervisorError as error:
        log.info("not_announced", vm=machine.vm_id, cause=error.cause)
