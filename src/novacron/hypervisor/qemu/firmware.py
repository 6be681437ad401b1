"""UEFI firmware, as Debian's package ``ovmf`` brings it."""

import shutil
from pathlib import Path
from typing import Final

from novacron.hypervisor.errors import QemuMissingError

CODE: Final = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES: Final = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")


def firmware_code() -> Path:
    """The read-only part, shared by all VMs; raises QemuMissingError."""
    if not CODE.exists():
        raise QemuMissingError("UEFI firmware (Debian package ovmf)")
    return CODE


def make_variables(path: Path) -> None:
    """A VM's own variables, unless it has them already."""
    if not VARIABLES.exists():
        raise QemuMissingError("UEFI firmware (Debian package ovmf)")
    if not path.exists():
        shutil.copyfile(VARIABLES, path)
