"""What is kept of two sites in which a run ended wrong: logs, journals and records, without disks and images."""

import shutil
from pathlib import Path
from typing import Final

import msgspec

from novacron.launch import places
from novacron.launch.chaos.sites import Sites
from novacron.launch.chaos.trial import Run

KEPT: Final = ("*.log", "*.db", "*.db-wal", "instances/*.json", "log", "console.log")


def keep(sites: Sites, run: Run, folder: Path) -> None:
    """Copy it to ``folder``, with the run itself: before the sites end, because a QEMU's words go with its node's."""
    for site in (sites.home, sites.away):
        for root, target in (
            (site.directory, folder / site.name),
            (places.run_dir(site.directory / "node"), folder / site.name / "qemu"),
        ):
            _copy(root, target)
    (folder / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2))


def _copy(root: Path, target: Path) -> None:
    for pattern in KEPT:
        for path in root.rglob(pattern):
            if path.is_file():
                copy = target / path.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
