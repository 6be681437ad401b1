"""Nodes taken out of service, and back."""

from typing import Final

from litestar import delete, post

from novacron.api.answers import API, check_version, one
from novacron.api.auth import ADMIN
from novacron.api.given import Answer, Asked, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.kinds import BATCHES, NODES
from novacron.protocol.rest import DrainRequest

ACCEPTED: Final = 202
OK: Final = 200


@post("/nodes/{node:str}/drain", opt=ADMIN, summary="Drain a node", status_code=ACCEPTED)
async def drain_node(request: Asked, controller: ServedController, node: Named, data: JSONBody[DrainRequest]) -> Answer:
    """It takes no VM from now on; the batch at ``Location`` moves away what runs there."""
    await check_version(request, controller, NODES, node)

    async def drain() -> Answer:
        batch = await controller.maintenance.drain(node, data)
        return await one(controller, BATCHES, batch.id, status=ACCEPTED, location=f"{API}/batches/{batch.id}")

    return await once(request, controller, drain)


@post("/nodes/{node:str}/undrain", opt=ADMIN, summary="Undrain a node", status_code=OK)
async def undrain_node(request: Asked, controller: ServedController, node: Named) -> Answer:
    """It takes VMs again; a batch that drains it is cancelled."""
    await check_version(request, controller, NODES, node)
    await controller.maintenance.undrain(node)
    return await one(controller, NODES, node)


@delete("/nodes/{node:str}", opt=ADMIN, summary="Remove a node", status_code=204)
async def remove_node(request: Asked, controller: ServedController, node: Named) -> None:
    """One that has no VM and serves no more."""
    await check_version(request, controller, NODES, node)
    await controller.maintenance.remove(node)
