"""Images of the cluster: files kept once by their digest, and shipped to whoever needs them."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from novacron.control.errors import ImageInUseError
from novacron.control.kinds import IMAGES, VMS
from novacron.core.errors import InvalidInputError
from novacron.core.ids import ImageId, check_name, new_id
from novacron.core.units import MIB
from novacron.database.database import Database, Transaction
from novacron.protocol.node import ImagePresence, ImageRef, ImageWrite
from novacron.protocol.resources import Image

PART_BYTES: Final = MIB
FORMATS: Final = ("raw", "qcow2", "blob")
QCOW2_MAGIC: Final = b"QFI\xfb"
QCOW2_HEAD: Final = 32  # bytes up to and with its virtual size, at 24, big-endian
SECTOR: Final = 512

Presence = Callable[[ImageRef], Awaitable[ImagePresence]]
Write = Callable[[ImageWrite], Awaitable[ImagePresence]]


class Images:
    """Records in the database, bytes in ``<directory>/<sha256>``."""

    def __init__(self, directory: Path, database: Database) -> None:
        self._directory = directory
        self._database = database
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, image: Image) -> Path:
        """Where its bytes lie."""
        return self._directory / image.sha256

    async def add(self, name: str, image_format: str, chunks: AsyncIterator[bytes]) -> Image:
        """Take in an image; nothing is left of one that breaks off. Raises InvalidInputError, NameTakenError."""
        check_name(name, "image")
        if image_format not in FORMATS:
            raise InvalidInputError(f"{image_format!r} is not a format of images: raw, qcow2 or blob")
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix="upload-", delete=False) as file:
            part = Path(file.name)
            try:
                digest, size, head = hashlib.sha256(), 0, b""
                async for chunk in chunks:
                    head += chunk[: QCOW2_HEAD - len(head)]
                    digest.update(chunk)
                    size += len(chunk)
                    await asyncio.to_thread(file.write, chunk)
                file.flush()
                virtual = _virtual_size(image_format, head, size)
                image = Image(ImageId(new_id("image")), name, image_format, size, digest.hexdigest(), virtual)
                await self._database.write(lambda tx: IMAGES.put(tx, image))
            except BaseException:
                part.unlink()
                raise
        part.replace(self.path(image))
        return image

    async def delete(self, reference: str) -> None:
        """Remove an image that no VM boots from; raises ImageInUseError."""

        def remove(tx: Transaction) -> tuple[Image, bool]:
            image = IMAGES.get(tx, reference).value
            for vm in VMS.every(tx):
                if vm.spec.boot is not None and image.id in {vm.spec.boot.kernel, vm.spec.boot.initrd}:
                    raise ImageInUseError(f"VM {vm.name} boots from {image.name}", next_command="novacron vm list")
            IMAGES.delete(tx, image.id)
            return image, any(other.sha256 == image.sha256 for other in IMAGES.every(tx))

        image, shared = await self._database.write(remove)
        if not shared:
            self.path(image).unlink(missing_ok=True)

    async def presence(self, ref: ImageRef) -> ImagePresence:
        """How much of an image is here, whatever it is called here."""
        if (self._directory / _digest(ref)).exists():
            await self._know(ref)
            return ImagePresence(complete=True, received_bytes=ref.size_bytes)
        part = self._part(ref)
        return ImagePresence(complete=False, received_bytes=part.stat().st_size if part.exists() else 0)

    async def write(self, message: ImageWrite) -> ImagePresence:
        """The next part of an image that a peer ships; the last one is verified.

        One that does not follow what is here is not taken: several ship an image at once, and are told how far it is.
        """
        ref = message.image
        if message.offset + len(message.data) > ref.size_bytes:
            raise InvalidInputError(f"a part of image {ref.name or ref.image_id} that lies past its end")
        async with self._writing.setdefault(_digest(ref), asyncio.Lock()):
            here = await self.presence(ref)
            if not here.complete and message.offset == here.received_bytes:
                await asyncio.to_thread(self._append, ref, message.data)
            return await self.presence(ref)

    async def ship(self, image: Image, presence: Presence, write: Write) -> None:
        """Bring an image to where it is not whole yet, from where the last try broke off."""
        ref = ImageRef(image.id, image.format, image.size_bytes, image.sha256, image.name)
        here = await presence(ref)
        with self.path(image).open("rb") as file:
            while not here.complete:
                file.seek(here.received_bytes)
                data = await asyncio.to_thread(file.read, PART_BYTES)
                here = await write(ImageWrite(ref, here.received_bytes, data))

    async def _know(self, ref: ImageRef) -> None:
        """A record under the id that VMs name it by."""

        def put(tx: Transaction) -> None:
            if IMAGES.find(tx, ref.image_id) is None:
                name = ref.name if ref.name and IMAGES.find(tx, ref.name) is None else ref.image_id
                IMAGES.put(tx, Image(ref.image_id, name, ref.format, ref.size_bytes, ref.sha256, ref.size_bytes))

        await self._database.write(put)

    def _part(self, ref: ImageRef) -> Path:
        return self._directory / f"{_digest(ref)}.part"

    def _append(self, ref: ImageRef, data: bytes) -> None:
        part = self._part(ref)
        with part.open("ab") as file:
            file.write(data)
        if part.stat().st_size < ref.size_bytes:
            return
        with part.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        if digest != ref.sha256:
            part.unlink()
            raise InvalidInputError(f"image {ref.name or ref.image_id} arrived damaged: the next try sends it again")
        part.replace(self._directory / digest)


def _virtual_size(image_format: str, head: bytes, size: int) -> int:
    """Bytes of the disk that an image holds; raises InvalidInputError when it is not of its format."""
    if not size:
        raise InvalidInputError("an image cannot be empty")
    is_qcow2 = head[: len(QCOW2_MAGIC)] == QCOW2_MAGIC
    if (image_format == "qcow2") != is_qcow2:
        raise InvalidInputError(f"the file {'is' if is_qcow2 else 'is not'} a qcow2 image: say so with --format")
    if is_qcow2:
        return int.from_bytes(head[24:QCOW2_HEAD], "big")
    return -(-size // SECTOR) * SECTOR


def _digest(ref: ImageRef) -> str:
    """The digest becomes a file name."""
    if len(ref.sha256) != 64 or not set(ref.sha256) <= set("0123456789abcdef"):  # noqa: PLR2004 - hex digits of SHA-256
        raise InvalidInputError(f"{ref.sha256[:100]!r} is not a SHA-256 digest")
    return ref.sha256
