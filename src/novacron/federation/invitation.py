"""An invitation: one line of text that says whom to call, how to know them, and the right to call once.

The text is ``novacron1.`` and the base64url of MessagePack; the secret in it is good once, until it expires.
"""

import base64
import hashlib
import secrets
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from novacron.core.ids import ClusterId
from novacron.federation.errors import InvitationExpiredError, InvitationInvalidError

PREFIX: Final = "novacron1."
LONGEST: Final = 8192
SECRET_BYTES: Final = 32

Purpose = Literal["peer", "node"]
Text = Annotated[str, Meta(min_length=1, max_length=255)]


class Invite(Struct, frozen=True, array_like=True):
    """What the text holds; ``root_pem`` pins the certificate authority of the cluster that invites."""

    purpose: Purpose
    cluster_id: Annotated[ClusterId, Meta(min_length=1, max_length=63)]
    cluster_name: Text
    address: Text  # host:port
    root_pem: Annotated[str, Meta(max_length=4096)]
    secret: Annotated[str, Meta(min_length=16, max_length=128)]
    expires_at: float


def new_secret() -> str:
    """A fresh token; only ``fingerprint`` of it is kept."""
    return secrets.token_urlsafe(SECRET_BYTES)


def fingerprint(secret: str) -> str:
    """SHA-256 of a token, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def write(invite: Invite) -> str:
    """The text."""
    return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(invite)).decode().rstrip("=")


def read(text: str, purpose: Purpose, now: float) -> Invite:
    """The invitation that ``text`` writes; raises InvitationInvalidError, InvitationExpiredError."""
    text = text.strip()
    again = f"novacron {'federation' if purpose == 'peer' else 'node'} invite (at the cluster that invites)"
    if len(text) > LONGEST or not text.startswith(PREFIX):
        raise InvitationInvalidError("this text is not an invitation of NovaCron", next_command=again)
    body = text.removeprefix(PREFIX)
    try:
        invite = msgspec.msgpack.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Invite)
    except (ValueError, msgspec.DecodeError) as error:  # binascii.Error is a ValueError
        raise InvitationInvalidError(f"this invitation is damaged: {error}", next_command=again) from error
    if invite.purpose != purpose:
        raise InvitationInvalidError(
            f"this invitation is for a {invite.purpose}, not for a {purpose}", next_command=again
        )
    if invite.expires_at <= now:
        raise InvitationExpiredError(f"the invitation of {invite.cluster_name} has expired", next_command=again)
    return invite
