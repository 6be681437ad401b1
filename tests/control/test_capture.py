"""What crosses between two sites tells nothing of a guest; where TLS hides nothing, the same capture reads it."""

import random
import ssl

from novacron.core.units import MIB, PAGE_BYTES
from novacron.protocol.migration import MigrationPolicy
from novacron.wire import client
from novacron.wire.credentials import Credentials, anonymous_context
from support.capture import Capture, capturing
from support.clusters import in_memory, two_clusters

QUICK = MigrationPolicy(verify_window_ms=0)
MARKED_PAGES = 64
PIECE = 32  # bytes: long enough to be no chance, short enough to lie whole in one TLS record
AT = MIB  # in RAM and on the disk, where the guest writes nothing by itself
IN_RAM, ON_DISK = (random.Random(seed).randbytes(MARKED_PAGES * PAGE_BYTES) for seed in (1, 2))  # no codec shortens it


async def what_crosses(directory) -> Capture:
    """Of a VM that moves, with a marker in its RAM and on its disk; a relay stands before every address."""
    directory.mkdir()
    async with capturing() as capture, two_clusters(directory, in_memory(), front=capture.front) as (a, b):
        vm = await a.boot_small()
        (machine,) = await a.agents["node-1"][0]._driver.adopt(vm.id)
        machine._ram[AT : AT + len(IN_RAM)] = IN_RAM
        machine.disks["disk0"].write(AT, ON_DISK)
        assert (await a.ended((await a.migrate("demo", "site-b", QUICK)).id)).outcome == "succeeded"
        (arrived,) = await b.agents["node-1"][0]._driver.adopt(vm.id)
        assert arrived._ram[AT : AT + len(IN_RAM)] == IN_RAM
        assert arrived.disks["disk0"].read(AT, len(ON_DISK)) == ON_DISK
        return capture


def share_seen(capture: Capture, marker: bytes) -> float:
    pieces = [marker[at : at + PIECE] for at in range(0, len(marker), PAGE_BYTES)]
    return sum(map(capture.saw, pieces)) / len(pieces)


def hiding_nothing(context: ssl.SSLContext) -> ssl.SSLContext:
    """TLS that proves who speaks, and leaves what is said as it is."""
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("eNULL:@SECLEVEL=0")
    return context


async def test_nothing_of_a_guest_crosses_in_clear(short_dir, monkeypatch):
    capture = await what_crosses(short_dir / "hidden")
    assert capture.size > len(IN_RAM) + len(ON_DISK)
    assert (share_seen(capture, IN_RAM), share_seen(capture, ON_DISK)) == (0, 0)

    context = Credentials._context
    monkeypatch.setattr(Credentials, "_context", lambda self, protocol: hiding_nothing(context(self, protocol)))
    monkeypatch.setattr(client, "anonymous_context", lambda root: hiding_nothing(anonymous_context(root)))
    capture = await what_crosses(short_dir / "clear")
    assert share_seen(capture, IN_RAM) > 0.9
    assert share_seen(capture, ON_DISK) > 0.9
