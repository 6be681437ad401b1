"""VMs."""

from typing import Final

import msgspec
from litestar import Response, delete, get, post

from novacron.api.answers import API, LIMIT, Page, check_version, many, one
from novacron.api.auth import ADMIN, READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.controller import Controller
from novacron.control.jobs import get_job
from novacron.control.kinds import VMS
from novacron.protocol.resources import Vm
from novacron.protocol.rest import ResizeRequest, StopRequest, TakeOverRequest, VmRequest

ACCEPTED: Final = 202
OK: Final = 200


@get("/vms", opt=READ, summary="List VMs")
async def list_vms(controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT) -> Page:
    """VMs that this cluster owns."""
    return await many(controller, VMS, cursor, limit)


@get("/vms/{vm:str}", opt=READ, summary="One VM")
async def get_vm(controller: ServedController, vm: Named) -> Answer:
    """By name or id."""
    return await one(controller, VMS, vm)


@post("/vms", opt=WRITE, summary="Create a VM", status_code=ACCEPTED)
async def create_vm(request: Asked, controller: ServedController, data: JSONBody[VmRequest]) -> Answer:
    """The job at ``Location`` makes it."""

    async def create() -> Answer:
        vm, job_id = await controller.vms.create(data)
        return await one(controller, VMS, vm.id, status=ACCEPTED, location=f"{API}/jobs/{job_id}")

    return await once(request, controller, create)


@post("/vms/{vm:str}/start", opt=WRITE, summary="Start a VM", status_code=OK)
async def start_vm(request: Asked, controller: ServedController, vm: Named) -> Answer:
    """A cold boot; harmless when it runs."""
    await check_version(request, controller, VMS, vm)
    return await _now(controller, await controller.vms.start(vm))


@post("/vms/{vm:str}/pause", opt=WRITE, summary="Pause a VM", status_code=OK)
async def pause_vm(request: Asked, controller: ServedController, vm: Named) -> Answer:
    """Hold it."""
    await check_version(request, controller, VMS, vm)
    return await _now(controller, await controller.vms.pause(vm))


@post("/vms/{vm:str}/resume", opt=WRITE, summary="Resume a VM", status_code=OK)
async def resume_vm(request: Asked, controller: ServedController, vm: Named) -> Answer:
    """Let it go on."""
    await check_version(request, controller, VMS, vm)
    return await _now(controller, await controller.vms.resume(vm))


@post("/vms/{vm:str}/stop", opt=WRITE, summary="Stop a VM", status_code=OK)
async def stop_vm(request: Asked, controller: ServedController, vm: Named, data: JSONBody[StopRequest]) -> Answer:
    """Press the power button and wait, or pull the plug."""
    await check_version(request, controller, VMS, vm)
    return await _now(controller, await controller.vms.stop(vm, data))


@post("/vms/{vm:str}/resize", opt=WRITE, summary="Resize a VM", status_code=OK)
async def resize_vm(request: Asked, controller: ServedController, vm: Named, data: JSONBody[ResizeRequest]) -> Answer:
    """CPUs and memory of a stopped VM, disks of any."""
    await check_version(request, controller, VMS, vm)
    return await _now(controller, await controller.vms.resize(vm, data))


@post("/vms/{vm:str}/take-over", opt=ADMIN, summary="Take a VM over", status_code=OK)
async def take_over_vm(
    request: Asked, controller: ServedController, vm: Named, data: JSONBody[TakeOverRequest]
) -> Answer:
    """The caller attests that nobody else runs it."""
    await check_version(request, controller, VMS, vm)
    return await _now(controller, await controller.vms.take_over(vm, data))


@delete("/vms/{vm:str}", opt=WRITE, summary="Delete a VM", status_code=ACCEPTED)
async def delete_vm(
    request: Asked,
    controller: ServedController,
    vm: Named,
    force: FromQuery[bool] = False,  # noqa: FBT002 - of the query
) -> Answer:
    """The job at ``Location`` removes it, disks and all."""
    await check_version(request, controller, VMS, vm)
    job_id = await controller.vms.delete(vm, force=force)
    job = await controller.database.read(lambda tx: get_job(tx, job_id))
    return Response(msgspec.to_builtins(job), status_code=ACCEPTED, headers={"Location": f"{API}/jobs/{job_id}"})


async def _now(controller: Controller, vm: Vm) -> Answer:
    return await one(controller, VMS, vm.id)
