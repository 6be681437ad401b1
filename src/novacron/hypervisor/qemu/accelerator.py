"""KVM or TCG: decided by a real boot, because /dev/kvm can exist and still hang every guest.

The guest is one boot sector: it counts down from a number that takes a CPU a fraction of a second and an emulator of
single instructions for ever, then writes to QEMU's ``isa-debug-exit`` port, which ends QEMU with a known status.
"""

import asyncio
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from novacron.hypervisor.errors import QemuMissingError

PROGRAM: Final = "qemu-system-x86_64"
BOOT_TIMEOUT_S: Final = 5.0
_EXIT_PORT: Final = 0xF4
_EXIT_VALUE: Final = 0x10
_EXPECTED_STATUS: Final = (_EXIT_VALUE << 1) | 1
_COUNT: Final = 50_000_000
# mov ecx, _COUNT; dec ecx; jnz -4; mov dx, 0xf4; mov al, 0x10; out dx, al; hlt
_CODE: Final = bytes([0x66, 0xB9, *_COUNT.to_bytes(4, "little"), 0x66, 0x49, 0x75, 0xFC]) + bytes(
    [0xBA, _EXIT_PORT, 0x00, 0xB0, _EXIT_VALUE, 0xEE, 0xF4]
)
BOOT_SECTOR: Final = _CODE.ljust(510, b"\0") + b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Qemu:
    """The QEMU of this host."""

    program: str
    version: tuple[int, int, int]
    machine_types: tuple[str, ...]


def find_program() -> str:
    """Path of QEMU; raises QemuMissingError."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise QemuMissingError(PROGRAM)
    return program


async def find_qemu() -> Qemu:
    """The QEMU of this host with its version and machine types; raises QemuMissingError."""
    program = find_program()
    version = re.search(rb"version (\d+)\.(\d+)\.(\d+)", await _output(program, "--version"))
    if version is None:
        raise QemuMissingError("a QEMU that says its version")
    machines = re.findall(rb"^(pc-[\w.-]+)\s", await _output(program, "-machine", "help"), re.MULTILINE)
    major, minor, micro = (int(part) for part in version.groups())
    return Qemu(program, (major, minor, micro), tuple(sorted(name.decode() for name in machines)))


async def choose_accelerator(qemu: Qemu, memory_file: Path) -> str:
    """``kvm`` when a guest really boots under it, else ``tcg``; remembered for this kernel and QEMU."""
    key = f"{platform.release()} {qemu.version} {Path('/dev/kvm').exists()}"
    try:
        remembered = msgspec.json.decode(memory_file.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        remembered = {}
    if key not in remembered:
        remembered = {key: "kvm" if await boots(qemu.program, "kvm", memory_file.parent) else "tcg"}
        memory_file.write_bytes(msgspec.json.encode(remembered))
    return remembered[key]


async def boots(program: str, accelerator: str, directory: Path, timeout_s: float = BOOT_TIMEOUT_S) -> bool:
    """Whether a guest of one boot sector runs to its end under ``accelerator``."""
    if accelerator == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    sector = directory / f"boot-test-{os.getpid()}.img"
    sector.write_bytes(BOOT_SECTOR)
    process = await asyncio.create_subprocess_exec(
        *(program, "-accel", accelerator, "-nodefaults", "-no-user-config", "-display", "none", "-m", "2"),
        *("-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=1"),
        *("-drive", f"file={sector},format=raw,if=ide"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait() == _EXPECTED_STATUS
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        sector.unlink(missing_ok=True)


async def _output(*arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output
