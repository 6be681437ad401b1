"""The API as any HTTP client sees it."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from litestar.routes import HTTPRoute, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from novacron.api.app import create_app
from novacron.api.auth import PERMISSIONS
from novacron.control.kinds import IMAGES, VMS
from novacron.core.ids import VmId
from novacron.protocol.resources import Vm
from novacron.protocol.vm import VmSpec

DOCUMENT = Path(__file__).parents[2] / "docs/openapi.json"


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"].startswith("application/problem+json")
    body = response.json()
    assert body["status"] == response.status_code
    assert body["cause"]
    return response.status_code, body["code"]


async def put_vm(controller, name="demo", state="stopped") -> Vm:
    vm = Vm(VmId(f"vm-{1:020x}"), name, VmSpec(name, 1, 1 << 27), state, 1)
    await controller.database.write(lambda tx: VMS.put(tx, vm))
    return vm


async def test_nothing_is_told_to_who_has_no_token(url):
    async with httpx.AsyncClient(base_url=url) as nobody:
        assert problem(await nobody.get("/api/v1/vms")) == (401, "not_signed_in")
        wrong = {"Authorization": "Bearer wrong"}
        assert problem(await nobody.get("/api/v1/vms", headers=wrong)) == (401, "not_signed_in")
        assert (await nobody.get("/healthz")).json() == {"status": "ok"}


def test_every_route_declares_its_permission():
    app = create_app(None)
    for route in app.routes:
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else ()
        if isinstance(route, WebSocketRoute):
            handlers = (route.route_handler,)
        for handler in handlers:
            if "OPTIONS" not in getattr(handler, "http_methods", ()):
                assert handler.opt.get("permission") in PERMISSIONS, route.path


async def test_a_browser_session_may_read_but_not_be_used_from_elsewhere(controller, url):
    async with httpx.AsyncClient(base_url=url) as browser:
        refused = await browser.get("/login", params={"token": "wrong"})
        assert problem(refused) == (401, "not_signed_in")
        signed_in = await browser.get("/login", params={"token": controller.admin_token})
        assert signed_in.status_code == 303
        cookie = signed_in.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await browser.get("/api/v1/vms")).status_code == 200
        body = {"ttl_s": 60}
        evil = await browser.post("/api/v1/nodes/invite", json=body, headers={"Origin": "http://evil.example"})
        assert problem(evil) == (403, "no_permission")
        own = await browser.post("/api/v1/nodes/invite", json=body, headers={"Origin": url})
        assert own.status_code == 201


async def test_unknown_things_are_named_with_a_next_command(client):
    response = await client.get("/vms/nobody")
    assert problem(response) == (404, "not_found")
    assert response.json()["next_command"] == "novacron vm list"
    assert problem(await client.get("/nowhere")) == (404, "not_found")
    assert problem(await client.get("/jobs/nothing")) == (404, "job_unknown")
    assert problem(await client.put("/vms")) == (405, "invalid_input")
    described = await client.get(str(client.base_url).replace("/api/v1/", "/openapi/v1.json"))
    assert "/api/v1/vms" in described.json()["paths"]


async def test_wrong_input_names_the_field(client):
    response = await client.post("/vms", json={"name": "a", "memory_bytes": "much"})
    assert problem(response) == (400, "invalid_input")
    assert "memory_bytes" in response.json()["cause"]
    response = await client.post("/vms", json={"name": "a", "memory_bytes": 1 << 30, "colour": "red"})
    assert "colour" in response.json()["cause"]
    response = await client.post("/vms", content=b"{")
    assert problem(response) == (400, "invalid_input")
    response = await client.post(
        "/vms", json={"name": "Not A Name", "memory_bytes": 1 << 30, "disks": [{"size_bytes": 1}]}
    )
    assert problem(response) == (400, "invalid_input")


async def test_a_vm_that_no_node_can_take_is_refused_before_anything_is_made(client):
    body = {"name": "demo", "memory_bytes": 1 << 30, "disks": [{"size_bytes": 1 << 30}]}
    response = await client.post("/vms", json=body)
    assert problem(response) == (409, "no_room")
    assert (await client.get("/vms")).json()["items"] == []


async def test_an_image_comes_as_a_stream_and_goes(client, controller):
    content = b"kernel" * 100_000

    async def parts():
        for at in range(0, len(content), 70_001):
            yield content[at : at + 70_001]

    response = await client.post("/images", params={"name": "k", "format": "blob"}, content=parts())
    assert response.status_code == 201
    assert response.json()["size_bytes"] == len(content)
    assert response.headers["location"] == f"/api/v1/images/{response.json()['id']}"
    image = (await controller.database.read(lambda tx: IMAGES.get(tx, "k"))).value
    assert controller.images.path(image).read_bytes() == content
    again = await client.post("/images", params={"name": "k", "format": "blob"}, content=b"other")
    assert problem(again) == (409, "name_taken")
    wrong = await client.post("/images", params={"name": "q", "format": "qcow2"}, content=b"no magic")
    assert problem(wrong) == (400, "invalid_input")
    assert problem(await client.post("/images", params={"name": "q", "format": "odd"}, content=b"x"))[0] == 400
    assert problem(await client.post("/images", params={"name": "q"}, content=b""))[0] == 400
    assert (await client.delete("/images/k")).status_code == 204
    assert not controller.images.path(image).exists()
    assert list(controller.images.path(image).parent.iterdir()) == []


async def test_a_list_comes_in_pages(client, controller):
    for number in range(5):
        await controller.images.add(f"i{number}", "blob", _one(b"x%d" % number))
    first = (await client.get("/images", params={"limit": 3})).json()
    rest = (await client.get("/images", params={"limit": 3, "cursor": first["cursor"]})).json()
    assert len(first["items"]) == 3
    assert len(rest["items"]) == 2
    assert rest["cursor"] is None
    assert {item["name"] for item in first["items"] + rest["items"]} == {f"i{number}" for number in range(5)}
    assert problem(await client.get("/images", params={"limit": 0}))[0] == 400


async def test_a_request_that_comes_twice_is_done_once(client):
    headers = {"Idempotency-Key": "once"}
    first = await client.post("/federation/invite", json={"ttl_s": 60}, headers=headers)
    second = await client.post("/federation/invite", json={"ttl_s": 60}, headers=headers)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    other = await client.post("/federation/invite", json={"ttl_s": 61}, headers=headers)
    assert problem(other) == (409, "idempotency_mismatch")
    assert problem(await client.post("/federation/invite", json={"ttl_s": 1}))[0] == 400
    long = await client.post("/federation/invite", json={"ttl_s": 60}, headers={"Idempotency-Key": "x" * 201})
    assert problem(long)[0] == 400


async def test_if_match_guards_against_acting_on_what_has_changed(client, controller):
    await put_vm(controller)
    seen = await client.get("/vms/demo")
    assert seen.headers["etag"] == f'"{seen.json()["resource_version"]}"'
    await put_vm(controller, state="failed")
    stale = await client.request("DELETE", "/vms/demo", headers={"If-Match": seen.headers["etag"]})
    assert problem(stale) == (412, "version_conflict")
    fresh = (await client.get("/vms/demo")).headers["etag"]
    gone = await client.request("DELETE", "/vms/demo", headers={"If-Match": fresh})
    assert gone.status_code == 202
    assert gone.json()["workflow"] == "vm.delete"
    assert (await client.get(gone.headers["location"].removeprefix("/api/v1"))).status_code == 200


async def test_a_running_vm_is_not_deleted_without_force(client, controller):
    await put_vm(controller, state="running")
    response = await client.delete("/vms/demo")
    assert problem(response) == (409, "conflict")
    assert response.json()["next_command"] == "novacron vm stop demo"


async def test_changes_are_watched_from_a_version_on(client, controller):
    before = (await client.get("/vms")).json()["resource_version"]
    await put_vm(controller)
    async with client.stream("GET", "/events", params={"after": before, "kinds": "vm,image"}) as stream:
        lines = stream.aiter_lines()
        first = await _event(lines)
        assert (first["kind"], first["value"]["name"]) == ("vm", "demo")
        await controller.images.add("later", "blob", _one(b"x"))
        second = await _event(lines)
        assert (second["kind"], second["value"]["name"]) == ("image", "later")
    async with client.stream("GET", "/events", headers={"Last-Event-ID": str(first["version"])}) as stream:
        assert (await _event(stream.aiter_lines()))["version"] == second["version"]
    assert problem(await client.get("/events", params={"after": 1 << 40})) == (410, "version_gone")
    assert problem(await client.get("/events", params={"kinds": "token"}))[0] == 400


async def test_a_quiet_stream_beats(client, monkeypatch):
    from novacron.api import events

    monkeypatch.setattr(events, "BEAT_S", 0.01)
    async with client.stream("GET", "/events") as stream:
        beats = (line async for line in stream.aiter_lines() if line == ": beat")
        assert await anext(beats, None)


async def test_the_console_of_an_unknown_vm_closes_with_the_reason(controller, url):
    headers = {"Authorization": f"Bearer {controller.admin_token}"}
    async with connect(f"{url.replace('http', 'ws')}/api/v1/vms/x/console", additional_headers=headers) as socket:
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
    assert caught.value.rcvd.code == 4404
    assert "no VM 'x'" in caught.value.rcvd.reason


async def test_the_saved_state_is_an_archive_that_restores(client, controller, tmp_path):
    from novacron.control.controller import Controller
    from novacron.control.errors import SavedStateError
    from novacron.control.saved_state import restore
    from support.clusters import CLOCK, bind

    await put_vm(controller)
    response = await client.post("/controller/save")
    archive = tmp_path / "state.tar.gz"
    archive.write_bytes(response.content)
    await restore(archive, tmp_path / "other")
    async with Controller.running(data_dir=tmp_path / "other", name="site-a", listener=bind(), clock=CLOCK) as restored:
        assert (await restored.database.read(lambda tx: VMS.get(tx, "demo"))).value.name == "demo"
        assert restored.cluster.id == controller.cluster.id
        assert restored.admin_token == controller.admin_token
    with pytest.raises(SavedStateError, match="is not empty"):
        await restore(archive, tmp_path / "other")
    archive.write_bytes(response.content[:1000])
    with pytest.raises(SavedStateError, match="cannot be read"):
        await restore(archive, tmp_path / "third")
    assert not (tmp_path / "third").exists()


async def test_a_fault_of_ours_is_not_told_in_detail(client, controller, monkeypatch):
    async def broken(_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(controller.vms, "start", broken)
    await put_vm(controller)
    response = await client.post("/vms/demo/start")
    assert problem(response) == (500, "internal")
    assert "secret" not in response.text


def test_the_openapi_document_is_the_one_that_is_checked_in():
    document = create_app(None).openapi_schema.to_schema()
    assert json.loads(DOCUMENT.read_text()) == json.loads(json.dumps(document)), (
        "the API has changed: python -m novacron.api.document > docs/openapi.json"
    )


async def _one(data: bytes):
    yield data


async def _event(lines) -> dict:
    async with asyncio.timeout(10):
        async for line in lines:
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")
