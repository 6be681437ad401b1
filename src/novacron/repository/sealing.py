"""Sealed bytes: AES-256-GCM under a subkey of their own, so that a nonce can count.

sealed object = salt (32 random bytes), AES-256-GCM of the content (16 bytes of tag at the end)
The subkey is HKDF-SHA256(key, salt, info = "novacron sealed 1"); the object's name is associated data.
"""

import os
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from novacron.repository.errors import DamagedError

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
TAG_BYTES: Final = 16
Bytes = bytes | bytearray | memoryview
_NONCE: Final = struct.Struct(">IQ")


class Sealer:
    """One subkey. A nonce is a lane (what is sealed) and a number, and is never used twice for sealing."""

    def __init__(self, key: bytes, salt: bytes, info: bytes) -> None:
        self._cipher = AESGCM(derive(key, salt, info))

    def seal(self, lane: int, number: int, content: Bytes, associated: bytes = b"") -> bytes:
        """``content`` and 16 bytes more."""
        return self._cipher.encrypt(_NONCE.pack(lane, number), content, associated)

    def open(self, lane: int, number: int, sealed: Bytes, associated: bytes = b"") -> bytes:
        """What was sealed so; raises DamagedError."""
        try:
            return self._cipher.decrypt(_NONCE.pack(lane, number), sealed, associated)
        except InvalidTag:
            raise DamagedError("sealed bytes were changed, or are of another place") from None


def derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes that follow from ``key`` and tell nothing of it."""
    return HKDF(SHA256(), KEY_BYTES, salt, info).derive(key)


def new_salt() -> bytes:
    """Never the same."""
    return os.urandom(SALT_BYTES)


def seal_object(key: bytes, name: str, content: bytes) -> bytes:
    """The object called ``name``."""
    salt = new_salt()
    return salt + Sealer(key, salt, b"novacron sealed 1").seal(0, 0, content, name.encode())


def open_object(key: bytes, name: str, stored: bytes) -> bytes:
    """Its content; raises DamagedError."""
    try:
        return Sealer(key, stored[:SALT_BYTES], b"novacron sealed 1").open(0, 0, stored[SALT_BYTES:], name.encode())
    except DamagedError:
        raise DamagedError(f"{name} is damaged: its bytes are not those that were stored") from None
