"""Errors of repositories.

RepositoryError
├── AddressError              it cannot be the address of a store, or how to reach it is not said
├── StoreError                what keeps the bytes answered with an error (retryable)
│   ├── StoreRefusedError     it does not take these keys, or they may not do this (not retryable)
│   ├── BucketMissingError    the bucket of that name is not there (not retryable)
│   └── StoreUnfitError       it cannot do what is asked of it, now or later (not retryable)
├── RepositoryFullError       there is no room for more
├── RepositoryMissingError    there is no repository in that place
├── RepositoryExistsError     there is one already, which is left alone
├── WrongKeyError             the key or passphrase is not the one of this repository
├── ManifestUnknownError      it holds no manifest of that name
├── ManifestExistsError       it holds one, which is never replaced
├── VanishingPackError        content that was to be used again is being removed: store it anew (retryable)
├── ChunkUnknownError         the index knows no place of a chunk
└── DamagedError              bytes are not those that were stored
    ├── PackMissingError      a pack that the index names is not there
    └── IndexDamagedError     a segment of the index is damaged; packs can tell it again
"""

from novacron.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    NovaCronError,
    RefusedError,
    VerificationError,
)


class RepositoryError(NovaCronError):
    """A repository could not do it."""

    code = "repository"


class AddressError(RepositoryError, InvalidInputError):
    """It cannot be the address of a store, or how to reach it is not said."""

    code = "store_address"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class StoreError(RepositoryError):
    """What keeps the bytes answered with an error."""

    code = "store"
    retryable = True


class StoreRefusedError(StoreError, RefusedError):
    """It does not take these keys, or they may not do this."""

    code = "store_refused"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status
    retryable = False


class BucketMissingError(StoreError, NotFoundError):
    """The bucket of that name is not there."""

    code = "bucket_missing"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status
    retryable = False


class StoreUnfitError(StoreError):
    """It cannot do what is asked of it, now or later."""

    code = "store_unfit"
    retryable = False


class RepositoryFullError(RepositoryError, ConflictError):
    """There is no room for more."""

    code = "repository_full"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class RepositoryMissingError(RepositoryError, NotFoundError):
    """There is no repository in that place."""

    code = "repository_missing"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class RepositoryExistsError(RepositoryError, ConflictError):
    """There is one already, which is left alone."""

    code = "repository_exists"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class WrongKeyError(RepositoryError, RefusedError):
    """The key or passphrase is not the one of this repository."""

    code = "repository_key"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status


class ManifestUnknownError(RepositoryError, NotFoundError):
    """It holds no manifest of that name."""

    code = "manifest_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class ManifestExistsError(RepositoryError, ConflictError):
    """It holds one of that name, which is never replaced."""

    code = "manifest_exists"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class VanishingPackError(RepositoryError):
    """Content that was to be used again is being removed: whoever stores begins anew."""

    code = "pack_vanishing"
    retryable = True


class ChunkUnknownError(RepositoryError, VerificationError):
    """The index knows no place of a chunk."""

    code = "chunk_unknown"
    exit_code = VerificationError.exit_code


class DamagedError(RepositoryError, VerificationError):
    """Bytes are not those that were stored."""

    code = "repository_damaged"
    exit_code = VerificationError.exit_code


class PackMissingError(DamagedError):
    """A pack that the index names is not there."""

    code = "pack_missing"


class IndexDamagedError(DamagedError):
    """A segment of the index is damaged."""

    code = "index_damaged"
