"""The key of a repository, and the envelope in which it lies beside what it locks.

envelope = one line of JSON {"how", "id", "chunker", "n", "r", "p", "salt"}, a newline, the repository's key (32 bytes)
sealed by AES-256-GCM under the envelope's key with the line as associated data, BLAKE3 of all that (32 bytes)

``how`` gives the envelope's key: ``passphrase`` (scrypt), ``file`` (HKDF of a key file's bytes), ``open`` (32 zeros: a
repository that anybody who has it can read), ``recovery`` (HKDF of a recovery key, in an envelope of its own).
"""

import base64
import binascii
import os
from dataclasses import dataclass
from typing import Final, Self

import blake3
import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Struct

from novacron.repository.errors import DamagedError, WrongKeyError
from novacron.repository.sealing import KEY_BYTES, SALT_BYTES, Sealer, derive, new_salt

SCRYPT_N: Final = 1 << 16  # 64 MiB, about 0.2 s
SCRYPT_R: Final = 8
MAX_SCRYPT_N: Final = 1 << 20  # what an envelope may ask for
MAX_SCRYPT_R: Final = 16
CHECK_BYTES: Final = 32
ID_BYTES: Final = 16
MIN_FILE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """What opens an envelope: a passphrase, a key file's content, a recovery key, or nothing (see ``how``)."""

    how: str
    content: bytes = b""

    @classmethod
    def passphrase(cls, text: str) -> Self:
        """A text that a person knows."""
        return cls("passphrase", text.encode())

    @classmethod
    def file(cls, content: bytes) -> Self:
        """The bytes of a key file; raises WrongKeyError for less than 32."""
        if len(content) < MIN_FILE_BYTES:
            raise WrongKeyError(f"a key file of {len(content)} bytes: it has at least {MIN_FILE_BYTES}")
        return cls("file", content)

    @classmethod
    def recovery(cls, text: str) -> Self:
        """A key that ``new_recovery_key`` has made, however it was written down; raises WrongKeyError."""
        try:
            content = base64.b32decode("".join(text.replace("-", " ").split()).upper() + _PADDING)
        except (binascii.Error, ValueError):
            content = b""
        if len(content) != KEY_BYTES:
            raise WrongKeyError("that is not a recovery key: it has 13 groups of four letters or digits")
        return cls("recovery", content)

    @classmethod
    def none(cls) -> Self:
        """Encryption is refused."""
        return cls("open")


def new_recovery_key() -> str:
    """32 random bytes as people write them down."""
    text = base64.b32encode(os.urandom(KEY_BYTES)).decode().removesuffix(_PADDING)
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


_PADDING: Final = "===="  # of 32 bytes in base32


class _Line(Struct, frozen=True, forbid_unknown_fields=True):
    how: str
    id: str
    chunker: str
    n: int
    r: int
    p: int
    salt: str


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """Everything that follows from a repository's key."""

    repository_id: str
    root: bytes
    chunk_id: bytes
    cut: bytes
    pack: bytes
    index: bytes
    manifest: bytes
    tombstone: bytes

    @classmethod
    def of(cls, repository_id: str, root: bytes) -> Self:
        """Each use has a key of its own: HKDF-SHA256(root, salt = the id, info = "novacron 1 <use>")."""
        uses = (derive(root, repository_id.encode(), f"novacron 1 {use}".encode()) for use in _USES)
        return cls(repository_id, root, *uses)

    @classmethod
    def new(cls, repository_id: str = "") -> Self:
        """A new repository's; its id (16 bytes in hex) is random if it is not given."""
        return cls.of(repository_id or os.urandom(ID_BYTES).hex(), os.urandom(KEY_BYTES))


_USES: Final = ("chunk-id", "cut", "pack", "index", "manifest", "tombstone")


def close_envelope(keys: Keys, chunker: str, secret: Secret) -> bytes:
    """The envelope of ``keys`` for who has ``secret``."""
    line = _Line(secret.how, keys.repository_id, chunker, SCRYPT_N, SCRYPT_R, 1, new_salt().hex())
    head = msgspec.json.encode(line) + b"\n"
    body = head + _sealer(line, secret).seal(0, 0, keys.root, head)
    return body + blake3.blake3(body).digest()


def check_envelope(envelope: bytes) -> bytes:
    """What stands before its BLAKE3; raises DamagedError."""
    body = envelope[:-CHECK_BYTES]
    if blake3.blake3(body).digest() != envelope[-CHECK_BYTES:]:
        raise DamagedError("an envelope of the repository's key is damaged")
    return body


def open_envelope(envelope: bytes, secret: Secret) -> tuple[Keys, str]:
    """The keys within, and the chunker's name; raises DamagedError, and WrongKeyError for another ``secret``."""
    head, newline, sealed = check_envelope(envelope).partition(b"\n")
    try:
        line = msgspec.json.decode(head, type=_Line)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"the envelope of the repository's key cannot be read: {error}") from error
    if line.how != secret.how:
        raise WrongKeyError(f"the repository's key lies behind {_HOW.get(line.how, line.how)}")
    try:
        return Keys.of(line.id, _sealer(line, secret).open(0, 0, sealed, head + newline)), line.chunker
    except DamagedError:
        raise WrongKeyError(f"{_HOW[secret.how]} of another repository was given") from None


_HOW: Final = {"passphrase": "a passphrase", "file": "a key file", "recovery": "a recovery key", "open": "no lock"}


def _sealer(line: _Line, secret: Secret) -> Sealer:
    salt = bytes.fromhex(line.salt)
    if len(salt) != SALT_BYTES or not (1 < line.n <= MAX_SCRYPT_N and 0 < line.r <= MAX_SCRYPT_R and line.p == 1):
        raise DamagedError("the envelope of the repository's key asks for more than an envelope may")
    match secret.how:
        case "passphrase":
            key = Scrypt(salt, KEY_BYTES, line.n, line.r, line.p).derive(secret.content)
        case "open":
            key = bytes(KEY_BYTES)
        case _:
            key = secret.content
    return Sealer(key, salt, b"novacron envelope 1")
