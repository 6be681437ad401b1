"""Batches: many VMs sent to one place."""

from typing import Final

from litestar import get, post

from novacron.api.answers import API, LIMIT, Page, check_version, many, one
from novacron.api.auth import READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.kinds import BATCHES
from novacron.protocol.rest import BatchRequest

ACCEPTED: Final = 202


@get("/batches", opt=READ, summary="List batches")
async def list_batches(
    controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT
) -> Page:
    """Those of named VMs, and those that drain a node."""
    return await many(controller, BATCHES, cursor, limit)


@get("/batches/{batch:str}", opt=READ, summary="One batch")
async def get_batch(controller: ServedController, batch: Named) -> Answer:
    """By id."""
    return await one(controller, BATCHES, batch)


@post("/batches", opt=WRITE, summary="Migrate many VMs", status_code=ACCEPTED)
async def start_batch(request: Asked, controller: ServedController, data: JSONBody[BatchRequest]) -> Answer:
    """A few at a time, what is through soonest first; one that fails keeps none of the others."""

    async def start() -> Answer:
        batch = await controller.batches.start(data)
        return await one(controller, BATCHES, batch.id, status=ACCEPTED, location=f"{API}/batches/{batch.id}")

    return await once(request, controller, start)


@post("/batches/{batch:str}/cancel", opt=WRITE, summary="Cancel a batch", status_code=ACCEPTED)
async def cancel_batch(request: Asked, controller: ServedController, batch: Named) -> Answer:
    """What is under way is given up, and no more begins; what has moved stays where it is."""
    await check_version(request, controller, BATCHES, batch)
    await controller.batches.cancel(batch)
    return await one(controller, BATCHES, batch, status=ACCEPTED)
