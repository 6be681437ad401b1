"""How a command says that it failed: exit code, cause, code, next command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from novacron.cli.contexts import write_context
from novacron.cli.lazy import Lazy
from novacron.core.errors import ConflictError
from novacron.launch.commands import root

PROGRAM = [str(Path(sys.executable).parent / "novacron")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("vm", "lst"), "novacron vm --help"),
        (("migrate", "demo"), "novacron migrate --help"),
        (("vm", "create", "x", "--memory", "1XB"), "novacron vm create --help"),
        (("nothing",), "novacron --help"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_help(novacron, arguments, named):
    done = novacron(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert "\ncode: usage\n" in done.err
    assert done.next == named


def test_a_misspelt_command_is_answered_with_the_one_that_is_meant(novacron):
    assert "Did you mean 'list'" in novacron("vm", "lst").err


@pytest.mark.parametrize("form", [("--output", "json"), ("--output=json",), ("-o", "ndjson")])
def test_wrong_usage_is_json_for_programs(novacron, form):
    done = novacron("migrate", "demo", *form)
    assert done.code == 2
    told = json.loads(done.err)
    assert told["code"] == "usage"
    assert told["exit_code"] == 2
    assert told["next_command"] == "novacron migrate --help"


def test_without_a_cluster_the_way_to_one_is_named(novacron):
    done = novacron("vm", "list")
    assert done.code == 3
    assert done.next == "novacron up"


def test_nothing_at_the_address_exits_6_and_names_it(novacron):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    write_context("gone", f"http://127.0.0.1:{port}", "t")
    done = novacron("vm", "list")
    assert done.code == 6
    assert f"127.0.0.1:{port}" in done.err
    assert done.next == "novacron up"


def test_another_server_at_the_address_is_told_from_ours(novacron, tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = server.stdout.readline().split("port ")[1].split()[0]
        write_context("web", f"http://127.0.0.1:{port}", "t")
        done = novacron("vm", "list")
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    assert done.code == 1
    assert "is not NovaCron" in done.err


def test_a_wrong_token_exits_4_and_names_the_context(novacron, served):
    write_context("site-a", served.url, "wrong")
    done = novacron("vm", "list")
    assert done.code == 4
    assert "context site-a" in done.err
    assert done.next == "novacron context show site-a"


@pytest.mark.usefixtures("served")
def test_what_does_not_exist_exits_3_with_the_clusters_own_words(novacron):
    done = novacron("vm", "show", "no-such-vm")
    assert done.code == 3
    assert "there is no VM 'no-such-vm'" in done.err
    assert done.next == "novacron vm list"


def test_a_bad_setting_is_refused_by_name(novacron, config_dir):
    (config_dir / "novacron.toml").write_text("[client]\ncontxt = 'x'\n")
    done = novacron("vm", "list")
    assert done.code == 2
    assert "client.context" in done.err


@pytest.fixture
def failing():
    """Commands that fail in ways that no other command does on purpose."""

    @click.command("group-fails")
    def group_fails():
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [ConflictError("taken", next_command="wait")])])

    @click.command("fault")
    def fault():
        raise ZeroDivisionError("by zero")

    @click.command("interrupted")
    def interrupted():
        raise KeyboardInterrupt

    module = sys.modules[__name__]
    for name, made in (("group-fails", group_fails), ("fault", fault), ("interrupted", interrupted)):
        setattr(module, name, made)
        root.lazy[name] = Lazy(f"{__name__}:{name}", "")
    yield
    for name in ("group-fails", "fault", "interrupted"):
        del root.lazy[name]


@pytest.mark.usefixtures("failing")
def test_an_error_within_a_task_group_keeps_its_code(novacron):
    done = novacron("group-fails")
    assert (done.code, done.next) == (5, "wait")


@pytest.mark.usefixtures("failing")
def test_a_fault_of_ours_exits_1_with_its_trace(novacron):
    done = novacron("fault")
    assert done.code == 1
    assert "code: internal" in done.err
    assert "Traceback" in done.err


@pytest.mark.usefixtures("failing")
def test_an_interrupt_exits_130(novacron):
    assert novacron("interrupted").code == 130


@pytest.mark.usefixtures("config_dir")
def test_a_broken_pipe_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run([*PROGRAM, "config", "explain"], stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""


@pytest.fixture
def heeds_ctrl_c():
    """Programs that are started heed SIGINT, also when the tests run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_a_watch_with_130(served):
    with subprocess.Popen([*PROGRAM, "event", "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        try:
            while ("GET", "/api/v1/events") not in served.requests:
                assert watching.poll() is None
                time.sleep(0.05)  # a process of its own: it can only be asked
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=20)
        finally:
            watching.kill()
    assert watching.returncode == 130
    assert b"Traceback" not in err
