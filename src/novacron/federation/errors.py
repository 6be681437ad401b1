"""Errors of federation.

FederationError
├── InvitationInvalidError   the text is not an invitation, or one for something else
├── InvitationExpiredError   its time is over
├── TokenRefusedError        its token is unknown here, or was used by another
├── PeerMismatchError        who answers is not who the invitation names
└── JoinUnfinishedError      one side has joined, the other has not said so yet (it goes on by itself)
"""

from novacron.core.errors import InvalidInputError, NovaCronError, RefusedError, UnreachableError


class FederationError(NovaCronError):
    """Two clusters, or a node and its cluster, could not join."""

    code = "federation"


class InvitationInvalidError(FederationError, InvalidInputError):
    """The text is not an invitation, or one for something else."""

    code = "invitation_invalid"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class InvitationExpiredError(FederationError, RefusedError):
    """Its time is over."""

    code = "invitation_expired"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status


class TokenRefusedError(FederationError, RefusedError):
    """Its token is unknown here, or was used by another."""

    code = "token_refused"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status


class PeerMismatchError(FederationError, RefusedError):
    """Who answers is not who the invitation names."""

    code = "peer_mismatch"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status


class JoinUnfinishedError(FederationError, UnreachableError):
    """One side has joined, the other has not said so yet."""

    code = "join_unfinished"
    exit_code = UnreachableError.exit_code
    http_status = UnreachableError.http_status
    retryable = True
