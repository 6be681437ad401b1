"""The cluster itself: who it is, its nodes, its peers, its state."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from litestar import Response, get, post
from litestar.response import Stream

from novacron.api.answers import LIMIT, Page, many, one
from novacron.api.auth import ADMIN, READ
from novacron.api.given import Answer, Asked, FromQuery, JSONBody, Named, ServedController
from novacron.api.idempotency import once
from novacron.control.kinds import CLUSTERS, NODES, PEERS
from novacron.core.units import MIB
from novacron.protocol.rest import InviteRequest, JoinRequest

CREATED: Final = 201


@get("/cluster", opt=READ, summary="This cluster")
async def get_cluster(controller: ServedController) -> Answer:
    """Who answers."""
    return await one(controller, CLUSTERS, controller.cluster.id)


@get("/nodes", opt=READ, summary="List nodes")
async def list_nodes(controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT) -> Page:
    """Hypervisor hosts of this cluster."""
    return await many(controller, NODES, cursor, limit)


@get("/nodes/{node:str}", opt=READ, summary="One node")
async def get_node(controller: ServedController, node: Named) -> Answer:
    """By name or id."""
    return await one(controller, NODES, node)


@post("/nodes/invite", opt=ADMIN, summary="Invite a node", status_code=CREATED)
async def invite_node(request: Asked, controller: ServedController, data: JSONBody[InviteRequest]) -> Answer:
    """A text by which one host joins as a node."""

    async def invite() -> Answer:
        made = await controller.nodes.invite(data.ttl_s)
        return Response({"invitation": made.invitation, "expires_at": made.expires_at}, status_code=CREATED)

    return await once(request, controller, invite)


@get("/peers", opt=READ, summary="List peer clusters")
async def list_peers(controller: ServedController, cursor: FromQuery[str] = "", limit: FromQuery[int] = LIMIT) -> Page:
    """Clusters that this one has joined with."""
    return await many(controller, PEERS, cursor, limit)


@get("/peers/{peer:str}", opt=READ, summary="One peer cluster")
async def get_peer(controller: ServedController, peer: Named) -> Answer:
    """By name or id."""
    return await one(controller, PEERS, peer)


@post("/federation/invite", opt=ADMIN, summary="Invite a cluster", status_code=CREATED)
async def invite_peer(request: Asked, controller: ServedController, data: JSONBody[InviteRequest]) -> Answer:
    """A text by which one cluster joins with this one."""

    async def invite() -> Answer:
        made = await controller.peers.invite(data.ttl_s)
        return Response({"invitation": made.invitation, "expires_at": made.expires_at}, status_code=CREATED)

    return await once(request, controller, invite)


@post("/federation/join", opt=ADMIN, summary="Join a cluster", status_code=CREATED)
async def join_peer(request: Asked, controller: ServedController, data: JSONBody[JoinRequest]) -> Answer:
    """Use an invitation of another cluster."""

    async def join() -> Answer:
        peer = await controller.peers.join(data.invitation)
        return await one(controller, PEERS, peer.id, status=CREATED, location=f"/api/v1/peers/{peer.id}")

    return await once(request, controller, join)


@post("/controller/save", opt=ADMIN, summary="Save the controller's state", status_code=200)
async def save_state(controller: ServedController) -> Stream:
    """An archive of the database and the authority; whoever has it is the cluster."""

    async def parts() -> AsyncIterator[bytes]:
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "state.tar.gz"
            await controller.save(archive)
            with archive.open("rb") as file:
                while data := file.read(MIB):
                    yield data

    return Stream(parts(), media_type="application/octet-stream")
