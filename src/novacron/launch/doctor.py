"""``novacron doctor``: whether this machine can run NovaCron, found out by trying."""

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from msgspec import Struct

import novacron
from novacron.cli.kinds import Found
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.core.settings import Settings, default_data_dir
from novacron.core.units import GIB, MIB, format_size
from novacron.hypervisor.errors import QemuMissingError
from novacron.hypervisor.qemu.accelerator import boots, find_qemu
from novacron.launch.lab.errors import LabError
from novacron.launch.lab.tun import open_tun

OK, WARN, FAIL = "ok", "warn", "fail"
OLDEST_QEMU: Final = (7, 2, 0)
ROOMY_DISK_BYTES: Final = 10 * GIB
LEAST_DISK_BYTES: Final = 2 * GIB  # the demo's guest, twice, with what is built on the way
ROOMY_RAM_BYTES: Final = 4 * GIB
LEAST_RAM_BYTES: Final = 768 * MIB
TCG_TIMEOUT_S: Final = 20.0  # an emulated CPU on a busy machine
TIMEX_BYTES: Final = 512  # more than struct timex has
CLOCK_ERROR: Final = 5  # what adjtimex returns while nothing keeps the clock right
TMPFS: Final = Path("/dev/shm")  # noqa: S108 - a mount point, not a file
GUEST_TOOLS: Final = ("gcc", "cpio", "depmod", "dpkg-deb", "apt-get", "busybox", "mke2fs")


class Check(Struct, frozen=True):
    """One thing that was tried."""

    what: str
    state: str  # ok, warn (works, with less) or fail
    found: str
    next_command: str = ""


COLUMNS: Final[tuple[Column[Check], ...]] = (
    Column("", lambda check: check.state),
    Column("WHAT", lambda check: check.what),
    Column("FOUND", lambda check: check.found),
    Column("NEXT", lambda check: check.next_command),
)


@click.command("doctor")
@in_session
def command(session: Session) -> None:
    """Look whether this machine can run NovaCron. Exit 0 when nothing fails, else 1."""
    with session.output.working("trying what there is"):
        checks = list(examine(session.settings))
    session.output.rows([Found(check) for check in checks], COLUMNS, empty="")
    if any(check.state == FAIL for check in checks):
        raise click.exceptions.Exit(1)


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which they matter."""
    yield from _qemu()
    yield _tool("qemu-img", "qemu-utils")
    yield _disk(Path(settings.node.data_dir) if settings.node.data_dir else default_data_dir("node"))
    yield _tmpfs(Path(settings.node.ram_dir) if settings.node.ram_dir else TMPFS)
    yield _clock()
    yield _port("port of the controller", settings.controller.listen)
    yield _port("port of the API", settings.controller.api)
    yield _port("port of the node", settings.node.listen)
    yield _lab()
    yield _guest_tools()


def _qemu() -> Iterator[Check]:
    try:
        qemu = asyncio.run(find_qemu())
    except QemuMissingError as error:
        yield Check("QEMU", FAIL, error.cause, error.next_command)
        return
    text = f"{'.'.join(map(str, qemu.version))} at {qemu.program}"
    new_enough = qemu.version >= OLDEST_QEMU
    yield Check("QEMU", OK if new_enough else FAIL, text, "" if new_enough else "apt-get install qemu-system-x86")
    yield _accelerator(qemu.program)


def _accelerator(program: str) -> Check:
    """A guest is booted: a /dev/kvm that is there says nothing."""
    with tempfile.TemporaryDirectory() as directory:
        if asyncio.run(boots(program, "kvm", Path(directory))):
            return Check("accelerator", OK, "KVM: a guest booted under it")
        reason = "it hangs or refuses a guest" if os.access("/dev/kvm", os.R_OK | os.W_OK) else _no_kvm()
        if asyncio.run(boots(program, "tcg", Path(directory), TCG_TIMEOUT_S)):
            found = f"no KVM ({reason}); a guest booted under TCG: everything works, slowly"
            return Check("accelerator", WARN, found, "ls -l /dev/kvm")
    return Check("accelerator", FAIL, f"no KVM ({reason}), and no guest booted under TCG", f"{program} --version")


def _no_kvm() -> str:
    return "/dev/kvm may not be opened" if Path("/dev/kvm").exists() else "there is no /dev/kvm"


def _tool(name: str, package: str) -> Check:
    path = shutil.which(name)
    return Check(name, OK, path) if path else Check(name, FAIL, "not installed", f"apt-get install {package}")


def _disk(data_dir: Path) -> Check:
    there = next(path for path in (data_dir, *data_dir.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Check("room on disk", FAIL, f"{there} may not be written", "novacron up --data-dir DIR")
    return _room("room on disk", data_dir, shutil.disk_usage(there).free, LEAST_DISK_BYTES, ROOMY_DISK_BYTES)


def _tmpfs(ram_dir: Path) -> Check:
    there = next(path for path in (ram_dir, *ram_dir.absolute().parents) if path.exists())
    return _room("room for RAM", ram_dir, shutil.disk_usage(there).free, LEAST_RAM_BYTES, ROOMY_RAM_BYTES)


def _room(what: str, where: Path, free: int, least: int, roomy: int) -> Check:
    found = f"{format_size(free)} free at {where}"
    if free >= roomy:
        return Check(what, OK, found)
    state = WARN if free >= least else FAIL
    return Check(what, state, f"{found}; {format_size(roomy)} are comfortable", f"df -h {where}")


def _clock() -> Check:
    """Certificates live for hours: a clock that is wrong shuts everybody out."""
    installed = Path(novacron.__file__).stat().st_mtime
    if time.time() < installed:
        return Check("clock", FAIL, "it stands before this program was installed", "timedatectl set-ntp true")
    kept = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)) != CLOCK_ERROR
    if kept:
        return Check("clock", OK, "kept right by the kernel's time service")
    return Check("clock", WARN, "nothing keeps it right", "timedatectl set-ntp true")


def _port(what: str, address: str) -> Check:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return Check(what, FAIL, f"{address!r} is no HOST:PORT", "novacron config explain")
    try:
        socket.create_server((host, int(port))).close()
    except OSError as error:
        found = f"{address}: {error.strerror}; perhaps NovaCron runs already"
        return Check(what, WARN, found, f"ss -ltnp 'sport = :{port}'")
    return Check(what, OK, f"{address} is free")


def _lab() -> Check:
    """What ``novacron demo`` builds its link from: without it, a relay of TCP connections does."""
    what = "demo's link"
    if os.geteuid() != 0:
        return Check(what, WARN, "not root: the demo's link is a relay of connections", "sudo novacron demo")
    try:
        subprocess.run(("unshare", "--net", "true"), check=True, capture_output=True)
        os.close(open_tun(Path("/proc/self/ns/net"), f"ncron-{os.getpid()}"))
    except (OSError, subprocess.CalledProcessError, LabError) as error:
        cause = error.cause if isinstance(error, LabError) else "no network namespace can be made"
        return Check(what, WARN, f"{cause}: the demo's link is a relay of connections", "ls -l /dev/net/tun")
    return Check(what, OK, "network namespaces and TUN devices can be made")


def _guest_tools() -> Check:
    missing = [tool for tool in GUEST_TOOLS if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/sbin") is None]
    if missing:
        return Check("demo's guest", WARN, f"cannot be built: {', '.join(missing)} missing", "./up --check")
    return Check("demo's guest", OK, "its build tools are there")
