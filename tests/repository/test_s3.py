"""S3: how it is reached, what its answers mean, and that no secret is ever told."""

import random
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress

import msgspec
import pytest
import structlog
from rich.pretty import pretty_repr

from novacron.repository import reader
from novacron.repository.address import open_store
from novacron.repository.careful import CarefulStore
from novacron.repository.check import check
from novacron.repository.chunks import MAX_CHUNK_BYTES as CHUNK_BYTES
from novacron.repository.errors import (
    AddressError,
    BucketMissingError,
    RepositoryFullError,
    StoreError,
    StoreRefusedError,
    StoreUnfitError,
)
from novacron.repository.folder import FolderStore
from novacron.repository.keys import Secret
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.prune import prune
from novacron.repository.repository import Repository
from novacron.repository.s3 import S3Store
from novacron.repository.s3_access import VARIABLES, S3Access, read_access
from novacron.repository.store import ObjectExistsError, ObjectMissingError
from novacron.repository.writer import Writer

SECRET, TOKEN = "very-secret-key", "very-secret-token"
ACCESS = S3Access(access_key_id="AK", secret_access_key=SECRET, session_token=TOKEN, endpoint="http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for names in VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def access_file(tmp_path, good_s3):
    path = tmp_path / "s3.toml"
    access = msgspec.to_builtins(good_s3.access)
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in access.items()]
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Of a site of its own: its certificate, and a server's context."""
    folder = tmp_path_factory.mktemp("authority")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    end = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    for command in (
        [*new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"],
        [*new, "-subj", "/CN=s3", "-keyout", "s3.key", "-out", "s3.pem", "-CA", "ca.pem", "-CAkey", "ca.key", *end],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "s3.pem", folder / "s3.key")
    return folder / "ca.pem", context


@contextmanager
def answering(status: str, body: str = "", *, length: int | None = None, tls: ssl.SSLContext | None = None):
    """A service that answers every request so; where it is, and how many it has had."""
    requests = []
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body) if length is None else length}\r\n"

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(ssl.SSLError), tls.wrap_socket(connection, True) if tls else connection as peer:
                requests.append(peer.recv(65536))
                peer.sendall(f"{head}\r\n{body}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://localhost:{listener.getsockname()[1]}", requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def store_at(endpoint: str, **changes) -> S3Store:
    return S3Store("bucket", "prefix", msgspec.structs.replace(ACCESS, endpoint=endpoint, **changes))


def failure_of(endpoint: str, **changes) -> StoreError | RepositoryFullError:
    """Of a put, the same as of the rest; with no secret in it, whatever the service has said."""
    store = store_at(endpoint, **changes)
    with pytest.raises((StoreError, RepositoryFullError)) as told:
        store.put("envelope", b"content")
    for other in (lambda: list(store.list("packs/")), lambda: store.get("envelope"), lambda: store.delete("envelope")):
        with pytest.raises(type(told.value)):
            other()
    chain = [told.value, told.value.__cause__] + ([] if told.value.__suppress_context__ else [told.value.__context__])
    assert not any(secret in repr(error) for error in chain for secret in (SECRET, TOKEN))
    assert told.value.next_command
    return told.value


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        ("503 Slow Down", "SlowDown", StoreError),
        ("500 Internal Server Error", "InternalError", StoreError),
        ("429 Too Many Requests", "", StoreError),
        ("400 Bad Request", "RequestTimeout", StoreError),
        ("409 Conflict", "ConditionalRequestConflict", StoreError),
        ("403 Forbidden", "SignatureDoesNotMatch", StoreRefusedError),
        ("401 Unauthorized", "", StoreRefusedError),
        ("404 Not Found", "NoSuchBucket", BucketMissingError),
        ("507 Insufficient Storage", "", RepositoryFullError),
        ("403 Forbidden", "QuotaExceeded", RepositoryFullError),
        ("501 Not Implemented", "NotImplemented", StoreUnfitError),
        ("400 Bad Request", "InvalidRequest", StoreUnfitError),
    ],
)
def test_each_answer_is_told_for_what_it_is(status, code, error):
    body = f"<Error><Code>{code}</Code><Message>{TOKEN}</Message></Error>" if code else ""
    with answering(status, body) as (endpoint, _):
        told = failure_of(endpoint)
    assert type(told) is error
    assert told.retryable == (error is StoreError)


def test_a_clock_that_is_wrong_is_named():
    with answering("403 Forbidden", "<Error><Code>RequestTimeTooSkewed</Code></Error>") as (endpoint, _):
        assert failure_of(endpoint).next_command == "timedatectl status"


def test_a_service_that_is_not_there_or_says_nothing_is_told():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "did not answer in time" in failure_of(endpoint, timeout_s=0.2).cause
    assert "cannot be reached" in failure_of(endpoint).cause


def test_a_certificate_of_a_site_is_trusted_when_its_authority_is_named(authority, tmp_path):
    file, context = authority
    with answering("404 Not Found", tls=context) as (endpoint, requests):
        told = failure_of(endpoint)
        assert ("not trusted" in told.cause, told.retryable, "ca_file" in told.next_command) == (True, False, True)
        assert requests == []
        with pytest.raises(ObjectMissingError):
            store_at(endpoint, ca_file=str(file)).get("envelope")
    (tmp_path / "none.pem").write_text("no certificate")
    for wrong in ("none.pem", "missing.pem"):
        with pytest.raises(AddressError, match=wrong):
            store_at(endpoint, ca_file=str(tmp_path / wrong))


def test_an_answer_that_is_cut_or_makes_no_sense_is_told():
    with answering("200 OK", "half of it", length=100) as (endpoint, _), pytest.raises(StoreError, match="broke off"):
        store_at(endpoint).get("envelope")
    with answering("200 OK", "no list") as (endpoint, _), pytest.raises(StoreError):
        list(store_at(endpoint).list("packs/"))
    part = "206 Partial Content\r\nContent-Range: bytes 10-29/100"
    with answering(part, "too short") as (endpoint, _), pytest.raises(StoreError, match="not all that were asked for"):
        store_at(endpoint).get("envelope", 10, 20)


def test_what_is_not_there_is_deleted_without_complaint():
    with answering("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>") as (endpoint, requests):
        store_at(endpoint).delete("envelope")
    assert requests[0].startswith(b"DELETE /bucket/prefix/envelope ")


def test_what_passes_is_tried_again_and_nothing_else():
    for status, attempts in (("503 Slow Down", 6), ("403 Forbidden", 1)):
        waits = []
        with answering(status) as (endpoint, requests), pytest.raises(StoreError):
            CarefulStore(store_at(endpoint), sleep=waits.append).get("envelope")
        assert len(requests) == attempts
        assert waits == sorted(waits)
        assert len(waits) == attempts - 1


def test_wrong_keys_are_refused_by_a_real_service(good_s3, weak_s3):
    for server in (good_s3, weak_s3):
        store = S3Store("backups", "keys", msgspec.structs.replace(server.access, secret_access_key=SECRET))
        for attempt in (lambda s=store: s.get("envelope"), lambda s=store: s.put("envelope", b"")):
            with pytest.raises(StoreRefusedError, match="403"):
                attempt()


def test_a_bucket_that_is_not_there_is_named(weak_s3):
    store = S3Store("no-such-bucket", "", weak_s3.access)
    for attempt in (
        lambda: store.get("envelope"),
        lambda: store.put("envelope", b""),
        lambda: list(store.list("packs/")),
    ):
        with pytest.raises(BucketMissingError, match="no-such-bucket"):
            attempt()


def test_two_stores_in_one_bucket_do_not_see_each_other(good_s3, tmp_path):
    one, two = good_s3.store(f"{tmp_path.name}/one"), good_s3.store(f"{tmp_path.name}/two")
    one.put("envelope", b"one")
    with pytest.raises(ObjectMissingError):
        two.get("envelope")


def test_a_store_is_opened_by_its_address(tmp_path, access_file):
    assert isinstance(open_store(str(tmp_path / "folder")), FolderStore)
    store = open_store(f"s3://backups/{tmp_path.name}/", access_file)
    store.put("envelope", b"content")
    assert open_store(f"s3://backups/{tmp_path.name}", access_file).get("envelope") == b"content"
    with pytest.raises(ObjectExistsError):
        store.put("envelope", b"other")


@pytest.mark.parametrize(
    "address", ["", "http://host/x", "s3://", "s3://UPPER/x", "s3://bucket/../x", "s3://a:b@host/x"]
)
def test_what_is_no_address_is_refused_without_repeating_it(address):
    with pytest.raises(AddressError) as told:
        open_store(address)
    assert "a:b" not in str(told.value)


def test_keys_come_from_the_environment(good_s3, tmp_path, monkeypatch):
    with pytest.raises(AddressError, match="access_key_id") as told:
        open_store("s3://backups/x")
    assert "AWS_ACCESS_KEY_ID" in told.value.next_command
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", good_s3.access.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", good_s3.access.secret_access_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", good_s3.access.endpoint)
    open_store(f"s3://backups/{tmp_path.name}").put("envelope", b"content")


def test_a_file_of_keys_stands_alone(tmp_path, monkeypatch):
    """What the environment says is not mixed into it."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere")
    path = tmp_path / "s3.toml"
    path.write_text('access_key_id = "AK"\nsecret_access_key = "SK"\nregion = "eu-north-1"\npath_style = false\n')
    path.chmod(0o600)
    access = read_access(path, {})
    assert access.url("bucket") == "https://bucket.s3.eu-north-1.amazonaws.com"
    with answering("403 Forbidden") as (endpoint, requests):
        with pytest.raises(StoreRefusedError):
            S3Store("bucket", "", msgspec.structs.replace(access, endpoint=endpoint, path_style=True)).get("envelope")
        assert TOKEN.encode() not in requests[0]


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (f'secret_access_key = "{SECRET}"', 0o600, "access_key_id"),
        (f'access_key_id = "AK"\nsecret_access_key = "{SECRET}"', 0o644, "others can read"),
        (f'access_key_id = "AK"\nsecret_access_key = "{SECRET}"\nendpont = "x"', 0o600, "endpont"),
        (f'access_key_id = "AK"\nsecret_access_key = "{SECRET}"\nendpoint = "host"', 0o600, "http"),
        (f'secret_access_key = "{SECRET}', 0o600, "not TOML"),
    ],
)
def test_a_file_that_says_it_wrong_is_told_without_its_secrets(tmp_path, content, mode, said):
    path = tmp_path / "s3.toml"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(AddressError, match=said) as told:
        read_access(path, {})
    assert SECRET not in f"{told.value!r} {told.value.next_command}"
    with pytest.raises(AddressError, match="No such file"):
        read_access(tmp_path / "none", {})


def test_no_secret_is_shown():
    with structlog.testing.capture_logs() as logs:
        structlog.get_logger().info("opened", access=ACCESS)
    shown = f"{ACCESS!r} {ACCESS} {pretty_repr(ACCESS)} {logs} {store_at('http://127.0.0.1:1')._bucket!r}"
    assert "AK" in shown
    assert SECRET not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize("server", ["good_s3", "weak_s3"])
async def test_a_repository_in_a_bucket_stores_reads_prunes_and_is_whole(request, server, tmp_path):
    store = CarefulStore(request.getfixturevalue(server).store(tmp_path.name))
    repository = Repository.create(store, Secret.file(b"k" * 32), tmp_path / "cache")
    contents = {name: random.Random(name).randbytes(20 * CHUNK_BYTES) for name in ("one", "two")}
    for name, content in contents.items():
        writer = Writer(repository)
        stream = await writer.store(Stream.empty("disk", len(content)), pieces(content))
        writer.commit(name, Manifest(1.0, repository.chunker.name, (stream,)))
    again = Repository.open(store, Secret.file(b"k" * 32), tmp_path / "again")
    again.refresh()
    assert again.traits == repository.traits
    again.delete_manifest("one")
    assert prune(again, grace_s=0, now=2_000_000_000.0).removed == 2  # of content, and of pages
    stream = again.manifest("two").stream("disk")
    assert b"".join([data async for _, data in reader.pieces(again, stream)]) == contents["two"]
    assert check(again, read=True).faults == []


async def pieces(content: bytes):
    for at in range(0, len(content), CHUNK_BYTES):
        yield at, content[at : at + CHUNK_BYTES]
