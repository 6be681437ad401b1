"""Calls over real mutual TLS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from msgspec import Struct

from novacron.core.errors import RemoteError
from novacron.hypervisor.errors import NoRoomError
from novacron.wire.client import Client
from novacron.wire.credentials import Credentials
from novacron.wire.errors import CertificateExpiredError, ConnectionBrokenError, IdentityError
from novacron.wire.identity import SpiffeId
from novacron.wire.server import Duplex, Server


class Number(Struct, frozen=True):
    value: int


class Service:
    """A few methods to be called."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()

    async def double(self, _peer: SpiffeId, request: Number) -> Number:
        return Number(request.value * 2)

    async def fail(self, _peer: SpiffeId, request: Number) -> Number:
        if request.value:
            raise NoRoomError("full", next_command="novacron node list")
        raise ZeroDivisionError("secret detail")

    async def hang(self, _peer: SpiffeId, _request: Number) -> Number:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def count(self, _peer: SpiffeId, request: Number) -> AsyncIterator[Number]:
        try:
            for value in range(request.value):
                yield Number(value)
        finally:
            self.cancelled.set()

    async def echo(self, _peer: SpiffeId, _request: Number, both: Duplex) -> None:
        while item := await both.receive():
            await both.send(item.upper())

    async def open_to_all(self, request: Number) -> Number:
        return Number(request.value + 1)

    async def serve(self, credentials: Credentials) -> Server:
        server = Server(credentials)
        everybody = lambda _: True  # noqa: E731 - a predicate
        server.method("double", Number, self.double, allow=everybody)
        server.method("fail", Number, self.fail, allow=everybody)
        server.method("hang", Number, self.hang, allow=everybody)
        server.method("nodes_only", Number, self.double, allow=lambda peer: peer.kind == "node")
        server.stream("count", Number, self.count, allow=everybody)
        server.duplex("echo", Number, self.echo, allow=everybody)
        server.anonymous("open", Number, self.open_to_all)
        return await server.start("127.0.0.1", 0)


@pytest.fixture
async def service(site_a):
    service = Service()
    service.server = await service.serve(site_a.credentials())
    yield service
    await service.server.close()


@pytest.fixture
async def client(service, site_a):
    async with Client.known(
        service.server.address, site_a.credentials("node", "n1"), expect=SpiffeId("site-a", "controller")
    ) as client:
        yield client


async def test_calls_are_answered_side_by_side(client):
    answers = await asyncio.gather(*(client.call("double", Number(n), Number) for n in range(50)))
    assert [a.value for a in answers] == [2 * n for n in range(50)]


async def test_an_error_keeps_its_code_and_its_next_command(client):
    with pytest.raises(RemoteError, match="full") as caught:
        await client.call("fail", Number(1), Number)
    assert (caught.value.code, caught.value.exit_code, caught.value.next_command) == (
        "no_room",
        5,
        "novacron node list",
    )


async def test_a_fault_tells_no_secrets(client):
    with pytest.raises(RemoteError) as caught:
        await client.call("fail", Number(0), Number)
    assert caught.value.code == "internal"
    assert "secret" not in str(caught.value)


async def test_a_stream_longer_than_the_credit_arrives_whole(client):
    async with aclosing(client.stream("count", Number(500), Number)) as items:
        assert [item.value async for item in items] == list(range(500))


async def test_a_stream_left_early_ends_at_the_other_side(service, client):
    async with aclosing(client.stream("count", Number(10**9), Number)) as items:
        assert (await anext(items)).value == 0
    await asyncio.wait_for(service.cancelled.wait(), 5)


async def test_bytes_go_both_ways(client):
    async with client.duplex("echo", Number(0)) as both:
        for word in (b"abc", b"def"):
            await both.send(word)
            assert await both.receive() == word.upper()


async def test_a_cancelled_call_is_cancelled_at_the_other_side(service, client):
    call = asyncio.create_task(client.call("hang", Number(0), Number))
    await service.started.wait()
    call.cancel()
    await asyncio.wait_for(service.cancelled.wait(), 5)
    assert (await client.call("double", Number(4), Number)).value == 8


async def test_no_answer_in_time_says_which_call(client):
    with pytest.raises(ConnectionBrokenError, match="did not answer hang"):
        await client.call("hang", Number(0), Number, timeout_s=0.05)


async def test_an_unknown_method_and_a_malformed_request_are_told(client):
    with pytest.raises(RemoteError, match="no method 'nothing'"):
        await client.call("nothing", Number(0), Number)

    class Text(Struct):
        value: str

    with pytest.raises(RemoteError, match="cannot be read"):
        await client.call("double", Text("x"), Number)


async def test_a_method_says_whom_it_allows(service, site_a, client):
    assert (await client.call("nodes_only", Number(1), Number)).value == 2
    async with Client.known(service.server.address, site_a.credentials(), expect=None) as other:
        with pytest.raises(RemoteError) as caught:
            await other.call("nodes_only", Number(1), Number)
    assert caught.value.code == "not_allowed"


async def test_nobody_may_call_only_what_is_open(service, site_a):
    verify = site_a.credentials().verify
    async with Client.anonymous(service.server.address, "site-a", site_a.authority.root_pem, verify) as nobody:
        assert (await nobody.call("open", Number(1), Number)).value == 2
        with pytest.raises(RemoteError) as caught:
            await nobody.call("double", Number(1), Number)
    assert caught.value.code == "not_allowed"


async def test_a_stranger_is_refused(service, site_b):
    stranger = site_b.credentials("node", "n1")
    with pytest.raises(IdentityError):
        async with Client.known(service.server.address, stranger, expect=None) as client:
            await client.call("double", Number(1), Number)


async def test_a_trusted_peer_cluster_is_let_in(service, site_a, site_b):
    service.server._credentials.trust("site-b", site_b.authority.root_pem)
    peer = site_b.credentials(site_a=site_a.authority.root_pem)
    async with Client.known(service.server.address, peer, expect=SpiffeId("site-a", "controller")) as client:
        assert (await client.call("double", Number(1), Number)).value == 2


async def test_a_cluster_cannot_sign_names_of_another(site_a, site_b):
    """B's authority signs a name of A: A trusts B's root, and must refuse it all the same."""
    forger = site_b.authority
    forger.trust_domain = "site-a"
    forged = site_b
    forged.name = "site-a"
    credentials = forged.credentials("controller")
    victim = site_a.credentials(site_b=site_b.authority.root_pem)
    leaf = credentials._leaf()
    from cryptography.hazmat.primitives.serialization import Encoding

    with pytest.raises(IdentityError, match="not signed by the root of its own cluster"):
        victim.verify(leaf.public_bytes(Encoding.DER))


async def test_the_wrong_process_at_an_address_is_refused(service, site_a):
    node = SpiffeId("site-a", "node", "n9")
    with pytest.raises(IdentityError, match=r"not spiffe:..site-a.node.n9"):
        async with Client.known(service.server.address, site_a.credentials(), expect=node) as client:
            await client.call("double", Number(1), Number)


async def test_an_expired_certificate_is_told_before_anything_is_sent(service, site_a):
    expired = site_a.credentials("node", "n1", life_s=-1)
    with pytest.raises(CertificateExpiredError, match="expired"):
        async with Client.known(service.server.address, expired, expect=None) as client:
            await client.call("double", Number(1), Number)


async def test_nobody_listening_is_told_with_the_address(site_a):
    with pytest.raises(ConnectionBrokenError, match=r"127\.0\.0\.1:1 cannot be reached"):
        async with Client.known("127.0.0.1:1", site_a.credentials(), expect=None) as client:
            await client.call("double", Number(1), Number)


async def test_a_client_connects_anew_after_the_server_went(service, site_a, client):
    assert (await client.call("double", Number(1), Number)).value == 2
    host, port = service.server.address.split(":")
    await service.server.close()
    with pytest.raises(ConnectionBrokenError):
        await client.call("double", Number(1), Number)
    again = Server(site_a.credentials())
    again.method("double", Number, service.double, allow=lambda _: True)
    await again.start(host, int(port))
    try:
        assert (await client.call("double", Number(3), Number)).value == 6
    finally:
        await again.close()


async def test_a_server_that_closes_ends_those_too_that_have_not_said_who_they_are(service, client):
    host, port = service.server.address.split(":")
    silent, greeting = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    greeting[1].write(b"\x16\x03\x01")  # as a handshake begins
    await client.call("double", Number(1), Number)  # which came after them
    await service.server.close()
    for reader, writer in (silent, greeting):
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
