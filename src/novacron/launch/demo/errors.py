"""Errors of the demonstration.

DemoError
├── MoveFailedError     the migration ended without success
├── ProcessEndedError   one of its processes ended before it served
└── UnverifiedError     the guest has found something wrong
"""

from novacron.core.errors import NovaCronError, VerificationError


class DemoError(NovaCronError):
    """The demonstration could not go on."""

    code = "demo"


class MoveFailedError(DemoError):
    """The migration ended without success; the guest is where it was."""

    code = "move_failed"


class ProcessEndedError(DemoError):
    """One of its processes ended before it served."""

    code = "process_ended"


class UnverifiedError(DemoError, VerificationError):
    """The guest has found something wrong."""

    code = "demo_unverified"
    exit_code = VerificationError.exit_code
