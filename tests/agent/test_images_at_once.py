"""An image that several migrations bring at once comes whole, and once."""

import asyncio
import hashlib

import pytest

from novacron.agent.images import Images as NodeImages
from novacron.control.images import Images as ClusterImages
from novacron.control.kinds import IMAGES
from novacron.core.errors import InvalidInputError
from novacron.core.ids import ImageId, new_id
from novacron.database import resources
from novacron.database.database import Database
from novacron.protocol.node import ImageRef, ImageWrite

CONTENT = bytes(range(256)) * 64
PART = 1000


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(str(tmp_path / "db"), [resources.SCHEMA])
    yield database
    await database.close()


def reference(content: bytes = CONTENT) -> ImageRef:
    return ImageRef(ImageId(new_id("image")), "blob", len(CONTENT), hashlib.sha256(content).hexdigest(), "kernel")


async def bring(ref: ImageRef, presence, write) -> None:
    """As a sender does: from where the other side says that it is."""
    here = await presence(ref)
    while not here.complete:
        at = here.received_bytes
        here = await write(ImageWrite(ref, at, CONTENT[at : at + PART]))


async def test_at_a_node(tmp_path):
    images, ref = NodeImages(tmp_path), reference()

    async def presence(ref: ImageRef):
        return await images.presence(None, ref)

    async def write(part: ImageWrite):
        return await images.write(None, part)

    await asyncio.gather(*(bring(ref, presence, write) for _ in range(8)))
    path, image_format = images.path(ref.image_id)
    assert (path.read_bytes(), image_format) == (CONTENT, "blob")


async def test_at_a_cluster(tmp_path, database):
    images, ref = ClusterImages(tmp_path, database), reference()
    await asyncio.gather(*(bring(ref, images.presence, images.write) for _ in range(8)))
    known = await database.read(lambda tx: IMAGES.get(tx, ref.image_id).value)
    assert images.path(known).read_bytes() == CONTENT


async def test_more_than_there_can_be_is_refused(tmp_path, database):
    ref = reference()
    part = ImageWrite(ref, 0, CONTENT + b"x")
    with pytest.raises(InvalidInputError, match="past its end"):
        await NodeImages(tmp_path / "node").write(None, part)
    with pytest.raises(InvalidInputError, match="past its end"):
        await ClusterImages(tmp_path / "cluster", database).write(part)


async def test_what_arrives_damaged_is_thrown_away(tmp_path, database):
    ref = reference(b"something else")
    for write in (
        lambda part: NodeImages(tmp_path / "node").write(None, part),
        ClusterImages(tmp_path / "cluster", database).write,
    ):
        with pytest.raises(InvalidInputError, match="arrived damaged"):
            await write(ImageWrite(ref, 0, CONTENT))
    assert not [*(tmp_path / "node").iterdir(), *(tmp_path / "cluster").iterdir()]
