"""A real controller behind the real API, in a thread; commands run as a user runs them, against it."""

import asyncio
import os
import re
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from novacron.api.app import create_app
from novacron.api.serving import serving
from novacron.cli.contexts import write_context
from novacron.control.controller import Controller
from novacron.core.clock import SystemClock
from novacron.launch.main import run
from support.clusters import bind

LONGEST_S = 30


class Served:
    """A cluster without nodes. ``requests`` has the method and path of whatever was asked of it."""

    def __init__(self, directory):
        self.requests: list[tuple[str, str]] = []
        self._directory = directory
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stack = AsyncExitStack()

    def start(self):
        self._thread.start()
        self.call(self._start())

    def stop(self):
        self.call(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine):
        """The result of a coroutine that runs beside the cluster."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LONGEST_S)

    def write(self, change):
        """Change the cluster's state as a controller does."""
        return self.call(self.controller.database.write(change))

    def read(self, look):
        return self.call(self.controller.database.read(look))

    async def _start(self):
        running = Controller.running(data_dir=self._directory, name="site-a", listener=bind(), clock=SystemClock())
        self.controller = await self._stack.enter_async_context(running)
        app = create_app(self.controller)
        listener = bind()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        async def recording(scope, receive, send):
            self.requests.append((scope.get("method", "WS"), scope["path"]))
            await app(scope, receive, send)

        await self._stack.enter_async_context(serving(recording, listener))


class Done:
    """How a command ended."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def next(self) -> str:
        """The next command that an error names."""
        found = re.search(r"^next: (.*)$", self.err, re.MULTILINE)
        return found[1] if found else ""

    def __repr__(self):
        return f"exit {self.code}\n{self.out}\n{self.err}"


@pytest.fixture
def config_dir(tmp_path, monkeypatch):
    """A user who has no settings and no contexts."""
    for name in ("NOVACRON_CONTEXT", "NOVACRON_OUTPUT", "NOVACRON_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "config"
    directory.mkdir()
    monkeypatch.setenv("NOVACRON_CONFIG_DIR", str(directory))
    return directory


@pytest.fixture
def novacron(config_dir, capfd, monkeypatch):
    """Run a command, with nothing to read; its exit code and what it printed."""
    assert config_dir.is_dir()

    def call(*arguments: str) -> Done:
        capfd.readouterr()
        with Path(os.devnull).open() as nothing, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", nothing)
            code = run(arguments)
        return Done(code, *capfd.readouterr())

    return call


@pytest.fixture
def served(tmp_path, config_dir):
    """A cluster that the commands' only context names."""
    cluster = Served(tmp_path / "controller")
    with capture_logs():  # the controller's log is not what a command prints
        cluster.start()
        try:
            write_context("site-a", cluster.url, cluster.controller.admin_token, directory=config_dir)
            yield cluster
        finally:
            cluster.stop()
