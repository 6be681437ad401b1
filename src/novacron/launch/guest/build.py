"""Builds the demo guest: Debian's cloud kernel, an initramfs of busybox and the workload, an ext4 disk with real files.

Needs no root: the kernel's package is downloaded and unpacked, not installed.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Final

import zstandard

from novacron.core.errors import NovaCronError
from novacron.core.units import GIB, MIB
from novacron.launch.guest import accounts

KERNEL_PACKAGE: Final = "linux-image-cloud-amd64"
SQLITE_PACKAGE: Final = "libsqlite3-dev"
SQLITE_LIBRARY: Final = "usr/lib/x86_64-linux-gnu/libsqlite3.a"
SOURCES: Final = ("workload.c", "database.c", "database.h")
MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "ext4", "crc32c_generic")
DISK_BYTES: Final = GIB
CONTENT_BYTES: Final = 150 * MIB  # of real files on the disk
EPOCH: Final = "1700000000"  # every time stamp: equal sources give equal bytes
INITRD_LEVEL: Final = 19  # of zstd: an initrd is shipped, and unpacked once
FORMAT: Final = "5"


class GuestBuildError(NovaCronError):
    """The demo guest could not be built."""

    code = "guest_build"


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """What the demo guest boots from; ``disk`` is a qcow2 image."""

    kernel: Path
    initrd: Path
    disk: Path

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return all(path.exists() for path in (self.kernel, self.initrd, self.disk))


def build(directory: Path, *, database: bool = False) -> GuestFiles:
    """The guest's files in ``directory``, made once for each version of their sources; raises GuestBuildError.

    The disk holds real files, or the ``database``.
    """
    target = directory / _version()
    guest = GuestFiles(target / "vmlinuz", target / "initrd", target / "disk.qcow2")
    if not guest.complete:
        _build(directory, target)
    if not database:
        return guest
    disk = directory / f"{_version()}-database.qcow2"
    if not disk.exists():
        _database_disk(directory, disk)
    return replace(guest, disk=disk)


def _build(directory: Path, target: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        work = Path(temporary)
        kernel, modules = _kernel(work)
        made = work / "made"
        made.mkdir()
        shutil.copyfile(kernel, made / "vmlinuz")
        _initramfs(work, modules, made / "initrd")
        _format(work, _kernel_files(work, modules), made / "disk.qcow2")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)


def _database_disk(directory: Path, disk: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        work = Path(temporary)
        content = work / "content"
        content.mkdir()
        accounts.fill(content / accounts.NAME)
        _format(work, content, work / disk.name)
        (work / disk.name).rename(disk)


def _version() -> str:
    sources = files("novacron.launch.guest")
    digest = hashlib.sha256(FORMAT.encode())
    for name in (*SOURCES, "init", "accounts.py"):
        digest.update((sources / name).read_bytes())
    return digest.hexdigest()[:16]


def _run(*command: str, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "E2FSPROGS_FAKE_TIME": EPOCH}
    try:
        done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, check=True, env=environment)
    except FileNotFoundError:
        raise GuestBuildError(f"{command[0]} is not installed", next_command="./up --check") from None
    except subprocess.CalledProcessError as error:
        raise GuestBuildError(f"{command[0]} failed: {error.stderr.decode(errors='replace').strip()[-500:]}") from error
    return done.stdout


def _kernel(work: Path) -> tuple[Path, Path]:
    """Kernel and module tree of Debian's cloud kernel."""
    depends = _run("apt-cache", "depends", "--important", KERNEL_PACKAGE).decode().splitlines()
    packages = [line.split()[-1] for line in depends if "Depends:" in line and "linux-image" in line]
    if not packages:
        raise GuestBuildError(f"no package {KERNEL_PACKAGE} is known", next_command="apt-get update")
    _unpack(packages[0], work, work / "kernel")
    return next((work / "kernel/boot").glob("vmlinuz-*")), next((work / "kernel/lib/modules").iterdir())


def _unpack(package: str, work: Path, target: Path) -> None:
    _run("apt-get", "download", "-o", "APT::Sandbox::User=root", package, cwd=work)
    _run("dpkg-deb", "-x", str(next(work.glob(f"{package}_*.deb"))), str(target))


def _initramfs(work: Path, modules: Path, target: Path) -> None:
    root = work / "root"
    (root / "bin").mkdir(parents=True)
    (root / "modules").mkdir()
    shutil.copyfile("/bin/busybox", root / "bin/busybox")
    (root / "init").write_bytes((files("novacron.launch.guest") / "init").read_bytes())
    compile_workload(work, root / "bin/workload")
    order = _load_order(modules)
    for path in order:
        shutil.copyfile(path, root / "modules" / path.name)
    (root / "modules/order").write_text("".join(f"{path.name}\n" for path in order))
    for path in (root / "init", root / "bin/busybox", root / "bin/workload"):
        path.chmod(0o755)
    for path in (root, *root.rglob("*")):
        os.utime(path, (int(EPOCH), int(EPOCH)))
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*"))).encode()
    command = ("cpio", "--quiet", "--reproducible", "--owner=0:0", "-o", "-H", "newc")
    target.write_bytes(zstandard.ZstdCompressor(level=INITRD_LEVEL).compress(_run(*command, cwd=root, stdin=names)))


def compile_workload(work: Path, target: Path) -> None:
    """The workload, with all that it needs in one file; ``work`` is a folder to work in. Raises GuestBuildError."""
    for name in SOURCES:
        (work / name).write_bytes((files("novacron.launch.guest") / name).read_bytes())
    _unpack(SQLITE_PACKAGE, work, work / "sqlite")
    library = work / "sqlite" / SQLITE_LIBRARY
    flags = ("-O2", "-static", "-s", "-Wall", "-Werror", f"-I{work / 'sqlite/usr/include'}")
    code = [str(work / name) for name in SOURCES if name.endswith(".c")]
    _run("gcc", *flags, "-o", str(target), *code, str(library), "-lm")


def _load_order(modules: Path) -> list[Path]:
    """Modules after what they depend on: a wrong order hangs the guest without a word."""
    _run("depmod", "-b", str(modules.parents[2]), modules.name)
    depends = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        depends[Path(name).name.partition(".ko")[0]] = [name, *rest.split()]
    order: list[Path] = []
    for module in MODULES:
        for name in reversed(depends.get(module, [])):
            if modules / name not in order:
                order.append(modules / name)
    return order


def _kernel_files(work: Path, modules: Path) -> Path:
    """A folder of real files: the kernel's own, about ``CONTENT_BYTES`` of them."""
    content = work / "content"
    used = 0
    for path in sorted(modules.parents[2].rglob("*")):
        if used >= CONTENT_BYTES or not path.is_file() or path.is_symlink():
            continue
        copy = content / path.relative_to(modules.parents[2])
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        used += path.stat().st_size
    return content


def _format(work: Path, content: Path, target: Path) -> None:
    """An ext4 file system with these files."""
    for path in (content, *content.rglob("*")):
        os.utime(path, (int(EPOCH), int(EPOCH)))
    raw = work / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(DISK_BYTES)
    options = "lazy_itable_init=0,lazy_journal_init=0,hash_seed=11111111-1111-4111-8111-111111111111"
    uuid = "22222222-2222-4222-8222-222222222222"
    _run("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-U", uuid, "-E", options, "-d", str(content), str(raw))
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(target))
