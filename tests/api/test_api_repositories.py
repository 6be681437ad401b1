"""What the API tells of repositories, and what it never tells twice."""

import base64

from novacron.control.kinds import NODES
from novacron.core.ids import NodeId, new_id
from novacron.protocol.resources import Node

PHRASE = base64.b64encode(b"open sesame, says the passphrase").decode()


async def test_a_recovery_key_is_told_once_and_a_secret_never(client, controller):
    node = Node(NodeId(new_id("node")), "node-1", "127.0.0.1:1", "spiffe://x", state="ready")
    await controller.database.write(lambda tx: NODES.put(tx, node))
    body = {"name": "backups", "address": "/srv/backups", "lock": "passphrase", "secret": PHRASE}
    key = {"Idempotency-Key": "once"}
    answer = await client.post("/repositories", json=body, headers=key)
    assert (answer.status_code, answer.headers["location"].startswith("/api/v1/jobs/")) == (202, True)
    recovery = answer.json()["recovery_key"]
    assert len(recovery.split("-")) == 13
    again = await client.post("/repositories", json=body, headers=key)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    others = [await client.get(path) for path in ("/repositories", "/repositories/backups", "/jobs")]
    told = answer.text.replace(recovery, "") + again.text + "".join(other.text for other in others)
    assert recovery not in told
    assert PHRASE not in told
    assert (others[1].json()["state"], "secret" in others[1].json()) == ("creating", False)


async def test_a_request_that_cannot_be_read_is_refused_without_its_secret(client):
    for wrong in ({"lock": "guess"}, {"name": 7}, {"unknown": True}, {"chunker": "none"}):
        body = {"name": "backups", "address": "/srv/backups", "lock": "passphrase", "secret": PHRASE, **wrong}
        answer = await client.post("/repositories", json=body)
        assert (answer.status_code, PHRASE in answer.text) == (400, False)
