"""The command line of one QEMU: everything pinned that two sides of a migration must agree on."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from novacron.core.ids import VmId
from novacron.protocol.vm import VmSpec

FIRST_DISK_SLOT: Final = 0x04
FIRST_NIC_SLOT: Final = 0x14
SEED_SLOT: Final = 0x1C
AGENT_SLOT: Final = 0x03
AGENT_PORT: Final = "org.qemu.guest_agent.0"
RAM_BACKEND: Final = "pc.ram"  # also the name of the block in the migration stream
_NAMESPACE: Final = uuid.UUID("8b7a5c7e-3a55-4ef1-9d0a-6a1d0a3b0c11")


@dataclass(frozen=True, slots=True)
class Launch:
    """All that one QEMU process is started with."""

    vm_id: VmId
    spec: VmSpec
    accelerator: str
    run_dir: Path  # its sockets
    ram_path: Path
    ram_shared: bool  # whether the guest's writes reach the RAM file
    disks: dict[str, Path] = field(default_factory=dict)
    kernel: Path | None = None
    initrd: Path | None = None
    seed: Path | None = None
    firmware_code: Path | None = None
    firmware_vars: Path | None = None
    taps: dict[str, int] = field(default_factory=dict)  # descriptors that it inherits, by network card
    incoming: bool = False


def command(launch: Launch) -> list[str]:
    """Arguments for ``qemu-system-x86_64``, the program's name first."""
    spec = launch.spec
    memory_kib = spec.memory_bytes // 1024
    parts = [
        [
            "qemu-system-x86_64",
            "-name",
            f"{spec.name},debug-threads=on",
            "-uuid",
            str(uuid.uuid5(_NAMESPACE, launch.vm_id)),
        ],
        ["-no-user-config", "-nodefaults", "-display", "none", "-vga", "none"],
        ["-machine", f"{spec.machine},accel={launch.accelerator},memory-backend={RAM_BACKEND},usb=off"],
        ["-cpu", spec.cpu, "-smp", str(spec.vcpus), "-m", f"{memory_kib}k", "-rtc", "base=utc"],
        ["-object", _memory(launch)],
        ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
        _monitors(launch.run_dir),
        _console(launch.run_dir),
        _guest_agent(launch.run_dir),
        _firmware(launch),
        _boot(launch),
        *[_disk(disk.id, launch.disks[disk.id], FIRST_DISK_SLOT + n) for n, disk in enumerate(spec.disks)],
        *[_nic(n, launch) for n in range(len(spec.nics))],
        _seed(launch.seed),
        ["-S", "-incoming", "defer"] if launch.incoming else [],
    ]
    return [argument for part in parts for argument in part]


def quoted(value: object) -> str:
    """``value`` inside an option list, where a comma is written twice."""
    return str(value).replace(",", ",,")


def _memory(launch: Launch) -> str:
    share = "on" if launch.ram_shared else "off"
    return (
        f"memory-backend-file,id={RAM_BACKEND},size={launch.spec.memory_bytes},"
        f"mem-path={quoted(launch.ram_path)},share={share},prealloc=off"
    )


def _monitors(run_dir: Path) -> list[str]:
    """Two: one to work with, one for what must get through when the first hangs."""
    return [
        argument
        for name in ("qmp", "qmp2")
        for argument in ("-qmp", f"unix:{quoted(run_dir / name)},server=on,wait=off")
    ]


def _console(run_dir: Path) -> list[str]:
    socket, log = quoted(run_dir / "console"), quoted(run_dir / "console.log")
    chardev = f"socket,id=serial0,path={socket},server=on,wait=off,logfile={log},logappend=on"
    return ["-chardev", chardev, "-serial", "chardev:serial0"]


def _guest_agent(run_dir: Path) -> list[str]:
    return [
        "-chardev",
        f"socket,id=agent0,path={quoted(run_dir / 'agent')},server=on,wait=off",
        "-device",
        f"virtio-serial-pci,id=vserial0,bus=pcie.0,addr={AGENT_SLOT:#x}",
        "-device",
        f"virtserialport,bus=vserial0.0,nr=1,chardev=agent0,name={AGENT_PORT}",
    ]


def _firmware(launch: Launch) -> list[str]:
    if launch.firmware_code is None:
        return []
    return [
        "-drive",
        f"if=pflash,format=raw,readonly=on,file={quoted(launch.firmware_code)}",
        "-drive",
        f"if=pflash,format=raw,file={quoted(launch.firmware_vars)}",
    ]


def _boot(launch: Launch) -> list[str]:
    if launch.kernel is None or launch.spec.boot is None:
        return []
    initrd = [] if launch.initrd is None else ["-initrd", str(launch.initrd)]
    return ["-kernel", str(launch.kernel), *initrd, "-append", launch.spec.boot.append]


def _disk(disk_id: str, path: Path, slot: int) -> list[str]:
    """No iothread: with one, QEMU 7.2 aborts when a client of its own block export leaves."""
    return [
        "-blockdev",
        f"driver=qcow2,node-name={disk_id},discard=unmap,file.driver=file,file.filename={quoted(path)}",
        "-device",
        f"virtio-blk-pci,id=dev-{disk_id},drive={disk_id},bus=pcie.0,addr={slot:#x}",
    ]


def _nic(number: int, launch: Launch) -> list[str]:
    nic = launch.spec.nics[number]
    device = f"virtio-net-pci,id=dev-{nic.id},mac={nic.mac},bus=pcie.0,addr={FIRST_NIC_SLOT + number:#x},romfile="
    match nic.mode:
        case "user":
            return ["-netdev", f"user,id={nic.id}", "-device", f"{device},netdev={nic.id}"]
        case "tap":
            netdev = f"tap,id={nic.id},fd={launch.taps[nic.id]},vhost=off"
            return ["-netdev", netdev, "-device", f"{device},netdev={nic.id}"]
        case _:
            return ["-device", device]


def _seed(seed: Path | None) -> list[str]:
    if seed is None:
        return []
    return [
        "-blockdev",
        f"driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename={quoted(seed)}",
        "-device",
        f"virtio-blk-pci,id=dev-seed,drive=seed,bus=pcie.0,addr={SEED_SLOT:#x}",
    ]
