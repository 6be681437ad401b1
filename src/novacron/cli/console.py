"""A VM's serial console in this terminal, over a WebSocket.

What is typed goes out as it is (the terminal is raw), what the guest says comes in as it is. Ctrl-] leaves. Input may
be piped: when it has ended, the console stays until the guest falls silent.
"""

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect as open_socket

from novacron.cli.client import API, remote_error
from novacron.cli.contexts import Context
from novacron.cli.errors import ApiUnreachableError, ConsoleClosedError, ContextRefusedError
from novacron.cli.kinds import VMS, at
from novacron.core.errors import ConflictError, NotFoundError, NovaCronError, RemoteError

LEAVE: Final = b"\x1d"  # Ctrl-]
READ_BYTES: Final = 4096
OPEN_TIMEOUT_S: Final = 10.0
CLOSE_CODE_BASE: Final = 4000  # 4404 says what HTTP's 404 says
_UNAUTHORIZED: Final = 401
_ENDED_WELL: Final = frozenset({1000, 1001, 1005})


def connect(context: Context, vm: str, *, linger_s: float) -> None:
    """Join stdin and stdout with the console until one of them ends.

    Raises what the API refuses with, and ConsoleClosedError when the other side ends it by an error.
    """
    with _open(context, vm) as socket:
        if sys.stdin.isatty():
            click.echo(f"Connected with the console of {vm}. Ctrl-] leaves.", err=True)
        with _raw_terminal():
            Console(socket, linger_s).run()
        if sys.stdin.isatty():
            click.echo(err=True)


class Console:
    """Bytes both ways. A thread reads the socket; a pipe tells the one that reads stdin."""

    def __init__(self, socket: ClientConnection, linger_s: float) -> None:
        self._socket = socket
        self._linger_s = linger_s
        self._heard = time.monotonic()
        self._wake_read, self._wake_write = os.pipe()
        self._problem: NovaCronError | None = None

    def run(self) -> None:
        """Until one side ends; raises what the other side ended with."""
        receiving = threading.Thread(target=self._receive, daemon=True)
        receiving.start()
        left = False
        try:
            left = self._send()
        finally:
            self._socket.close()
            receiving.join()
            os.close(self._wake_read)
            os.close(self._wake_write)
        if self._problem is not None and not left:
            raise self._problem

    def _send(self) -> bool:
        """Until stdin or the connection ends; whether it was this side that wanted the end."""
        stdin = sys.stdin.fileno()
        while True:
            ready, _, _ = select.select([stdin, self._wake_read], [], [])
            if self._wake_read in ready:
                return False
            data = os.read(stdin, READ_BYTES)
            if not data:
                return self._linger()
            typed, leave, _ = data.partition(LEAVE) if sys.stdin.isatty() else (data, b"", b"")
            if typed:
                try:
                    self._socket.send(typed)
                except ConnectionClosed:
                    return False  # the receiving thread knows why
            if leave:
                return True

    def _linger(self) -> bool:
        """Piped input has ended; what the guest answers has not."""
        self._heard = time.monotonic()
        while (left := self._heard + self._linger_s - time.monotonic()) > 0:
            ready, _, _ = select.select([self._wake_read], [], [], left)
            if ready:
                return False
        return True

    def _receive(self) -> None:
        try:
            for data in self._socket:
                self._heard = time.monotonic()
                _write(data if isinstance(data, bytes) else data.encode())
        except ConnectionClosed as error:
            self._problem = _problem(error)
        except OSError as error:  # our own stdout
            self._problem = ConsoleClosedError(f"the terminal takes nothing any more: {error.strerror}")
        finally:
            os.write(self._wake_write, b"\0")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def _problem(error: ConnectionClosed) -> NovaCronError | None:
    """What a close frame says."""
    if error.rcvd is None:
        return ConsoleClosedError("the connection was cut", next_command="novacron doctor")
    if error.rcvd.code in _ENDED_WELL:
        return None
    kinds = {kind.http_status: kind for kind in (NotFoundError, ConflictError)}
    kind = kinds.get(error.rcvd.code - CLOSE_CODE_BASE, ConsoleClosedError)
    return kind(error.rcvd.reason or "the console was closed", next_command="novacron vm list")


def _open(context: Context, vm: str) -> ClientConnection:
    url = f"ws{context.url.rstrip('/').removeprefix('http')}{API}{at(VMS, vm, 'console')}"
    try:
        return open_socket(
            url,
            additional_headers={"Authorization": f"Bearer {context.token}"},
            open_timeout=OPEN_TIMEOUT_S,
            compression=None,
            proxy=None,
        )
    except InvalidStatus as error:
        raise _refused(error, context) from error
    except (InvalidHandshake, OSError) as error:
        raise ApiUnreachableError(
            f"nothing answers at {context.url} (context {context.name}): {error}", next_command="novacron up"
        ) from error


def _refused(error: InvalidStatus, context: Context) -> NovaCronError:
    status = error.response.status_code
    if status == _UNAUTHORIZED:
        return ContextRefusedError(
            f"{context.url} refuses the token of context {context.name}",
            next_command=f"novacron context show {context.name}",
        )
    found = remote_error(status, bytes(error.response.body or b""), context)
    if isinstance(found, RemoteError):
        return found
    return ConsoleClosedError(f"the console cannot be opened: HTTP status {status}", next_command="novacron vm list")


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """No echo, no line editing, no signals from keys: the guest does all that."""
    if not sys.stdin.isatty():
        yield
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    try:
        tty.setraw(stdin)
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
