"""Errors of a migration.

MigrationError
├── StreamRefusedError         QEMU's stream holds what this version does not know       (before the guest stops)
├── ConfigurationDiffersError  the two sides would not run the same machine              (before the guest stops)
├── ChannelProtocolError       the other node sent what it may not send now
├── QemuFailedError            a QEMU gave up; its own words are kept
├── StalledError               nothing moved for a while, and the connections lived
├── GuestBusyError             the guest outran the link for longer than its policy waits
├── NodeRestartedError         the source's node was started again before the hand-over
├── StaleEpochError            a message of a given-up attempt
├── MigrationCancelledError    somebody asked for the end
├── NotRollbackableError       the window of a rollback has passed
└── HandoverPendingError       what became of the VM is known only when the other side answers (retryable)
"""

from novacron.core.errors import ConflictError, InternalError, InvalidInputError, NovaCronError, UnreachableError


class MigrationError(NovaCronError):
    """A migration failed; unless the error says otherwise the source runs on."""

    code = "migration_failed"
    exit_code = 1


class StreamRefusedError(MigrationError):
    """QEMU's stream holds something that this version of NovaCron does not know."""

    code = "stream_refused"


class ConfigurationDiffersError(MigrationError, ConflictError):
    """The two sides would not run the same machine."""

    code = "configuration_differs"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class ChannelProtocolError(MigrationError):
    """The other node sent what it may not send at this point."""

    code = "channel_protocol"


class QemuFailedError(MigrationError):
    """A QEMU gave the migration up."""

    code = "qemu_migration_failed"


class StalledError(MigrationError):
    """Nothing moved for a while, and the connections lived."""

    code = "migration_stalled"


class GuestBusyError(MigrationError):
    """The guest outran the link for longer than its policy waits."""

    code = "guest_busy"


class NodeRestartedError(MigrationError):
    """The source's node was started again before the hand-over, and took its VM back."""

    code = "node_restarted"


class StaleEpochError(MigrationError, ConflictError):
    """A message carries the epoch of an attempt that was given up."""

    code = "stale_epoch"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class MigrationCancelledError(MigrationError):
    """The migration was cancelled; the source runs on."""

    code = "migration_cancelled"


class NotRollbackableError(MigrationError, ConflictError):
    """The time for a rollback has passed."""

    code = "not_rollbackable"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class HandoverPendingError(MigrationError, UnreachableError):
    """The other side must answer before anybody may run the VM."""

    code = "handover_pending"
    exit_code = UnreachableError.exit_code
    http_status = UnreachableError.http_status
    retryable = True


class PolicyError(MigrationError, InvalidInputError):
    """The order asks for something that cannot be."""

    code = "migration_policy"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class JournalError(MigrationError, InternalError):
    """The node's journal and the world contradict each other."""

    code = "journal_contradiction"
