"""Plans: how a migration would go."""

from litestar import get, post

from novacron.api.answers import API, LIMIT, Page, many, one
from novacron.api.auth import READ, WRITE
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.kinds import PLANS
from novacron.protocol.rest import PlanRequest


@get("/plans", opt=READ, summary="List plans")
async def list_plans(controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT) -> Page:
    """Those of the last day."""
    return await many(controller, PLANS, cursor, limit)


@get("/plans/{plan:str}", opt=READ, summary="One plan")
async def get_plan(controller: ServedController, plan: Named) -> Answer:
    """By id."""
    return await one(controller, PLANS, plan)


@post("/plans", opt=WRITE, summary="Plan a migration")
async def make_plan(request: Asked, controller: ServedController, data: JSONBody[PlanRequest]) -> Answer:
    """Look, and touch nothing: it takes a few seconds."""

    async def make() -> Answer:
        plan = await controller.plans.make(data)
        return await one(controller, PLANS, plan.id, status=201, location=f"{API}/plans/{plan.id}")

    return await once(request, controller, make)
