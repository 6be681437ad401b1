"""A browser, and a small application that serves the page over records of its own."""

import asyncio
import json

import pytest
import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Stream
from playwright.async_api import async_playwright

from novacron.api.given import FromQuery
from novacron.web.pages import routes

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-dev-shm-usage",
]
PLURALS = {"batch": "batches"}
EMPTY_SPLIT = {
    f"{part}_{what}": 0
    for part, what in (
        *((part, "bytes") for part in ("unchanged", "zero", "dedup", "delta", "literal")),
        *((part, "wire_bytes") for part in ("zero", "dedup", "delta", "compressed")),
    )
}


def progress(**more):
    plain = {
        "phase": "copy",
        "round": 1,
        "done_bytes": 100 << 20,
        "total_bytes": 512 << 20,
        "rate_bytes_s": 40e6,
        "wire_rate_bytes_s": 22e6,
        "dirty_rate_bytes_s": 9e6,
        "eta_ms": 12_000,
        "wire_bytes": 60 << 20,
        "rtt_ms": 40.2,
        "converging": True,
        "note": "",
        "split": {**EMPTY_SPLIT, "zero_bytes": 40 << 20, "literal_bytes": 60 << 20, "compressed_wire_bytes": 58 << 20},
    }
    return {**plain, **more}


def migration(number=1, **more):
    plain = {
        "id": f"migration-{number:020x}",
        "vm_id": f"vm-{number:020x}",
        "vm_name": f"web-{number}",
        "source_cluster": "site-a",
        "target_cluster": "site-b",
        "direction": "outgoing",
        "phase": "copy",
        "outcome": "",
        "progress": progress(),
        "summary": None,
        "problem": None,
        "started_at": 1_700_000_000.0 + number,
        "ended_at": 0.0,
    }
    return {**plain, **more}


def ended(number, outcome="succeeded", **more):
    summary = {
        "total_ms": 8100,
        "downtime_ms": 180,
        "rounds": 3,
        "guest_bytes": 600 << 20,
        "wire_bytes": 150 << 20,
        "ram_wire_bytes": 100 << 20,
        "disk_wire_bytes": 50 << 20,
        "bandwidth_bytes_s": 18_000_000,
        "verified": True,
        "split": progress()["split"],
    }
    there = summary if outcome == "succeeded" else None
    return migration(number, phase="done", outcome=outcome, summary=there, **more)


def move(number, **more):
    plain = {
        "vm_id": f"vm-{number:020x}",
        "vm_name": f"web-{number}",
        "source_node": "rack-1",
        "predicted_bytes": 100 << 20,
        "predicted": None,
        "migration_id": None,
        "phase": "waiting",
        "done_bytes": 0,
        "total_bytes": 0,
        "outcome": "",
        "problem": None,
    }
    return {**plain, **more}


def batch(*moves, **more):
    plain = {
        "id": f"batch-{1:020x}",
        "target_cluster": "site-b",
        "target_node": "",
        "drains": "rack-1",
        "moves": moves,
        "begins_at": 0.0,
        "cancelling": False,
        "outcome": "",
        "problem": None,
        "started_at": 1_700_000_000.0,
        "ended_at": 0.0,
    }
    return {**plain, **more}


def vm(number=1, **more):
    plain = {
        "id": f"vm-{number:020x}",
        "name": f"web-{number}",
        "state": "running",
        "node_id": "node-1",
        "migration_id": None,
        "spec": {"memory_bytes": 512 << 20},
    }
    return {**plain, **more}


class FakeCluster:
    """The API's shapes over records that a test puts down; ``posted`` is what the page has asked for."""

    def __init__(self) -> None:
        self.version = 10
        self.records = {"nodes": {}, "vms": {}, "migrations": {}, "batches": {}, "peers": {}}
        self.series: dict[str, list[dict]] = {}
        self.posted: list[tuple[str, dict]] = []
        self.refuse: tuple[int, dict] | None = None
        self.signed_in = True
        self._changes: list[tuple[int, str, str, dict | None]] = []
        self._woken = asyncio.Event()
        self._epoch = 0

    def put(self, kind: str, value: dict, *, version: int | None = None) -> None:
        """Change a resource; the page hears of it."""
        self.version += 1
        said = self.version if version is None else version
        self.records[PLURALS.get(kind, f"{kind}s")][value["id"]] = {**value, "resource_version": said}
        self._changes.append((said, kind, value["id"], value))
        self._woken.set()

    def cut(self) -> None:
        """End every stream of events."""
        self._epoch += 1
        self._woken.set()

    async def events(self, after: int):
        epoch, at = self._epoch, 0
        yield b": watching\n\n"
        while epoch == self._epoch:
            self._woken.clear()
            while at < len(self._changes):
                version, kind, name, value = self._changes[at]
                at += 1
                if version > after or version < 10:
                    data = json.dumps({"version": version, "kind": kind, "id": name, "value": value})
                    yield f"id: {version}\nevent: change\ndata: {data}\n\n".encode()
            await self._woken.wait()

    def app(self) -> Litestar:
        @get("/api/v1/cluster")
        async def cluster() -> Response:
            if not self.signed_in:
                return Response({"code": "not_signed_in", "cause": "sign in first"}, status_code=401)
            return Response({"id": "cluster-1", "name": "site-a", "version": "0", "address": "h:1"})

        @get([f"/api/v1/{kinds}" for kinds in self.records])
        async def listing(request: Request) -> dict:
            items = list(self.records[request.url.path.rpartition("/")[2]].values())
            return {"items": items, "cursor": None, "resource_version": self.version, "incarnation": "x"}

        @get("/api/v1/migrations/{name:str}/series")
        async def series(name: FromPath[str]) -> dict:
            return {"items": self.series.get(name, [])}

        @get("/api/v1/events")
        async def events(after: FromQuery[int]) -> Stream:
            return Stream(self.events(after), media_type="text/event-stream")

        @post(
            [
                "/api/v1/migrations",
                *(f"/api/v1/{kinds}/{{name:str}}/{{verb:str}}" for kinds in ("migrations", "batches")),
            ],
            status_code=202,
        )
        async def act(request: Request) -> Response:
            body = await request.body()
            self.posted.append((request.url.path, json.loads(body) if body else {}))
            if self.refuse:
                return Response(self.refuse[1], status_code=self.refuse[0], media_type="application/problem+json")
            return Response({}, status_code=202)

        return Litestar([cluster, listing, series, events, act, *routes()], logging_config=None)


@pytest.fixture
async def cluster():
    """A fake cluster with one node and one peer, and its address in ``url``."""
    fake = FakeCluster()
    fake.put(
        "node", {"id": "node-1", "name": "rack-1", "state": "ready", "capabilities": {"memory_free_bytes": 8 << 30}}
    )
    fake.put("peer", {"id": "cluster-2", "name": "site-b", "state": "joined"})
    config = uvicorn.Config(fake.app(), port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield fake
    fake.cut()
    server.should_exit = True
    await serving


@pytest.fixture
async def open_page(cluster):
    """Opens the page in a browser; a console error or a breach of the policy fails the test."""
    wrong: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        async def opened(path="/", *, expect_errors=False, **options):
            page = await browser.new_page(**options)
            if not expect_errors:
                page.on("console", lambda m: wrong.append(m.text) if m.type in {"error", "warning"} else None)
                page.on("pageerror", lambda e: wrong.append(str(e)))
            await page.goto(cluster.url + path)
            return page

        yield opened
        await browser.close()
    assert wrong == []
