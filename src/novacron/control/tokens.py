"""Join tokens: single use, short life, kept only as their SHA-256."""

import msgspec

from novacron.control.kinds import TOKENS
from novacron.core.ids import TokenId, new_id
from novacron.database.database import Transaction
from novacron.federation.errors import TokenRefusedError
from novacron.federation.invitation import Purpose, fingerprint
from novacron.protocol.resources import JoinToken


def issue(tx: Transaction, purpose: Purpose, secret: str, *, now: float, expires_at: float) -> None:
    """Remember that whoever shows ``secret`` may join, once; forget what has expired."""
    for old in list(TOKENS.every(tx)):
        if old.expires_at <= now:
            TOKENS.delete(tx, old.id)
    token = JoinToken(TokenId(new_id("token")), purpose, fingerprint(secret), expires_at)
    TOKENS.put(tx, token, named=False)


def redeem(tx: Transaction, purpose: Purpose, secret: str, bearer: str, now: float) -> None:
    """Use a token for ``bearer``; the same bearer may repeat it, whose answer was lost. Raises TokenRefusedError."""
    wanted = fingerprint(secret)
    again = f"novacron {'federation' if purpose == 'peer' else 'node'} invite"
    for token in TOKENS.every(tx):
        if token.secret_sha256 != wanted or token.purpose != purpose:
            continue
        if token.expires_at <= now:
            raise TokenRefusedError("this invitation has expired", next_command=again)
        if token.used_at is not None and token.used_by != bearer:
            raise TokenRefusedError("this invitation was used already", next_command=again)
        TOKENS.put(tx, msgspec.structs.replace(token, used_at=now, used_by=bearer), named=False)
        return
    raise TokenRefusedError("this invitation is not known here", next_command=again)
