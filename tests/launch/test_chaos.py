"""The chaos: what it draws, what it sees, and what it says of it."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from novacron.core.ids import MigrationId, VmId
from novacron.hypervisor.qemu.folder import InstanceRecord
from novacron.hypervisor.qemu.process import Process
from novacron.launch import places
from novacron.launch.chaos import campaign, command, trial
from novacron.launch.chaos.cpu_watch import LOOK_S, never_two
from novacron.launch.chaos.draw import CUT, KILL, LATEST, SPARE, STOP, VICTIMS, Draw, draw
from novacron.launch.chaos.errors import TwoRunError
from novacron.launch.chaos.qemus import living, records_said
from novacron.launch.chaos.trial import Run, try_once
from novacron.launch.main import run
from novacron.protocol.resources import Migration, Problem
from novacron.protocol.vm import VmSpec
from support.commands import SLOW_S, started

WHOLE = {"errors": 0, "lost": 0, "doubled": 0}
GOES_ON = Problem("connection_broken", "the link went away", "novacron migrate demo --to b")
FAST = ("--link", "1Gbit/s", "--delay", "1ms")
BUSY = "open('/proc/self/comm', 'w').write('CPU 0/TCG')\nprint(flush=True)\nwhile True: pass"
IDLE = "open('/proc/self/comm', 'w').write('CPU 0/TCG')\nprint(flush=True)\ninput()"


def test_a_run_is_drawn_from_the_seed_and_its_number_alone():
    drawn = [draw(1, number) for number in range(1, 401)]
    assert draw(1, 17) == drawn[16]
    assert draw(2, 17) != drawn[16]
    assert {one.victim for one in drawn} == set(VICTIMS)
    for tenth in range(11):  # moments lie everywhere
        assert sum(tenth / 10 <= one.share / LATEST < (tenth + 1) / 10 for one in drawn) >= 20 or tenth == 10
    assert all((one.lasts_s > 0) == (one.deed in {CUT, STOP}) for one in drawn)


class Guests:
    """Sites with processes that look like QEMUs."""

    def __init__(self, directory: Path) -> None:
        self.a, self.b = (SimpleNamespace(name=name, directory=directory / name) for name in ("a", "b"))
        self._started = []

    def start(self, site, program: str) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        self._started.append(process)
        instance = str(process.pid)
        started = int(Path(f"/proc/{instance}/stat").read_text().rpartition(")")[2].split()[19])
        run_dir = site.directory / instance
        run_dir.mkdir(parents=True)
        (run_dir / "console.log").write_text('{"t":1,"records":7}\n{"t":2,"records":9,"kept":0}\n')
        spec = VmSpec("demo", 1, 1 << 27)
        record = InstanceRecord(instance, str(run_dir), "", spec, {}, pid=process.pid, started=started)
        path = site.directory / "node" / "vms" / "vm-1" / "instances" / f"{instance}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(record))

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def guests(tmp_path):
    guests = Guests(tmp_path)
    yield guests
    guests.end()


async def test_two_virtual_cpus_at_work_are_seen(guests):
    guests.start(guests.a, BUSY)
    guests.start(guests.b, BUSY)
    with pytest.raises(TwoRunError):
        async with never_two(guests.a, guests.b):
            await asyncio.sleep(3 * LOOK_S)


async def test_one_at_work_beside_one_that_stands_still_is_well(guests):
    guests.start(guests.a, BUSY)
    guests.start(guests.b, IDLE)
    async with never_two(guests.a, guests.b):
        await asyncio.sleep(3 * LOOK_S)


async def test_what_a_guest_has_said_is_read_while_its_qemu_lives(guests):
    guests.start(guests.a, IDLE)
    guests.start(guests.a, IDLE)
    assert [type(qemu.process) for qemu in living(guests.a)] == [Process, Process]
    assert (records_said(guests.a), records_said(guests.b)) == (9, 0)
    guests.end()
    assert (living(guests.a), records_said(guests.a)) == ([], 0)


async def test_a_run_that_is_stuck_ends_as_a_violation(guests, monkeypatch):
    monkeypatch.setattr(trial, "LIMIT_S", 0.05)
    never = asyncio.Event()
    sites = SimpleNamespace(home=guests.a, away=guests.b, until_running=never.wait)
    assert "not over" in (await try_once(sites, Draw(1, "link", CUT, 0.5, 1.0), 1.0)).violation


class Told:
    """Sites that tell what a test wants them to tell."""

    def __init__(self, *, arrives=True, outcome="succeeded", problem=None, kept=None, found=WHOLE):
        self.a, self.b = (SimpleNamespace(name=name, client=SimpleNamespace(get=self._get)) for name in ("a", "b"))
        self.home, self.away = self.a, self.b
        self._arrives, self._kept, self._found = arrives, kept, found
        self._move = Migration(
            MigrationId("m"), VmId("v"), "demo", "a", "b", "outgoing", "done", outcome=outcome, problem=problem
        )

    def _get(self, _kind, _id):
        return SimpleNamespace(value=self._move)

    async def until_running(self):
        return {"records": 10, "kept": 0}

    async def migrate(self):
        return "m"

    async def ended(self, _id):
        moves, self._move = [self._move], msgspec.structs.replace(self._move, outcome="succeeded", problem=None)
        if self._arrives:
            self.home, self.away = self.b, self.a
        self._arrives = True
        return moves

    async def bring_up(self):
        return self._kept

    async def verdict(self, _tag):
        return self._found


@pytest.mark.parametrize(
    ("victim", "deed", "told", "violation"),
    [
        ("link", CUT, {}, ""),
        ("link", CUT, {"arrives": False, "outcome": "failed", "problem": GOES_ON}, ""),
        ("source-qemu", KILL, {"arrives": False, "outcome": "failed", "problem": GOES_ON, "kept": 10}, ""),
        (
            "source-qemu",
            KILL,
            {"arrives": False, "outcome": "failed", "problem": GOES_ON, "kept": 9},
            "records were lost",
        ),
        ("source-qemu", KILL, {"kept": 10}, "nobody had killed its QEMU"),
        ("target-node", KILL, {"kept": 10}, "nobody had killed its QEMU"),
        ("link", CUT, {"found": {**WHOLE, "doubled": 1}}, "'doubled': 1"),
        ("link", CUT, {"arrives": False}, "it has arrived, and is at a"),
        ("link", CUT, {"arrives": False, "outcome": "failed", "problem": Problem("x", "broke")}, "next command"),
        ("link", CUT, {"outcome": "rolled_back"}, "'rolled_back'"),
        ("nothing", SPARE, {"arrives": False, "outcome": "failed", "problem": GOES_ON}, "nothing was struck"),
    ],
)
async def test_what_a_run_is_judged_by(monkeypatch, victim, deed, told, violation):
    sites = Told(**told)

    async def struck(_sites, drawn):
        return drawn.deed != SPARE

    monkeypatch.setattr(trial, "strike", struck)
    monkeypatch.setattr(trial, "records_said", lambda _: 10)
    monkeypatch.setattr(trial, "living", lambda site: [site] if site is sites.home else [])
    monkeypatch.setattr(trial, "never_two", lambda *_: nullcontext())
    run = await try_once(sites, Draw(1, victim, deed, 0.0, 0.0), 1.0)
    assert (violation in run.violation) if violation else (run.violation, run.resumed) == ("", run.outcome == "failed")


def test_a_run_that_ends_wrong_leaves_its_logs_and_the_next_begins_on_new_sites(tmp_path, monkeypatch, capsys):
    opened = []

    class FakeSites:
        @staticmethod
        @asynccontextmanager
        async def running(_link, directory, _guest):
            opened.append(directory)
            site = SimpleNamespace(name="a", directory=directory / "a")
            (site.directory / "node").mkdir(parents=True)
            (site.directory / "node.log").write_text("what the node said")
            yield SimpleNamespace(home=site, away=SimpleNamespace(name="b", directory=directory / "b"))

    async def tried(_sites, drawn, _usual_s):
        violation = "two ran" if drawn.number == 2 else ""
        return Run(drawn.number, drawn.victim, drawn.deed, 0.5, 0.0, outcome="succeeded", violation=violation)

    monkeypatch.setattr(campaign, "Sites", FakeSites)
    monkeypatch.setattr(campaign, "try_once", tried)
    monkeypatch.setattr(command, "build", lambda _: None)
    monkeypatch.setattr(places, "run_dir", lambda _: tmp_path / "nowhere")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    assert run(["bench", "chaos", "--runs", "3", "--seed", "5", "--output", "json"]) == 8
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert (told["runs"], told["seed"], [one["number"] for one in told["violations"]]) == (3, 5, [2])
    assert len(opened) == 2
    kept = Path(told["folder"])
    assert (kept / "run-2" / "a" / "node.log").read_text() == "what the node said"
    assert json.loads((kept / "run-2" / "run.json").read_text())["violation"] == "two ran"
    assert [path.name for path in kept.iterdir()] == ["run-2"]
    assert "novacron bench chaos --seed 5 --first 2 --runs 1" in printed.err


async def struck(*words: str, within_s: float = SLOW_S) -> dict:
    """What the command says of its runs, none of which ended wrong; what it tells on the way is the test's log."""
    async with started("bench", "chaos", *FAST, *words, "--output", "json", stderr=None) as bench:
        async with asyncio.timeout(within_s):
            out = await bench.stdout.read()
        assert await bench.wait() == 0, out.decode()
    told = json.loads(out)
    assert (told["errors"], told["lost"], told["doubled"], told["violations"], told["folder"]) == (0, 0, 0, [], "")
    assert told["resumed"] == sum(one["failed"] + one["cancelled"] for one in told["tallies"])
    return told


@pytest.mark.soak
@pytest.mark.root
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("qemu-1")
async def test_twenty_strikes_at_random_moments():
    told = await struck("--seed", "1", "--runs", "20", within_s=800)
    assert sum(one["runs"] for one in told["tallies"]) == 20
