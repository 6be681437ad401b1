"""Errors of the wire.

WireError
├── IdentityError            a certificate does not prove what it must
│   └── CertificateExpiredError
├── ConnectionBrokenError    the other side went away, or was silent for too long (retryable)
├── ConnectionClosedError    this side has closed
├── FrameError               bytes that the protocol does not allow
└── NotAllowedError          the caller may not call that
"""

from novacron.core.errors import NovaCronError, RefusedError, UnreachableError


class WireError(NovaCronError):
    """Two processes could not speak to each other."""

    code = "wire"


class IdentityError(WireError, RefusedError):
    """A certificate does not prove what it must."""

    code = "identity"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status


class CertificateExpiredError(IdentityError):
    """A certificate's time is over."""

    code = "certificate_expired"


class ConnectionBrokenError(WireError, UnreachableError):
    """The other side went away, or was silent for too long; whether it did what was asked is not known."""

    code = "connection_broken"
    exit_code = UnreachableError.exit_code
    http_status = UnreachableError.http_status
    retryable = True


class ConnectionClosedError(WireError):
    """The connection was closed by this side."""

    code = "connection_closed"


class FrameError(WireError):
    """Bytes that the protocol does not allow."""

    code = "frame"


class NotAllowedError(WireError, RefusedError):
    """The caller may not call that."""

    code = "not_allowed"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status
