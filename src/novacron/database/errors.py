"""Errors of the database.

DatabaseError
├── DatabaseUrlError       that kind of database is not served
├── ResourceUnknownError   there is no such resource
├── NameTakenError         another resource has that name
├── VersionConflictError   the resource has changed since it was read
└── VersionGoneError       the change log no longer reaches back so far: list anew
"""

from novacron.core.errors import ConflictError, InvalidInputError, NotFoundError, NovaCronError


class DatabaseError(NovaCronError):
    """The database could not do it."""

    code = "database"


class DatabaseUrlError(DatabaseError, InvalidInputError):
    """That kind of database is not served."""

    code = "database_url"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class ResourceUnknownError(DatabaseError, NotFoundError):
    """There is no such resource."""

    code = "not_found"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class NameTakenError(DatabaseError, ConflictError):
    """Another resource has that name."""

    code = "name_taken"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class VersionConflictError(DatabaseError, ConflictError):
    """The resource has changed since it was read."""

    code = "version_conflict"
    exit_code = ConflictError.exit_code
    http_status = 412


class VersionGoneError(DatabaseError, ConflictError):
    """The change log no longer reaches back so far."""

    code = "version_gone"
    exit_code = ConflictError.exit_code
    http_status = 410
