"""Migrations and jobs: long work."""

from typing import Final

import msgspec
from litestar import Response, get, post

from novacron.api.answers import API, LIMIT, Page, check_version, many, one
from novacron.api.auth import READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.jobs import get_job, list_jobs
from novacron.control.kinds import MIGRATIONS
from novacron.control.series import series
from novacron.protocol.resources import Job, MigrationSeries
from novacron.protocol.rest import MigrateRequest

ACCEPTED: Final = 202


@get("/migrations", opt=READ, summary="List migrations")
async def list_migrations(
    controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT
) -> Page:
    """Those that left and those that came."""
    return await many(controller, MIGRATIONS, cursor, limit)


@get("/migrations/{migration:str}", opt=READ, summary="One migration")
async def get_migration(controller: ServedController, migration: Named) -> Answer:
    """By id."""
    return await one(controller, MIGRATIONS, migration)


@get("/migrations/{migration:str}/series", opt=READ, summary="How a migration went")
async def get_series(controller: ServedController, migration: Named) -> MigrationSeries:
    """What it told of itself, by time: at most 500 points, evenly spread."""
    return await controller.database.read(lambda tx: series(tx, migration))


@post("/migrations", opt=WRITE, summary="Migrate a VM", status_code=ACCEPTED)
async def start_migration(request: Asked, controller: ServedController, data: JSONBody[MigrateRequest]) -> Answer:
    """While it runs, to a node or to another cluster."""

    async def start() -> Answer:
        migration = await controller.migrations.start(data)
        location = f"{API}/migrations/{migration.id}"
        return await one(controller, MIGRATIONS, migration.id, status=ACCEPTED, location=location)

    return await once(request, controller, start)


@post("/migrations/{migration:str}/cancel", opt=WRITE, summary="Cancel a migration", status_code=ACCEPTED)
async def cancel_migration(request: Asked, controller: ServedController, migration: Named) -> Answer:
    """Before the point of no return: the VM runs on where it was."""
    await check_version(request, controller, MIGRATIONS, migration)
    await controller.migrations.cancel(migration)
    return await one(controller, MIGRATIONS, migration, status=ACCEPTED)


@post("/migrations/{migration:str}/rollback", opt=WRITE, summary="Roll a migration back", status_code=ACCEPTED)
async def roll_back_migration(request: Asked, controller: ServedController, migration: Named) -> Answer:
    """Within its window: the VM comes back, with everything that it has done since."""
    await check_version(request, controller, MIGRATIONS, migration)
    await controller.migrations.rollback(migration)
    return await one(controller, MIGRATIONS, migration, status=ACCEPTED)


@get("/jobs", opt=READ, summary="List jobs")
async def list_all_jobs(controller: ServedController) -> dict[str, list[Job]]:
    """The newest 500."""
    return {"items": await controller.database.read(list_jobs)}


@get("/jobs/{job:str}", opt=READ, summary="One job")
async def get_one_job(controller: ServedController, job: Named) -> Answer:
    """By id."""
    found = await controller.database.read(lambda tx: get_job(tx, job))
    return Response(msgspec.to_builtins(found))
