"""The QEMUs of a site, as its node's records name them: also while that node is dead or stands still."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from novacron.hypervisor.qemu.folder import InstanceRecord
from novacron.hypervisor.qemu.process import Process
from novacron.launch.demo.site import DemoSite

RECORDS: Final = re.compile(rb'"records":(\d+)')


@dataclass(frozen=True, slots=True)
class Qemu:
    """A living one; ``console`` is a file with all that its guest has said."""

    process: Process
    console: Path


def living(site: DemoSite) -> list[Qemu]:
    """The youngest last."""
    found = []
    for path in (site.directory / "node" / "vms").glob("*/instances/*.json"):
        with contextlib.suppress(FileNotFoundError):  # its node forgets it just now
            record = msgspec.json.decode(path.read_bytes(), type=InstanceRecord)
            found.append(Qemu(record.process(), Path(record.run_dir) / "console.log"))
    return sorted((qemu for qemu in found if qemu.process.alive), key=lambda qemu: qemu.process.started)


def records_said(site: DemoSite) -> int:
    """How many records the guest has said that it had, each of them synced before: none of them may be lost."""
    said = [RECORDS.findall(_read(qemu.console)) for qemu in living(site)]
    return max((int(count) for counts in said for count in counts[-1:]), default=0)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
