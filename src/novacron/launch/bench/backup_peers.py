"""restic and Borg, as they come with their defaults: a repository in a folder, encrypted, compressed."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECRET: Final = "bench"  # noqa: S105 - of a repository that is removed again


@dataclass(frozen=True, slots=True)
class Peer:
    """Commands by what they measure; ``full`` comes first, and each reads the whole disk."""

    name: str
    make: list[str]
    steps: Mapping[str, list[str]]


def installed_peers(folder: Path, disk: Path) -> list[Peer]:
    """Those that are on this machine."""
    makers: Mapping[str, Callable[[Path, Path], Peer]] = {"restic": _restic, "borg": _borg}
    return [make(folder / name, disk) for name, make in makers.items() if shutil.which(name)]


def call(command: list[str], folder: Path) -> None:
    """Run one to its end, with nothing of this user's own; raises CalledProcessError."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RESTIC_PASSWORD": SECRET,
        "BORG_PASSPHRASE": SECRET,
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _restic(repository: Path, disk: Path) -> Peer:
    restic = ["restic", "--quiet", "--repo", str(repository)]
    backup = [*restic, "backup", "--force", str(disk)]
    steps = {
        "full": backup,
        "unchanged": backup,
        "4 % changed": backup,
        "read back": [*restic, "dump", "latest", str(disk)],
        "check": [*restic, "check", "--read-data"],
    }
    return Peer("restic", [*restic, "init"], steps)


def _borg(repository: Path, disk: Path) -> Peer:
    create = ["borg", "create", "--compression", "zstd,1", "--files-cache", "disabled"]
    create += ["--chunker-params", "fixed,1048576"]
    steps = {
        "full": [*create, f"{repository}::one", str(disk)],
        "unchanged": [*create, f"{repository}::two", str(disk)],
        "4 % changed": [*create, f"{repository}::three", str(disk)],
        "read back": ["borg", "extract", "--stdout", f"{repository}::three"],
        "check": ["borg", "check", "--verify-data", str(repository)],
    }
    return Peer("borg", ["borg", "init", "--encryption", "repokey-blake2", str(repository)], steps)
