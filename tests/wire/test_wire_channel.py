"""A channel over several TLS connections: in order, bounded, and broken as a whole; pacing; credentials on disk."""

import asyncio
import ssl
import stat
from contextlib import asynccontextmanager

import msgspec
import pytest

from novacron.core.clock import ManualClock, SystemClock
from novacron.wire import channel as channels
from novacron.wire.authority import ClusterAuthority, csr_for, new_key
from novacron.wire.channel import WINDOW_FRAMES, ParallelChannel, open_channel
from novacron.wire.connection import FRAME_HELLO, Connection, Heartbeat, Hello, connect, read_hello
from novacron.wire.credentials import Credentials
from novacron.wire.errors import (
    CertificateExpiredError,
    ConnectionBrokenError,
    ConnectionClosedError,
    FrameError,
    IdentityError,
)
from novacron.wire.estimate import RoundTrip
from novacron.wire.frames import MAX_BODY_BYTES, frame_header, read_frame
from novacron.wire.identity import SpiffeId
from novacron.wire.pacing import TokenBucket
from novacron.wire.probe import answer_probe, probe
from novacron.wire.server import Server

NEWER = msgspec.msgpack.encode(Hello(99, "rpc"))
TARGET = SpiffeId("site-a", "node", "target")


@asynccontextmanager
async def receiving(site, handler):
    """A node that gives its channels to ``handler``; what the handler ended with is raised at the end."""
    ended: list[asyncio.Future] = []

    async def receive(_peer, _session, channel: ParallelChannel) -> None:
        future = asyncio.get_running_loop().create_future()
        ended.append(future)
        try:
            future.set_result(await handler(channel))
        except Exception as error:
            future.set_exception(error)
            future.exception()  # looked at by the test, or not
            raise

    server = Server(site.credentials("node", "target"))
    server.channels(receive)
    await server.start("127.0.0.1", 0)
    try:
        yield server.address, ended
    finally:
        await server.close()


async def call(site, address: str, *, streams: int = 3, rate: float | None = None) -> ParallelChannel:
    return await open_channel(
        address, site.credentials("node", "source"), TARGET, "session-1", streams=streams, rate_bytes_s=rate
    )


async def test_frames_of_all_sizes_arrive_in_their_order_over_several_connections(site_a):
    sent = [(number % 200, bytes([number % 256]) * (number * 97 % 40_000)) for number in range(400)]

    async def take_all(channel):
        found = [await channel.receive() for _ in sent]
        return [(kind, bytes(body)) for kind, body in found]

    async with receiving(site_a, take_all) as (address, ended):
        async with await call(site_a, address) as channel:
            assert channel.peer == TARGET
            for kind, body in sent:
                await channel.send(kind, body)
            found = await ended[0]
        assert found == sent
        assert channel.wire_bytes_sent > sum(len(body) for _, body in sent)
        assert channel.rtt_ms > 0


async def test_it_goes_both_ways_and_an_orderly_end_is_told(site_a):
    async def echo_three(channel):
        for _ in range(3):
            kind, body = await channel.receive()
            await channel.send(kind + 1, bytes(body).upper())

    async with receiving(site_a, echo_three) as (address, _), await call(site_a, address) as channel:
        for word in (b"one", b"two", b"three"):
            await channel.send(1, word)
        assert [bytes((await channel.receive())[1]) for _ in range(3)] == [b"ONE", b"TWO", b"THREE"]
        with pytest.raises(ConnectionBrokenError, match="has closed the channel"):
            await channel.receive()


async def test_one_connection_that_breaks_breaks_the_channel_at_both_ends(site_a):
    async def wait_for_more(channel):
        while True:
            await channel.receive()

    async with receiving(site_a, wait_for_more) as (address, ended):
        channel = await call(site_a, address)
        await channel.__aenter__()
        await channel.send(1, b"first")
        channel._connections[1].abort()
        with pytest.raises(ConnectionBrokenError):
            await channel.receive()
        await channel.__aexit__(ConnectionBrokenError, ConnectionBrokenError(""), None)
        with pytest.raises(ConnectionBrokenError):
            await ended[0]


async def test_a_receiver_that_does_not_take_holds_the_sender_back(site_a):
    go_on, taken = asyncio.Event(), []

    async def take_late(channel):
        await go_on.wait()
        taken.extend([(await channel.receive())[0] for _ in range(1000)])

    async with receiving(site_a, take_late) as (address, ended), await call(site_a, address, streams=2) as channel:
        sent = 0

        async def send_all():
            nonlocal sent
            for _ in range(1000):
                await channel.send(7, bytes(64 * 1024))
                sent += 1

        sending = asyncio.create_task(send_all())
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 1000  # it stands: kernel buffers and the window are full
        assert sent < WINDOW_FRAMES * 4
        go_on.set()
        await sending
        await ended[0]
    assert len(taken) == 1000


async def test_a_silent_other_side_is_noticed(site_a, monkeypatch):
    monkeypatch.setattr(channels, "HEARTBEAT", Heartbeat(every_s=0.05, dead_after_s=0.2))
    beat = Connection._beat

    async def never_beats(self):
        await asyncio.Event().wait() if self.peer and self.peer.name == "source" else await beat(self)

    async def silent_read(self, on_frame):
        await asyncio.Event().wait() if self.peer and self.peer.name == "source" else await read(self, on_frame)

    read = Connection._read
    monkeypatch.setattr(Connection, "_beat", never_beats)
    monkeypatch.setattr(Connection, "_read", silent_read)

    async def hold(channel):
        await channel.receive()

    async with receiving(site_a, hold) as (address, _):
        with pytest.raises(ConnectionBrokenError, match="has been silent"):
            async with await call(site_a, address, streams=1) as channel:
                await channel.receive()


async def test_a_cancelled_send_breaks_the_channel_because_its_order_has_a_hole(site_a):
    async def hold(_channel):
        await asyncio.Event().wait()

    async with receiving(site_a, hold) as (address, _):
        channel = await call(site_a, address, streams=1)
        await channel.__aenter__()
        sending = asyncio.create_task(channel.send(1, b"x"))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert sending.cancelled()
        with pytest.raises(ConnectionClosedError, match="cancelled"):
            await channel.send(1, b"y")
        await channel.__aexit__(ValueError, ValueError(), None)


async def test_a_paced_channel_takes_the_time_that_its_rate_allows():
    clock = ManualClock()
    bucket, began, passed = TokenBucket(1_000_000, clock), clock.monotonic(), 0

    async def send():
        nonlocal passed
        while True:
            await bucket.take(10_000)
            passed += 10_000

    sending = asyncio.create_task(send())
    await asyncio.sleep(0)
    await clock.advance(2.0)
    assert passed == pytest.approx(2_000_000, rel=0.02)
    bucket.rate_bytes_s = 500_000
    before = passed
    await clock.advance(2.0)
    assert passed - before == pytest.approx(1_000_000, rel=0.03)
    assert clock.monotonic() - began == 4.0
    bucket.rate_bytes_s = None
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    async with asyncio.timeout(1):
        await bucket.take(1 << 40)


def test_round_trips_are_smoothed_and_the_smallest_is_kept():
    seen = RoundTrip()
    for sample in (40.0, 80.0, 40.0):
        seen.add(sample)
    assert seen.minimum_ms == 40.0
    assert 40.0 < seen.smoothed_ms < 50.0


def test_credentials_come_back_from_their_files_which_only_their_owner_reads(site_a, site_b, tmp_path):
    credentials = site_a.credentials("node", "n1", site_b=site_b.authority.root_pem)
    credentials.save(tmp_path)
    loaded = Credentials.load(tmp_path, SystemClock())
    assert loaded.identity == credentials.identity
    assert loaded.trusted == credentials.trusted
    assert stat.S_IMODE((tmp_path / "process.key").stat().st_mode) == 0o600
    loaded.distrust("site-b")
    loaded.save(tmp_path)
    assert set(Credentials.load(tmp_path, SystemClock()).trusted) == {"site-a"}


def test_a_renewed_certificate_is_the_one_that_counts(site_a):
    credentials = site_a.credentials(life_s=10)
    before, revision = credentials.expires_at, credentials.revision
    credentials.renew(site_a.authority.issue(csr_for(credentials.key), credentials.identity, life_s=1000))
    assert credentials.expires_at > before
    assert credentials.revision == revision + 1


async def test_an_expired_certificate_is_refused_by_either_side(site_a):
    async def nothing(_channel):
        return None

    old = site_a.credentials("node", "target", life_s=-120)
    server = Server(old)
    server.channels(nothing)
    await server.start("127.0.0.1", 0)
    try:
        with pytest.raises(CertificateExpiredError):
            await call(site_a, server.address)
    finally:
        await server.close()
    with pytest.raises(CertificateExpiredError, match="has expired") as caught:
        old.client_context()
    assert "novacron node invite" in caught.value.next_command
    shown = certificate_der(site_a.credentials("node", "n", life_s=-120))
    with pytest.raises(IdentityError, match="has expired"):
        site_a.credentials().verify(shown)


def certificate_der(credentials: Credentials) -> bytes:

    return ssl.PEM_cert_to_DER_cert(credentials._certificate_pem)


def test_a_root_vouches_only_for_its_own_cluster(site_a, site_b):
    verifier = site_a.credentials(site_b=site_b.authority.root_pem)
    assert verifier.verify(certificate_der(site_b.credentials("node", "n"))) == SpiffeId("site-b", "node", "n")
    stranger = certificate_der(site_b.credentials("node", "m"))
    with pytest.raises(IdentityError, match="not trusted here"):
        site_a.credentials().verify(stranger)
    with pytest.raises(IdentityError, match="does not sign names"):
        site_b.authority.issue(csr_for(new_key()), SpiffeId("site-a", "controller"))
    site_b.authority.trust_domain = "site-a"  # a cluster that lies about its name
    forged = site_b.authority.issue(csr_for(new_key()), SpiffeId("site-a", "controller"))
    with pytest.raises(IdentityError, match="not signed by the root of its own cluster"):
        verifier.verify(ssl.PEM_cert_to_DER_cert(forged))


def test_an_authority_is_loaded_again_and_signs_no_request_that_cannot_be_read(site_a, tmp_path):
    again = ClusterAuthority.load(tmp_path / "site-a", "site-a", SystemClock())
    assert again.root_pem == site_a.authority.root_pem
    with pytest.raises(IdentityError, match="cannot be read"):
        again.issue("garbage", SpiffeId("site-a", "node", "n"))


async def read(data: bytes, **more):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_frame(reader, **more)


async def test_a_frame_that_is_too_long_is_refused_before_its_body():
    assert await read(frame_header(9, 3) + b"abc") == (9, b"abc")
    with pytest.raises(FrameError, match="at most"):
        await read(b"\x10\xff\xff\xff\xff")
    with pytest.raises(FrameError, match="cannot be sent"):
        frame_header(1, MAX_BODY_BYTES + 1)
    with pytest.raises(ConnectionBrokenError):
        await read(b"\x10\0\0\0\5abc")


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (frame_header(2, 0), "does not begin with its hello"),
        (frame_header(FRAME_HELLO, 3) + b"\xc1\xc1\xc1", "cannot be read"),
        (frame_header(FRAME_HELLO, len(NEWER)) + NEWER, "speaks version 99"),
    ],
)
async def test_a_connection_that_begins_wrongly_is_refused(frame, said):
    reader = asyncio.StreamReader()
    reader.feed_data(frame)
    with pytest.raises(FrameError, match=said):
        await read_hello(reader)


@asynccontextmanager
async def in_between(address, allow):
    """A way to ``address``: ``allow`` waits for, or refuses, a connection; an event tells that one let in ended."""
    host, _, port = address.rpartition(":")
    ended: list[asyncio.Event] = []

    async def pump(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def serve(reader, writer):
        if not await allow():
            writer.close()
            return
        ended.append(asyncio.Event())
        end = ended[-1]
        there, away = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, away), pump(there, writer), return_exceptions=True)
        end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", ended


async def test_connections_come_about_all_at_once(site_a):
    """One after the other they would take a few round trips each: none gets through before all have come."""
    together = asyncio.Barrier(3)

    async def wait() -> bool:
        await together.wait()
        return True

    async def take(channel):
        return await channel.receive()

    async with receiving(site_a, take) as (address, ended), in_between(address, wait) as (between, _):
        async with asyncio.timeout(10), await call(site_a, between) as channel:
            await channel.send(7, b"together")
        assert await ended[0] == (7, b"together")


async def test_when_one_connection_does_not_come_about_none_is_left(site_a):
    came = iter((True, True, False))

    async def two_of_three() -> bool:
        return next(came)

    async def nobody(_channel):
        raise AssertionError

    async with receiving(site_a, nobody) as (address, served), in_between(address, two_of_three) as (between, ended):
        with pytest.raises(ConnectionBrokenError):
            await call(site_a, between)
        async with asyncio.timeout(10):
            for one in ended:
                await one.wait()
        assert served == []


async def test_a_plain_tcp_server_is_no_member_of_any_cluster(site_a):
    async def answer(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    credentials = site_a.credentials()
    async with server:
        with pytest.raises(ConnectionBrokenError):
            await connect(
                address,
                credentials.client_context(),
                credentials.verify,
                Hello(1, "rpc"),
                expect=None,
                heartbeat=Heartbeat(),
            )


async def test_a_probe_tells_the_rate_of_the_link(site_a):
    async with receiving(site_a, answer_probe) as (address, _):
        async with await call(site_a, address, rate=2_000_000) as channel:
            assert 1_500_000 < await probe(channel) < 2_500_000
        async with await call(site_a, address, streams=1) as channel:
            assert await probe(channel) > 2_500_000


async def test_a_probe_that_is_not_answered_as_one_says_so(site_a):
    async def nonsense(channel):
        await channel.receive()
        await channel.send(3, b"nonsense")
        await channel.receive()

    async with receiving(site_a, nonsense) as (address, _), await call(site_a, address) as channel:
        with pytest.raises(FrameError, match="word on the link"):
            await probe(channel)
