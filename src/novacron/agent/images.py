"""Images of the cluster at this node, by id, whole and verified or not there."""

import asyncio
import hashlib
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from novacron.agent.errors import ImageMissingError
from novacron.core.errors import InvalidInputError
from novacron.core.ids import ImageId, check_id
from novacron.protocol.node import ImagePresence, ImageRef, ImageWrite, Nothing
from novacron.wire.identity import SpiffeId


class Images:
    """``<directory>/<image>`` with its record beside it; a part under way is ``<image>.part``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writing: WeakValueDictionary[ImageId, asyncio.Lock] = WeakValueDictionary()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, image_id: ImageId) -> tuple[Path, str]:
        """File and format of an image that is whole; raises ImageMissingError."""
        record = self._directory / f"{check_id(image_id, 'image')}.json"
        try:
            ref = msgspec.json.decode(record.read_bytes(), type=ImageRef)
        except FileNotFoundError:
            raise ImageMissingError(
                f"image {image_id} has not come to this node", next_command="novacron image list"
            ) from None
        return self._directory / image_id, ref.format

    async def presence(self, _peer: SpiffeId, ref: ImageRef) -> ImagePresence:
        """How much of an image is here."""
        path = self._directory / check_id(ref.image_id, "image")
        if path.with_suffix(".json").exists():
            return ImagePresence(complete=True, received_bytes=ref.size_bytes)
        part = path.with_suffix(".part")
        return ImagePresence(complete=False, received_bytes=part.stat().st_size if part.exists() else 0)

    async def write(self, peer: SpiffeId, message: ImageWrite) -> ImagePresence:
        """The next part; the last one is verified, and a wrong whole is thrown away.

        One that does not follow what is here is not taken: several bring an image at once, and are told how far it is.
        """
        ref = message.image
        if message.offset + len(message.data) > ref.size_bytes:
            raise InvalidInputError(f"a part of image {ref.image_id} that lies past its end")
        async with self._writing.setdefault(ref.image_id, asyncio.Lock()):
            here = await self.presence(peer, ref)
            if not here.complete and message.offset == here.received_bytes:
                path = self._directory / ref.image_id
                await asyncio.to_thread(self._append, path.with_suffix(".part"), message.data)
                if message.offset + len(message.data) == ref.size_bytes:
                    await asyncio.to_thread(self._complete, path, ref)
            return await self.presence(peer, ref)

    async def delete(self, _peer: SpiffeId, ref: ImageRef) -> Nothing:
        """Remove an image; harmless when it is not here. VMs made from it keep their disks."""
        path = self._directory / check_id(ref.image_id, "image")
        for suffix in (".json", ".part", ""):
            path.with_suffix(suffix).unlink(missing_ok=True)
        return Nothing()

    @staticmethod
    def _append(part: Path, data: bytes) -> None:
        with part.open("ab") as file:
            file.write(data)

    @staticmethod
    def _complete(path: Path, ref: ImageRef) -> None:
        part = path.with_suffix(".part")
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != ref.sha256:
            part.unlink()
            raise InvalidInputError(
                f"image {ref.image_id} arrived damaged: its digest is {digest[:16]}…, not {ref.sha256[:16]}…"
            )
        part.rename(path)
        path.with_suffix(".json").write_bytes(msgspec.json.encode(ref))
