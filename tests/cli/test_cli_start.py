"""What the command imports before it knows what it has to do."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("litestar", "uvicorn", "cryptography", "rich", "sqlalchemy", "httpx", "websockets", "novacron.control")
MOST_MODULES = 180
PROBE = """
import json, sys
sys.argv = ["novacron", *sys.argv[1:]]
from novacron.launch.main import main
try:
    main()
except SystemExit as end:
    json.dump({"code": end.code, "modules": sorted(sys.modules)}, sys.stderr)
"""


def probe(directory, *arguments):
    """Exit code and the modules that a command has imported; what measures coverage would add its own."""
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment = {**unmeasured, "NOVACRON_CONFIG_DIR": str(directory)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    told = json.loads(done.stderr[done.stderr.index('{"code"') :])
    return told["code"], told["modules"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("vm", "list", "--help"),
        ("vm", "console", "--help"),
        ("migrate", "--help"),
        ("node", "list", "--help"),
        ("controller", "--help"),
        ("context", "list"),
        ("config", "explain"),
    ],
)
def test_no_server_and_no_drawing_is_imported_to_explain_a_command(tmp_path, arguments):
    code, modules = probe(tmp_path, *arguments)
    assert code == 0
    assert [name for name in modules if name.startswith(HEAVY)] == []


def test_help_is_there_at_once(tmp_path):
    """Time is what modules take, and that is steadier to count: an interpreter that does nothing has about 60."""
    _, modules = probe(tmp_path, "--help")
    assert len(modules) < MOST_MODULES
