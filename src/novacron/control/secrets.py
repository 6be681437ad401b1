"""Secrets that the cluster keeps for its nodes: in the database they are sealed, under a key in a file beside it."""

import secrets
from pathlib import Path
from typing import Final

from novacron.control.errors import SecretLostError
from novacron.database.database import Transaction
from novacron.repository.errors import DamagedError
from novacron.repository.sealing import KEY_BYTES, open_object, seal_object
from novacron.wire.authority import write_private

KEY_FILE: Final = "secrets.key"


class Secrets:
    """By the id of what each is for. The key file is made at the first start, readable by its owner only."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / KEY_FILE
        if not self._path.exists():
            write_private(self._path, secrets.token_bytes(KEY_BYTES))
        self._key = self._path.read_bytes()

    def put(self, tx: Transaction, owner: str, content: bytes) -> None:
        """Keep it, in the place of what was kept."""
        tx.execute("INSERT OR REPLACE INTO secrets VALUES (?, ?)", (owner, seal_object(self._key, owner, content)))

    def get(self, tx: Transaction, owner: str) -> bytes:
        """Raises SecretLostError."""
        rows = tx.execute("SELECT sealed FROM secrets WHERE id = ?", (owner,))
        try:
            return open_object(self._key, owner, rows[0][0])
        except (DamagedError, IndexError):
            raise SecretLostError(
                f"the key of {owner} cannot be had: {self._path} is not the one that it was sealed with",
                next_command="restore secrets.key of the controller's data folder",
            ) from None

    def forget(self, tx: Transaction, owner: str) -> None:
        """Harmless when there is none."""
        tx.execute("DELETE FROM secrets WHERE id = ?", (owner,))
