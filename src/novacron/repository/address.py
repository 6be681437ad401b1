"""A store by its address: a folder's path, or ``s3://BUCKET`` and, with a slash, a prefix."""

import os
import re
from pathlib import Path
from typing import Final

from novacron.repository.careful import CarefulStore
from novacron.repository.errors import AddressError
from novacron.repository.folder import FolderStore
from novacron.repository.s3 import S3Store
from novacron.repository.s3_access import S3Access, read_access
from novacron.repository.store import Store

_S3: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)/?")


def open_store(address: str, access: S3Access | Path | None = None) -> Store:
    """The one way to a store. S3's keys are ``access``, or in that file, else in the environment; raises AddressError.

    Nothing is asked of the store yet.
    """
    check_address(address)
    if "://" not in address:
        return FolderStore(Path(address).expanduser().absolute())
    bucket, prefix = _in_s3(address)
    if not isinstance(access, S3Access):
        access = read_access(access, os.environ)
    return CarefulStore(S3Store(bucket, prefix, access))


def check_address(address: str) -> None:
    """Raises AddressError for what can never be the address of a store."""
    if "://" in address:
        _in_s3(address)
    elif not address:
        raise AddressError("a store's address must not be empty")


def _in_s3(address: str) -> tuple[str, str]:
    """Bucket and prefix."""
    found = _S3.fullmatch(address)
    if found is None:
        raise AddressError(
            f"{address.partition('://')[0]}://… is not the address of a store",
            next_command="give a folder's path, or s3://BUCKET/PREFIX",
        )
    return found[1], found[2].removeprefix("/")
