"""A controller's state in one file: its database, its authority, credentials and secrets. Images are not in it.

Whoever has this file is the cluster: it holds the root key. A restored database has a new incarnation, so that nobody
takes its versions for those of the one that went on.
"""

import asyncio
import io
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from novacron.control.errors import SavedStateError
from novacron.control.kinds import SCHEMA
from novacron.control.secrets import KEY_FILE as SECRETS_KEY
from novacron.database.database import Database
from novacron.database.resources import renew_incarnation

DATABASE: Final = "novacron.db"
FOLDERS: Final = ("authority", "credentials")
FILES: Final = ("admin.token", SECRETS_KEY)
MANIFEST: Final = "manifest.json"
LARGEST_MEMBER: Final = 64 << 30


class Manifest(msgspec.Struct, frozen=True):
    """What the archive is."""

    format: int
    cluster: str


async def save(database: Database, data_dir: Path, cluster: str, target: Path) -> None:
    """Write the archive, readable by its owner only; the controller goes on meanwhile."""
    with tempfile.TemporaryDirectory(dir=data_dir) as temporary:
        copy = Path(temporary) / DATABASE
        await database.save(copy)
        await asyncio.to_thread(_pack, data_dir, copy, cluster, target)


async def restore(archive: Path, data_dir: Path) -> None:
    """Fill an empty data folder from an archive; raises SavedStateError, and then leaves the folder empty."""
    if data_dir.exists() and any(data_dir.iterdir()):
        raise SavedStateError(f"{data_dir} is not empty: restore into a new folder")
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        await asyncio.to_thread(_unpack, archive, data_dir)
        database = await Database.open(str(data_dir / DATABASE), SCHEMA)
        await database.write(renew_incarnation)
        await database.close()
    except BaseException:
        shutil.rmtree(data_dir)
        raise


def _pack(data_dir: Path, copy: Path, cluster: str, target: Path) -> None:
    target.touch(mode=0o600)
    with tarfile.open(target, "w:gz") as archive:
        manifest = msgspec.json.encode(Manifest(1, cluster))
        entry = tarfile.TarInfo(MANIFEST)
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
        archive.add(copy, DATABASE)
        for name in (*FOLDERS, *FILES):
            archive.add(data_dir / name, name)


def _unpack(source: Path, data_dir: Path) -> None:
    try:
        with tarfile.open(source, "r:gz") as archive:
            members = archive.getmembers()
            names = {member.name for member in members}
            if not {MANIFEST, DATABASE, *FOLDERS} <= names:
                raise SavedStateError(f"{source} is not a saved controller")
            for member in members:
                if member.size > LARGEST_MEMBER:
                    raise SavedStateError(f"{source} holds a file that is too large: {member.name}")
            archive.extractall(data_dir, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SavedStateError(f"{source} cannot be read as a saved controller: {error}") from error
    (data_dir / MANIFEST).unlink()
