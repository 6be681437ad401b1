"""Repositories: where backups are kept. What opens one is given once, and never told."""

from typing import Final

from litestar import Response, delete, get, post

from novacron.api.answers import API, LIMIT, Page, check_version, many, one
from novacron.api.auth import ADMIN, READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.kinds import REPOSITORIES
from novacron.protocol.repository import RepositoryStats
from novacron.protocol.rest import CheckRequest, PruneRequest, RepositoryRequest

ACCEPTED: Final = 202


@get("/repositories", opt=READ, summary="List repositories")
async def list_repositories(
    controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT
) -> Page:
    """Where backups are kept."""
    return await many(controller, REPOSITORIES, cursor, limit)


@get("/repositories/{repository:str}", opt=READ, summary="One repository")
async def get_repository(controller: ServedController, repository: Named) -> Answer:
    """By name or id."""
    return await one(controller, REPOSITORIES, repository)


@get("/repositories/{repository:str}/stats", opt=READ, summary="What a repository takes")
async def get_stats(controller: ServedController, repository: Named) -> RepositoryStats:
    """As its node counts it now, by the lists of its store."""
    return await controller.repositories.stats(repository)


@post("/repositories", opt=ADMIN, summary="Make a repository", status_code=ACCEPTED)
async def create_repository(controller: ServedController, data: JSONBody[RepositoryRequest]) -> Answer:
    """The answer has its ``recovery_key`` (empty: it has none), which cannot be had again.

    So no answer is kept for an ``Idempotency-Key``: a request that is sent twice finds the name taken. The job at
    ``Location`` makes it.
    """
    made, recovery_key = await controller.repositories.create(data)
    answer = await one(controller, REPOSITORIES, made.id, location=f"{API}/jobs/{made.job_id}")
    content = {**answer.content, "recovery_key": recovery_key}
    return Response(content, status_code=ACCEPTED, headers=answer.headers)


@post("/repositories/{repository:str}/check", opt=WRITE, summary="Check a repository", status_code=ACCEPTED)
async def check_repository(
    request: Asked, controller: ServedController, repository: Named, data: JSONBody[CheckRequest]
) -> Answer:
    """Whether all that backups need is there; with ``read``, also what it was. The job at ``Location`` looks."""

    async def check() -> Answer:
        await check_version(request, controller, REPOSITORIES, repository)
        begun = await controller.repositories.check(repository, data)
        return await _begun(controller, begun.id, begun.job_id)

    return await once(request, controller, check)


@post("/repositories/{repository:str}/prune", opt=WRITE, summary="Prune a repository", status_code=ACCEPTED)
async def prune_repository(
    request: Asked, controller: ServedController, repository: Named, data: JSONBody[PruneRequest]
) -> Answer:
    """Remove what no backup needs, beside backups that run. The job at ``Location`` does it."""

    async def prune() -> Answer:
        await check_version(request, controller, REPOSITORIES, repository)
        begun = await controller.repositories.prune(repository, data)
        return await _begun(controller, begun.id, begun.job_id)

    return await once(request, controller, prune)


@post("/repositories/{repository:str}/cancel", opt=WRITE, summary="Give work up", status_code=ACCEPTED)
async def cancel_repository(request: Asked, controller: ServedController, repository: Named) -> Answer:
    """The check or prune that is under way, or the making of the repository."""
    await check_version(request, controller, REPOSITORIES, repository)
    await controller.repositories.cancel(repository)
    return await one(controller, REPOSITORIES, repository, status=ACCEPTED)


@delete("/repositories/{repository:str}", opt=ADMIN, summary="Forget a repository", status_code=204)
async def delete_repository(request: Asked, controller: ServedController, repository: Named) -> None:
    """And what opens it; what lies in its store is left alone."""
    await check_version(request, controller, REPOSITORIES, repository)
    await controller.repositories.delete(repository)


async def _begun(controller: ServedController, repository_id: str, job_id: str) -> Answer:
    return await one(controller, REPOSITORIES, repository_id, status=ACCEPTED, location=f"{API}/jobs/{job_id}")
