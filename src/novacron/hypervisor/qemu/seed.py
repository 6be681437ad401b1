"""A cloud-init seed: a small ISO image with the label that cloud-init's NoCloud source looks for."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from novacron.hypervisor.errors import BadImageError, QemuMissingError
from novacron.protocol.vm import CloudInitSeed


async def write_seed(path: Path, seed: CloudInitSeed, name: str) -> None:
    """Write the seed of a VM called ``name``; raises QemuMissingError without genisoimage."""
    program = shutil.which("genisoimage")
    if program is None:
        raise QemuMissingError("genisoimage")
    with tempfile.TemporaryDirectory() as directory:
        files = {
            "user-data": seed.user_data,
            "meta-data": seed.meta_data or f"instance-id: {name}\nlocal-hostname: {name}\n",
        }
        if seed.network_config:
            files["network-config"] = seed.network_config
        for file, text in files.items():
            (Path(directory) / file).write_text(text)
        process = await asyncio.create_subprocess_exec(
            *(program, "-quiet", "-output", str(path), "-volid", "cidata", "-joliet", "-rock", directory),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
    if process.returncode:
        raise BadImageError(f"genisoimage: {errors.decode(errors='replace').strip()}")
