"""``Idempotency-Key``: a request that is sent twice is done once."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from litestar import Response

from novacron.api.errors import IdempotencyMismatchError
from novacron.api.given import Answer, Asked
from novacron.control.controller import Controller
from novacron.core.errors import InvalidInputError
from novacron.database.database import Transaction

KEPT_S: Final = 24 * 3600
LONGEST_KEY: Final = 200
_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


async def once(request: Asked, controller: Controller, work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Do ``work``, or give the answer that the same key got before. Raises IdempotencyMismatchError."""
    key = request.headers.get("idempotency-key", "")
    if not key:
        return await work()
    if len(key) > LONGEST_KEY:
        raise InvalidInputError(f"an Idempotency-Key has at most {LONGEST_KEY} characters")
    lock = _locks.setdefault(key, asyncio.Lock())
    async with lock:
        digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + await request.body()).hexdigest()
        before = await controller.database.write(lambda tx: _recall(tx, key, digest, controller.clock.now()))
        if before is not None:
            return before
        answer = await work()
        await controller.database.write(lambda tx: _remember(tx, key, digest, answer, controller.clock.now()))
        return answer


def _recall(tx: Transaction, key: str, digest: str, now: float) -> Answer | None:
    tx.execute("DELETE FROM idempotency WHERE at < ?", (now - KEPT_S,))
    rows = tx.execute("SELECT request_sha256, status, headers, body FROM idempotency WHERE key = ?", (key,))
    if not rows:
        return None
    known, status, headers, body = rows[0]
    if known != digest:
        raise IdempotencyMismatchError("this Idempotency-Key came with another request before: use a fresh one")
    return Response(msgspec.json.decode(body), status_code=status, headers=msgspec.json.decode(headers))


def _remember(tx: Transaction, key: str, digest: str, answer: Answer, now: float) -> None:
    headers, body = msgspec.json.encode(answer.headers), msgspec.json.encode(answer.content)
    tx.execute(
        "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)",
        (key, digest, answer.status_code, headers, body, now),
    )
