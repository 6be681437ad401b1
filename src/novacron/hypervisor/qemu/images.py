"""Disk images that no instance uses, by QEMU's own programs."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import structlog

from novacron.hypervisor.errors import BadImageError, QemuMissingError

log = structlog.get_logger()


async def qemu_img(*arguments: str) -> bytes:
    """Output of ``qemu-img``; raises BadImageError with its words, QemuMissingError."""
    return await run_tool("qemu-img", *arguments)


async def run_tool(name: str, *arguments: str) -> bytes:
    """Output of one of QEMU's programs; raises BadImageError with its words, QemuMissingError."""
    program = shutil.which(name)
    if program is None:
        raise QemuMissingError(name)
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise BadImageError(f"{name} {arguments[0]}: {errors.decode(errors='replace').strip()}")
    return output


async def describe(path: Path, *, image_format: str | None = None) -> dict[str, Any]:
    """What ``qemu-img info`` says of an image that nobody else needs to leave alone."""
    given = ("-f", image_format) if image_format else ()
    info: dict[str, Any] = json.loads(await qemu_img("info", "-U", "--output=json", *given, str(path)))
    return info


async def chain(path: Path) -> set[str]:
    """Names of the file of a qcow2 disk, and of all that it lies over."""
    told = json.loads(await qemu_img("info", "-U", "--backing-chain", "--output=json", "-f", "qcow2", str(path)))
    return {Path(image["filename"]).name for image in told}


async def check_importable(path: Path, image_format: str) -> int:
    """Virtual size in bytes of an image that stands by itself; raises BadImageError.

    An image that names a backing or data file could read any file of the host: refused.
    """
    info = await describe(path, image_format=image_format)
    special = info.get("format-specific", {}).get("data", {})
    if info.get("backing-filename") or info.get("full-backing-filename") or special.get("data-file"):
        raise BadImageError(
            "the image leans on another file (a backing or data file)",
            next_command="qemu-img convert -O qcow2 IMAGE WHOLE.qcow2, then import WHOLE.qcow2",
        )
    return int(info["virtual-size"])


async def create_disk(path: Path, size_bytes: int) -> None:
    """An empty qcow2 disk."""
    await qemu_img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=off", str(path), str(size_bytes))


async def create_overlay(path: Path, backing: Path, size_bytes: int) -> None:
    """An empty qcow2 disk over ``backing`` (qcow2), which may be smaller: zeros follow it."""
    over = ("-f", "qcow2", "-F", "qcow2", "-b", str(backing.resolve()))
    await qemu_img("create", "-q", *over, str(path), str(size_bytes))


async def copy_disk(source: Path, source_format: str, path: Path, size_bytes: int) -> None:
    """A qcow2 disk with the content of an image, grown to ``size_bytes``; raises BadImageError when that is smaller."""
    virtual = await check_importable(source, source_format)
    if virtual > size_bytes:
        raise BadImageError(f"the image has {virtual} bytes: a disk of {size_bytes} bytes would cut it off")
    await qemu_img("convert", "-q", "-f", source_format, "-O", "qcow2", str(source), str(path))
    if virtual < size_bytes:
        await grow_disk(path, size_bytes)


async def borrow(source: Path, path: Path, size_bytes: int, *, within_s: float) -> bool:
    """Copy the content of another VM's disk, which may run, as it is found; False when that cannot be done in time.

    The copy may be torn: it is a guess at what will come, good for as much as turns out to be right.
    """
    try:
        async with asyncio.timeout(within_s):
            await qemu_img("convert", "-q", "-U", "-f", "qcow2", "-O", "qcow2", str(source), str(path))
            if int((await describe(path, image_format="qcow2"))["virtual-size"]) == size_bytes:
                return True
    except (BadImageError, TimeoutError) as error:
        log.info("nothing_borrowed", disk=str(source), cause=str(error))
    path.unlink(missing_ok=True)
    return False


async def grow_disk(path: Path, size_bytes: int) -> None:
    """Make a disk that no instance uses larger."""
    await qemu_img("resize", "-q", "-f", "qcow2", str(path), str(size_bytes))


async def merge_overlay(path: Path) -> None:
    """Write an overlay's content into what it lies over."""
    await qemu_img("commit", "-q", "-f", "qcow2", "-d", str(path))


async def bitmaps(path: Path) -> dict[str, bool]:
    """Bitmaps of a qcow2 disk, and whether each is whole: not when who wrote last has not ended in order."""
    told = (await describe(path, image_format="qcow2"))["format-specific"]["data"].get("bitmaps", ())
    return {bitmap["name"]: "in-use" not in bitmap["flags"] for bitmap in told}


async def add_bitmap(path: Path, bitmap: str, granularity: int) -> None:
    """From now on every write of whoever opens the disk marks it."""
    await qemu_img("bitmap", "-f", "qcow2", "--add", "-g", str(granularity), str(path), bitmap)


async def remove_bitmap(path: Path, bitmap: str) -> None:
    """Forget it, whole or not."""
    await qemu_img("bitmap", "-f", "qcow2", "--remove", str(path), bitmap)
