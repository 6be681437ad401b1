"""The key of a link between two QEMUs, in a folder that both this process and its QEMU may read, and nobody else.

QEMU's server looks the key up at each handshake, so the folder stays until the link is no longer needed.
"""

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

USER: Final = "qemu"  # as which QEMU's client shows itself, unless told otherwise


@dataclass(frozen=True, slots=True)
class LinkKey:
    """One key; ``name`` is that of QEMU's object, too."""

    name: str
    directory: Path

    @classmethod
    def write(cls, run_dir: Path, key: bytes) -> Self:
        """Put it into a folder of its own."""
        name = f"link-{secrets.token_hex(4)}"
        directory = run_dir / name
        directory.mkdir(mode=0o700)
        file = directory / "keys.psk"
        file.touch(mode=0o600)
        file.write_text(f"{USER}:{key.hex()}\n")
        return cls(name, directory)

    def object(self, endpoint: str) -> dict[str, str]:
        """What QEMU makes of it; ``endpoint`` is ``client`` or ``server``."""
        return {"qom-type": "tls-creds-psk", "id": self.name, "endpoint": endpoint, "dir": str(self.directory)}

    def remove(self) -> None:
        """Once no handshake is to come."""
        shutil.rmtree(self.directory, ignore_errors=True)
