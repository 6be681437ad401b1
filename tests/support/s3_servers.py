"""Real S3 servers: SeaweedFS, which keeps conditions, and ``rclone serve s3``, which does not."""

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from novacron.core.errors import NovaCronError
from novacron.repository.s3 import S3Store
from novacron.repository.s3_access import S3Access
from support.clusters import bind

KEY_ID, SECRET, BUCKET = "AKTEST", "a-secret-of-the-tests", "backups"


@dataclass(frozen=True)
class S3Server:
    """One that runs."""

    access: S3Access

    def store(self, prefix: str) -> S3Store:
        """Nothing but S3."""
        return S3Store(BUCKET, prefix, self.access)


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """The good one."""
    with _folder() as folder:
        config = folder / "s3.json"
        keys = {"accessKey": KEY_ID, "secretKey": SECRET}
        rights = ["Admin", "Read", "Write", "List"]
        config.write_text(json.dumps({"identities": [{"name": "test", "credentials": [keys], "actions": rights}]}))
        names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        with _running(
            ports["s3.port"],
            [
                *("weed", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
                *(f"-{name}={port}" for name, port in ports.items()),
                *(f"-s3.config={config}", f"-s3.localSocket={folder / 'socket'}"),
                *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=50"),
            ],
        ) as server:
            yield server


@contextmanager
def rclone() -> Iterator[S3Server]:
    """The weak one: it ignores conditions, and answers a read of a part as none should."""
    with _folder() as folder:
        (folder / BUCKET).mkdir()
        (port,) = free_ports(1)
        options = ("--config=", f"--addr=127.0.0.1:{port}", f"--auth-key={KEY_ID},{SECRET}")
        with _running(port, ["rclone", "serve", "s3", *options, str(folder)]) as server:
            yield server


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        return [stack.enter_context(bind()).getsockname()[1] for _ in range(count)]


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="nc-s3-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(port: int, command: Sequence[str]) -> Iterator[S3Server]:
    """From its first good answer on; it ends with this process, however that ends."""
    access = S3Access(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint=f"http://127.0.0.1:{port}", timeout_s=20)
    server = S3Server(access)
    silent = partial(subprocess.Popen, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with silent(["setpriv", "--pdeathsig", "KILL", "--", *command]) as process:
        try:
            _wait(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGKILL)


def _wait(server: S3Server, process: subprocess.Popen) -> None:
    store, deadline = server.store("ready"), time.monotonic() + 60
    while True:
        try:
            store.put("ready", b"ready")
        except NovaCronError:
            assert process.poll() is None, "the S3 server has ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)
        else:
            return
