"""What an S3 service's answers mean: is it worth another try, and what can be done?"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from obstore.exceptions import AlreadyExistsError

from novacron.repository.errors import (
    BucketMissingError,
    RepositoryError,
    RepositoryFullError,
    StoreError,
    StoreRefusedError,
    StoreUnfitError,
)
from novacron.repository.store import ObjectExistsError, ObjectMissingError

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_SILENT: Final = re.compile(r"kind: (Connect|Timeout)\b")
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "ServiceQuotaExceeded"})
_TRANSIENT: Final = frozenset({"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted"})
_CLOCK: Final = "RequestTimeTooSkewed"
_TRY_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and where it is asked for."""

    bucket: str
    url: str


def is_past_the_end(error: Exception) -> bool:
    """Whether a part was asked for that begins where the object ends, or later."""
    return _number(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


def meaning(error: Exception, place: Place, name: str) -> RepositoryError | ObjectExistsError | ObjectMissingError:
    """The error of ours. Raise it without its cause: the service's text may quote the request, its token too."""
    status, code = _number(error), _code(error)
    said = f"S3 at {place.url} answered {' '.join(str(part) for part in (status, code) if part)} for {name}"
    told: RepositoryError | ObjectExistsError | ObjectMissingError
    if code == "NoSuchBucket":
        make = f"make the bucket {place.bucket}, or correct the address"
        told = BucketMissingError(f"there is no bucket {place.bucket} at {place.url}", next_command=make)
    elif status == HTTPStatus.INSUFFICIENT_STORAGE or code in _FULL:
        free = f"raise the quota of {place.bucket}, or prune"
        told = RepositoryFullError(f"the bucket {place.bucket} at {place.url} is full", next_command=free)
    elif code in _TRANSIENT:
        told = StoreError(said, next_command=f"curl -sSI {place.url}")
    elif isinstance(error, AlreadyExistsError):
        told = ObjectExistsError(name)
    elif isinstance(error, FileNotFoundError):
        told = ObjectMissingError(name)
    elif status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        keys = f"check the keys for {place.bucket}, and their rights"
        told = StoreRefusedError(said, next_command="timedatectl status" if code == _CLOCK else keys)
    elif status is None:
        told = _unanswered(str(error), place, name)
    elif status in _TRY_AGAIN or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED):
        told = StoreError(said, next_command=f"curl -sSI {place.url}")
    else:
        told = StoreUnfitError(said, next_command=f"check that {place.url} is an S3 service")
    return told


def _unanswered(text: str, place: Place, name: str) -> StoreError:
    """Of an answer that did not come, broke off, or made no sense."""
    if "non-partial response" in text:
        return StoreUnfitError(f"S3 at {place.url} cannot read a part of an object")
    if "InvalidCertificate" in text:
        return StoreUnfitError(
            f"the certificate of S3 at {place.url} is not trusted", next_command="name its authority's file as ca_file"
        )
    silent = _SILENT.search(text)
    what = {"Connect": "cannot be reached", "Timeout": "did not answer in time"}[silent[1]] if silent else "broke off"
    return StoreError(f"S3 at {place.url} {what} ({name})", next_command=f"curl -sSI {place.url}")


def _number(error: Exception) -> int | None:
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def _code(error: Exception) -> str:
    found = _CODE.search(str(error))
    return found[1] if found else ""
