"""Images: uploaded as a stream, whole or not there."""

from litestar import delete, get, post

from novacron.api.answers import API, LIMIT, Page, check_version, many, one
from novacron.api.auth import READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, Named, ServedController
from novacron.control.kinds import IMAGES


@get("/images", opt=READ, summary="List images")
async def list_images(controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT) -> Page:
    """What VMs are made from."""
    return await many(controller, IMAGES, cursor, limit)


@get("/images/{image:str}", opt=READ, summary="One image")
async def get_image(controller: ServedController, image: Named) -> Answer:
    """By name or id."""
    return await one(controller, IMAGES, image)


@post("/images", opt=WRITE, summary="Upload an image", status_code=201, request_max_body_size=None)
async def add_image(
    request: Asked,
    controller: ServedController,
    name: FromQuery[str],
    format: FromQuery[str] = "raw",  # noqa: A002 - the query's word
) -> Answer:
    """The body is the file; ``format`` is raw, qcow2 or blob (kernels and initrds)."""
    image = await controller.images.add(name, format, request.stream())
    return await one(controller, IMAGES, image.id, status=201, location=f"{API}/images/{image.id}")


@delete("/images/{image:str}", opt=WRITE, summary="Delete an image", status_code=204)
async def delete_image(request: Asked, controller: ServedController, image: Named) -> None:
    """VMs made from it keep their disks."""
    await check_version(request, controller, IMAGES, image)
    await controller.images.delete(image)
