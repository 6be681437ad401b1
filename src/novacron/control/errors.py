"""Errors of the control plane.

ControlError
├── NoRoomError              no node can take this VM; says what is missing
├── NodeUnreachableError     the node of this VM does not answer (retryable)
├── NodeDrainedError         the node takes no VM until it is undrained
├── NodeRefusedError         the node that was chosen cannot take this VM, and another one may
├── NodeInUseError           the node has VMs, or serves
├── PeerUnreachableError     that cluster does not answer (retryable)
├── PeerUnknownError         there is no such cluster here
├── MigrationRefusedError    this VM cannot be moved like that
├── WindowShortError         it would not be through when its time window closes
├── PlanStaleError           the world is not what it was when the plan was made
├── BatchRefusedError        this cannot be asked of a batch now
├── ImageInUseError          a VM still boots from it
├── RepositoryBusyError      work on it goes on
├── SecretLostError          the controller's key file does not open what it has sealed
└── SavedStateError          the archive cannot be restored here
"""

from novacron.core.errors import ConflictError, InvalidInputError, NotFoundError, NovaCronError, UnreachableError


class ControlError(NovaCronError):
    """The cluster could not do it."""

    code = "control"


class NoRoomError(ControlError, ConflictError):
    """No node can take this VM."""

    code = "no_room"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class NodeUnreachableError(ControlError, UnreachableError):
    """The node does not answer."""

    code = "node_unreachable"
    exit_code = UnreachableError.exit_code
    http_status = UnreachableError.http_status
    retryable = True


class NodeDrainedError(ControlError, ConflictError):
    """The node takes no VM until it is undrained."""

    code = "node_drained"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class NodeRefusedError(ControlError, ConflictError):
    """The node that was chosen cannot take this VM, and another one may."""

    code = "node_refused"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class NodeInUseError(ControlError, ConflictError):
    """The node has VMs, or serves."""

    code = "node_in_use"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class PeerUnreachableError(ControlError, UnreachableError):
    """That cluster does not answer."""

    code = "peer_unreachable"
    exit_code = UnreachableError.exit_code
    http_status = UnreachableError.http_status
    retryable = True


class PeerUnknownError(ControlError, NotFoundError):
    """There is no such cluster here."""

    code = "peer_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class MigrationRefusedError(ControlError, ConflictError):
    """This VM cannot be moved like that."""

    code = "migration_refused"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class WindowShortError(ControlError, ConflictError):
    """It would not be through when its time window closes."""

    code = "window_short"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class PlanStaleError(ControlError, ConflictError):
    """The world is not what it was when the plan was made."""

    code = "plan_stale"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class BatchRefusedError(ControlError, ConflictError):
    """This cannot be asked of a batch now."""

    code = "batch_refused"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class ImageInUseError(ControlError, ConflictError):
    """A VM still boots from it."""

    code = "image_in_use"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class SavedStateError(ControlError, InvalidInputError):
    """The archive cannot be restored here."""

    code = "saved_state"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class RepositoryBusyError(ControlError, ConflictError):
    """Work on it goes on."""

    code = "repository_busy"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class SecretLostError(ControlError):
    """The controller's key file does not open what it has sealed."""

    code = "secret_lost"
