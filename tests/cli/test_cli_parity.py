"""What the API can, the command line can, and the reverse: every command is run, and what it asked is recorded."""

import json
import re
from pathlib import Path

import click
import pytest

from novacron.api.events import KINDS
from novacron.cli import kinds
from novacron.control.kinds import BACKUPS, BATCHES, CHECKPOINTS, IMAGES, MIGRATIONS, NODES, REPOSITORIES, VMS
from novacron.core.clock import SystemClock
from novacron.core.ids import BackupId, BatchId, CheckpointId, ImageId, MigrationId, NodeId, RepositoryId, VmId, new_id
from novacron.launch.commands import root
from novacron.protocol.resources import Backup, Batch, Checkpoint, Image, Migration, Node, Repository, Vm
from novacron.protocol.vm import VmSpec
from novacron.workflow import journal

API = "/api/v1"
DOCUMENT = Path(__file__).parents[2] / "docs/openapi.json"
# Commands by what one types, with the routes that they are there for.
COMMANDS = {
    "controller show": ["GET /cluster"],
    "controller save {tmp}/state.tar.gz": ["POST /controller/save"],
    "node list": ["GET /nodes"],
    "node show node-1": ["GET /nodes/{node}"],
    "node invite": ["POST /nodes/invite"],
    "node drain node-1": ["POST /nodes/{node}/drain"],
    "node undrain node-1": ["POST /nodes/{node}/undrain"],
    "node remove node-1": ["DELETE /nodes/{node}"],
    "image list": ["GET /images"],
    "image show debian": ["GET /images/{image}"],
    "image import {tmp}/disk.img --name new": ["POST /images"],
    "image delete debian": ["DELETE /images/{image}"],
    "vm create other --memory 1GiB --image debian": ["POST /vms"],
    "vm list": ["GET /vms"],
    "vm show demo": ["GET /vms/{vm}"],
    "vm start demo": ["POST /vms/{vm}/start"],
    "vm stop demo": ["POST /vms/{vm}/stop"],
    "vm pause demo": ["POST /vms/{vm}/pause"],
    "vm resume demo": ["POST /vms/{vm}/resume"],
    "vm resize demo --vcpus 2": ["POST /vms/{vm}/resize"],
    "vm take-over demo --attest nobody-else-runs-it": ["POST /vms/{vm}/take-over"],
    "vm delete demo --force --no-wait": ["DELETE /vms/{vm}"],
    "vm checkpoint create demo --no-wait": ["POST /vms/{vm}/checkpoints"],
    "vm checkpoint list": ["GET /checkpoints"],
    "vm checkpoint show {checkpoint}": ["GET /checkpoints/{checkpoint}"],
    "vm checkpoint watch {checkpoint}": ["GET /checkpoints/{checkpoint}"],
    "vm checkpoint cancel {checkpoint}": ["POST /checkpoints/{checkpoint}/cancel"],
    "vm checkpoint restore {checkpoint} --no-wait": ["POST /checkpoints/{checkpoint}/restore"],
    "vm checkpoint delete {checkpoint} --no-wait": ["DELETE /checkpoints/{checkpoint}"],
    "repo create new /srv/new --node node-1 --no-wait": ["POST /repositories"],
    "repo list": ["GET /repositories"],
    "repo show backups": ["GET /repositories/{repository}"],
    "repo stats backups": ["GET /repositories/{repository}/stats"],
    "repo check backups --read --no-wait": ["POST /repositories/{repository}/check"],
    "repo prune backups --no-wait": ["POST /repositories/{repository}/prune"],
    "repo watch backups": ["GET /repositories/{repository}"],
    "repo cancel backups": ["POST /repositories/{repository}/cancel"],
    "repo delete empty": ["DELETE /repositories/{repository}"],
    "backup run demo --repo backups --no-wait": ["POST /vms/{vm}/backups"],
    "backup list demo --repo backups": ["GET /backups"],
    "backup show {backup}": ["GET /backups/{backup}"],
    "backup watch {backup}": ["GET /backups/{backup}"],
    "backup cancel {backup}": ["POST /backups/{backup}/cancel"],
    "backup delete {backup} --no-wait": ["DELETE /backups/{backup}"],
    "vm console demo": ["WS /vms/{vm}/console"],
    "migrate demo --to site-b": ["POST /migrations"],
    "migrate demo other --to site-b": ["POST /batches"],
    "migrate demo --to site-b --plan": ["POST /plans"],
    "plan list": ["GET /plans"],
    "plan show plan-0": ["GET /plans/{plan}"],
    "batch list": ["GET /batches"],
    "batch show {batch}": ["GET /batches/{batch}"],
    "batch watch {batch}": ["GET /batches/{batch}"],
    "batch cancel {batch}": ["POST /batches/{batch}/cancel"],
    "migration list": ["GET /migrations"],
    "migration show {migration}": ["GET /migrations/{migration}"],
    "migration series {migration}": ["GET /migrations/{migration}/series"],
    "migration watch {migration}": ["GET /migrations/{migration}"],
    "migration cancel {migration}": ["POST /migrations/{migration}/cancel"],
    "migration rollback {migration}": ["POST /migrations/{migration}/rollback"],
    "federation invite": ["POST /federation/invite"],
    "federation join novacron1.damaged": ["POST /federation/join"],
    "federation list": ["GET /peers"],
    "federation show site-b": ["GET /peers/{peer}"],
    "job list": ["GET /jobs"],
    "job show {job}": ["GET /jobs/{job}"],
    "event watch": ["GET /events"],
    "metrics": ["GET /metrics"],
}
WITHOUT_COMMAND = {
    "GET /openapi": "the document of the API itself, for programs",
    "GET /openapi.json": "the same",
    "GET /openapi/openapi.json": "the same",
    "GET /openapi/v1.json": "the same",
    "GET /openapi/{path}": "the same",
    "GET /healthz": "for load balancers",
    "GET /login": "for browsers: a session's cookie",
}
WITHOUT_ROUTE = {
    "doctor": "looks at this machine, where no cluster need be",
    "up": "starts processes",
    "controller run": "starts a process",
    "controller restore": "offline: fills a folder before a controller starts on it",
    "node run": "starts a process",
    "demo": "starts clusters of its own",
    "bench": "starts clusters of its own",
    "context list": "this user's files",
    "context use": "this user's files",
    "context show": "this user's files",
    "config explain": "this user's files",
}
ENDLESS = frozenset({"event watch"})  # tested with Ctrl-C in test_cli_errors


def documented():
    """Routes of the API, as ``METHOD /path/{name}``."""
    found = set()
    for path, methods in json.loads(DOCUMENT.read_text())["paths"].items():
        short = path.removeprefix(API)
        found |= {
            f"{method.upper()} {short}" for method in methods if method in {"get", "post", "put", "delete", "patch"}
        }
    found.add("WS /vms/{vm}/console")  # OpenAPI has no words for a WebSocket
    return found


def leaves(group, context, path=()):
    """Every command below ``group``, as one types it."""
    for name in group.list_commands(context):
        line = " ".join((*path, name))
        command = None if line in WITHOUT_ROUTE else group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, context, (*path, name))
        else:
            yield line


@pytest.fixture
def furnished(served, tmp_path):
    """A cluster with one of each, whose node does not answer."""
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    now = SystemClock().now()
    node = Node(NodeId(new_id("node")), "node-1", "127.0.0.1:1", "spiffe://x", state="unreachable")
    vm = Vm(VmId(new_id("vm")), "demo", VmSpec("demo", 1, 1 << 27), "running", 1, node.id, created_at=now)
    migration = Migration(
        MigrationId(new_id("migration")), vm.id, "demo", "site-a", "site-b", "outgoing", "copy", outcome="failed"
    )
    batch = Batch(BatchId(new_id("batch")), "site-b", outcome="failed")
    job = new_id("job")
    checkpoint = Checkpoint(CheckpointId(new_id("checkpoint")), vm.id, "demo", node.id, "ready", job)
    repository = Repository(
        RepositoryId(new_id("repository")), "backups", "/srv/backups", node.id, "made", "ready", job
    )
    empty = Repository(RepositoryId(new_id("repository")), "empty", "/srv/empty", node.id, "made", "ready", job)
    backup = Backup(BackupId(new_id("backup")), vm.id, "demo", repository.id, "backups", node.id, "ready", job)

    def furnish(tx):
        NODES.put(tx, node)
        VMS.put(tx, vm)
        IMAGES.put(tx, Image(ImageId(new_id("image")), "debian", "raw", 1 << 20, "0" * 64, 1 << 20))
        MIGRATIONS.put(tx, migration, named=False)
        BATCHES.put(tx, batch, named=False)
        CHECKPOINTS.put(tx, checkpoint, named=False)
        REPOSITORIES.put(tx, repository)
        REPOSITORIES.put(tx, empty)
        BACKUPS.put(tx, backup, named=False)
        journal.submit(tx, job, "vm.delete", "/api/v1/vms/x", {"vm_id": "vm-x", "node_id": node.id})

    served.write(furnish)
    return served, {
        "tmp": str(tmp_path),
        "migration": migration.id,
        "batch": batch.id,
        "job": job,
        "checkpoint": checkpoint.id,
        "backup": backup.id,
    }


def asked(requests, routes):
    """Which of ``routes`` were asked for."""
    found = set()
    for route in routes:
        method, path = route.split(" ")
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", f"({API})?{path}"))  # some stand beside it
        if any(asked_method == method and pattern.fullmatch(asked_path) for asked_method, asked_path in requests):
            found.add(route)
    return found


@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in ENDLESS])
def test_a_command_asks_for_its_routes(novacron, furnished, line):
    served, names = furnished
    done = novacron(*line.format(**names).split(), "--output", "json")
    assert asked(served.requests, COMMANDS[line]) == set(COMMANDS[line]), done
    if done.code == 0:
        json.loads(done.out)
    else:
        assert json.loads(done.err.splitlines()[-1])["code"] != "internal", done


def test_every_route_of_the_api_has_a_command():
    reached = {route for routes in COMMANDS.values() for route in routes}
    assert documented() - reached == set(WITHOUT_COMMAND) & documented()
    assert reached <= documented()


def test_every_command_has_a_route():
    lines = [f"{line} " for line in COMMANDS]
    without = {
        leaf for leaf in leaves(root, click.Context(root)) if not any(line.startswith(f"{leaf} ") for line in lines)
    }
    assert without == set(WITHOUT_ROUTE)


def test_every_kind_that_is_watched_can_be_watched():
    watched = {kind.event for kind in vars(kinds).values() if isinstance(kind, kinds.Kind)} - {""}
    assert watched <= KINDS
