"""What the steps of a migration work with."""

import msgspec

from novacron.control.attempts import Wanted
from novacron.protocol.migration import IncomingReady, MigrationPolicy, MigrationRef, MigrationReport, OutgoingOffer
from novacron.workflow.definition import StepContext


class MigrateJob:
    """What a step works with, read from the job's journal."""

    def __init__(self, context: StepContext) -> None:
        wanted = self.wanted = Wanted.of(context.input)
        self._results = context.results
        self.migration_id = wanted.migration_id
        self.vm_id = wanted.vm_id
        self.node_id = wanted.node_id
        self.target = wanted.target
        planned = context.results.get("plan")
        self.policy = msgspec.convert(planned, MigrationPolicy) if planned else wanted.policy
        self.ref = MigrationRef(self.migration_id, self.vm_id)

    @property
    def offer(self) -> OutgoingOffer:
        """What the source's node has offered."""
        return msgspec.convert(self._results["open"], OutgoingOffer)

    @property
    def moved(self) -> MigrationReport:
        """The source's word when the VM had been handed over."""
        return msgspec.convert(self._results["move"], MigrationReport)

    @property
    def ready(self) -> IncomingReady:
        """What the destination has made ready."""
        return msgspec.convert(self._results["admit"], IncomingReady)
