"""Ids: one type an entity, so that none is taken for another."""

import re
import secrets
from typing import NewType

from novacron.core.errors import InvalidInputError

VmId = NewType("VmId", str)
NodeId = NewType("NodeId", str)
ClusterId = NewType("ClusterId", str)
ImageId = NewType("ImageId", str)
MigrationId = NewType("MigrationId", str)
BatchId = NewType("BatchId", str)
PlanId = NewType("PlanId", str)
CheckpointId = NewType("CheckpointId", str)
BackupId = NewType("BackupId", str)
RestoreId = NewType("RestoreId", str)
TokenId = NewType("TokenId", str)
RepositoryId = NewType("RepositoryId", str)
RequestId = NewType("RequestId", str)

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[a-z]{1,12}-[0-9a-f]{20}")


def new_id(prefix: str) -> str:
    """A fresh random id such as ``vm-3f…`` (80 random bits)."""
    return f"{prefix}-{secrets.token_hex(10)}"


def check_name(name: str, what: str) -> str:
    """``name`` when it can be a host name's label, else InvalidInputError."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(
            f"{name!r} cannot be the name of a {what}: use 1 to 63 of a-z, 0-9 and '-', not at either end"
        )
    return name


def check_id(text: str, what: str) -> str:
    """``text`` when it has the form of an id (ids become file names), else InvalidInputError."""
    if _ID.fullmatch(text) is None:
        raise InvalidInputError(f"{text!r} is not the id of a {what}")
    return text
