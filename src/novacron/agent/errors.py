"""Errors of the node.

AgentError
├── VmNotHereError       this node has no such VM, or does not own it
├── ImageMissingError    an image has not come whole yet
├── ProbeUnknownError    this node's operator has put no such probe here
├── HookFailedError      a program of this node's operator does not let a VM come
├── JournalLostError     VMs are here, and the journal that says whose they are is not
├── MigrationUnknownError
├── CheckpointUnknownError     this node has no such checkpoint, or knows no such restore
├── CheckpointBrokenOffError   it was given up before it was whole
├── BackupUnknownError         this node knows no such backup, or the repository has none
├── BackupBrokenOffError       it was given up before it was whole
└── RepositoryWorkEndedError   work on a repository was given up
"""

from novacron.core.errors import ConflictError, NotFoundError, NovaCronError


class AgentError(NovaCronError):
    """The node could not do it."""

    code = "node"


class VmNotHereError(AgentError, NotFoundError):
    """This node has no such VM, or does not own it."""

    code = "vm_not_here"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class ImageMissingError(AgentError, ConflictError):
    """An image has not come whole yet."""

    code = "image_missing"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class ProbeUnknownError(AgentError, ConflictError):
    """This node's operator has put no such probe here."""

    code = "probe_unknown"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class HookFailedError(AgentError, ConflictError):
    """A program of this node's operator does not let a VM come."""

    code = "hook_failed"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class JournalLostError(AgentError, ConflictError):
    """VMs are here, and the journal that says whose they are is not."""

    code = "journal_lost"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class CheckpointUnknownError(AgentError, NotFoundError):
    """This node has no such checkpoint, or knows no such restore."""

    code = "checkpoint_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class CheckpointBrokenOffError(AgentError):
    """It was given up before it was whole."""

    code = "checkpoint_broken_off"


class BackupUnknownError(AgentError, NotFoundError):
    """This node knows no such backup, or the repository has none."""

    code = "backup_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class BackupBrokenOffError(AgentError):
    """It was given up before it was whole."""

    code = "backup_broken_off"


class MigrationUnknownError(AgentError, NotFoundError):
    """This node knows nothing of that migration."""

    code = "migration_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class RepositoryWorkEndedError(AgentError, ConflictError):
    """Work on a repository was given up."""

    code = "repository_work_ended"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status
