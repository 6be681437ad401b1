"""Checkpoints of VMs: memory, devices and disks as they were at one instant."""

from typing import Final

from litestar import delete, get, post

from novacron.api.answers import API, LIMIT, Page, check_version, many, one
from novacron.api.auth import READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.kinds import CHECKPOINTS
from novacron.protocol.rest import CheckpointRequest, RestoreRequest

ACCEPTED: Final = 202


@get("/checkpoints", opt=READ, summary="List checkpoints")
async def list_checkpoints(
    controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT
) -> Page:
    """Of all VMs."""
    return await many(controller, CHECKPOINTS, cursor, limit)


@get("/checkpoints/{checkpoint:str}", opt=READ, summary="One checkpoint")
async def get_checkpoint(controller: ServedController, checkpoint: Named) -> Answer:
    """By id."""
    return await one(controller, CHECKPOINTS, checkpoint)


@post("/vms/{vm:str}/checkpoints", opt=WRITE, summary="Make a checkpoint of a VM", status_code=ACCEPTED)
async def create_checkpoint(
    request: Asked, controller: ServedController, vm: Named, data: JSONBody[CheckpointRequest]
) -> Answer:
    """The guest stands still for a moment; the job at ``Location`` makes it."""

    async def create() -> Answer:
        made = await controller.checkpoints.create(vm, data)
        return await one(controller, CHECKPOINTS, made.id, status=ACCEPTED, location=f"{API}/jobs/{made.job_id}")

    return await once(request, controller, create)


@post("/checkpoints/{checkpoint:str}/cancel", opt=WRITE, summary="Give a checkpoint up", status_code=ACCEPTED)
async def cancel_checkpoint(request: Asked, controller: ServedController, checkpoint: Named) -> Answer:
    """The making or the restore that is under way: the VM is what it was."""
    await check_version(request, controller, CHECKPOINTS, checkpoint)
    await controller.checkpoints.cancel(checkpoint)
    return await one(controller, CHECKPOINTS, checkpoint, status=ACCEPTED)


@post("/checkpoints/{checkpoint:str}/restore", opt=WRITE, summary="Restore a checkpoint", status_code=ACCEPTED)
async def restore_checkpoint(
    request: Asked, controller: ServedController, checkpoint: Named, data: JSONBody[RestoreRequest]
) -> Answer:
    """In place: what the VM has done since is lost; or as a new VM beside it. The job at ``Location`` does it."""
    await check_version(request, controller, CHECKPOINTS, checkpoint)
    begun = await controller.checkpoints.restore(checkpoint, data)
    return await one(controller, CHECKPOINTS, begun.id, status=ACCEPTED, location=f"{API}/jobs/{begun.job_id}")


@delete("/checkpoints/{checkpoint:str}", opt=WRITE, summary="Delete a checkpoint", status_code=ACCEPTED)
async def delete_checkpoint(request: Asked, controller: ServedController, checkpoint: Named) -> Answer:
    """With what no other one needs; the job at ``Location`` does it."""
    await check_version(request, controller, CHECKPOINTS, checkpoint)
    begun = await controller.checkpoints.delete(checkpoint)
    return await one(controller, CHECKPOINTS, begun.id, status=ACCEPTED, location=f"{API}/jobs/{begun.job_id}")
