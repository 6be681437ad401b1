"""What a repository's store can do, as ``probe`` has found it, and what is done about what it cannot.

traits = JSON {"conditional_create", "probed_at", "ranged_reads"} in one line, newline, BLAKE3 of all before (32)
"""

from typing import Final

import blake3
import msgspec
from msgspec import Struct

from novacron.repository.errors import DamagedError
from novacron.repository.store import Store
from novacron.repository.weak import AskingStore, WholeReadStore

NAME: Final = "traits"  # of the object
_HASH_BYTES: Final = 32


class Traits(Struct, frozen=True, forbid_unknown_fields=True):
    """``probed_at`` in seconds since 1970."""

    conditional_create: bool
    ranged_reads: bool
    probed_at: float

    def weaknesses(self) -> tuple[str, ...]:
        """In sentences, for whoever makes or opens the repository."""
        told = []
        if not self.conditional_create:
            told.append("the store lets several writers put one name: never let two write to this repository at a time")
        if not self.ranged_reads:
            told.append("the store reads only whole objects: single chunks are read slowly")
        return tuple(told)

    def fit(self, store: Store) -> Store:
        """The store, with what makes up for its weaknesses."""
        if not self.ranged_reads:
            store = WholeReadStore(store)
        if not self.conditional_create:
            store = AskingStore(store)
        return store

    def encode(self) -> bytes:
        """The object."""
        line = msgspec.json.encode(self, order="sorted") + b"\n"
        return line + blake3.blake3(line).digest()


def decode_traits(stored: bytes) -> Traits:
    """Raises DamagedError."""
    line, digest = stored[:-_HASH_BYTES], stored[-_HASH_BYTES:]
    try:
        if blake3.blake3(line).digest() == digest:
            return msgspec.json.decode(line, type=Traits)
    except msgspec.MsgspecError:
        pass
    raise DamagedError(
        f"what is known of the repository's store is damaged: its object {NAME}",
        next_command=f"remove the object {NAME}: it is made anew when the repository is opened",
    )
