"""Backups of VMs: their disks as they were at one instant, in a repository."""

from typing import Final

from litestar import delete, get, post

from novacron.api.answers import API, LIMIT, Page, check_version, many, one
from novacron.api.auth import ADMIN, READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.kinds import BACKUPS
from novacron.protocol.rest import BackupRequest

ACCEPTED: Final = 202


@get("/backups", opt=READ, summary="List backups")
async def list_backups(
    controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT
) -> Page:
    """Of all VMs, in all repositories."""
    return await many(controller, BACKUPS, cursor, limit)


@get("/backups/{backup:str}", opt=READ, summary="One backup")
async def get_backup(controller: ServedController, backup: Named) -> Answer:
    """By id."""
    return await one(controller, BACKUPS, backup)


@post("/vms/{vm:str}/backups", opt=WRITE, summary="Back a VM up", status_code=ACCEPTED)
async def run_backup(request: Asked, controller: ServedController, vm: Named, data: JSONBody[BackupRequest]) -> Answer:
    """Only what has changed since the last one is read; the job at ``Location`` does it."""

    async def run() -> Answer:
        begun = await controller.backups.run(vm, data)
        return await one(controller, BACKUPS, begun.id, status=ACCEPTED, location=f"{API}/jobs/{begun.job_id}")

    return await once(request, controller, run)


@post("/backups/{backup:str}/cancel", opt=WRITE, summary="Give a backup up", status_code=ACCEPTED)
async def cancel_backup(request: Asked, controller: ServedController, backup: Named) -> Answer:
    """The one that is being made: nothing of it stays."""
    await check_version(request, controller, BACKUPS, backup)
    await controller.backups.cancel(backup)
    return await one(controller, BACKUPS, backup, status=ACCEPTED)


@delete("/backups/{backup:str}", opt=ADMIN, summary="Delete a backup", status_code=ACCEPTED)
async def delete_backup(request: Asked, controller: ServedController, backup: Named) -> Answer:
    """What it alone needs goes with the next prune; the job at ``Location`` does it."""
    await check_version(request, controller, BACKUPS, backup)
    begun = await controller.backups.delete(backup)
    return await one(controller, BACKUPS, begun.id, status=ACCEPTED, location=f"{API}/jobs/{begun.job_id}")
