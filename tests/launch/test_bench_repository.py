"""``novacron bench repository``: figures of a disk that comes back as it was stored."""

import json
import shutil

import pytest
from click.testing import CliRunner

from novacron.launch.bench import repository as bench
from novacron.launch.bench.disk import change_disk, make_disk, make_disk_of_files
from novacron.launch.bench.repository import WrongDiskError, command
from novacron.repository.chunkers import CHUNKERS


def measured(*words: str) -> dict[tuple[str, str], dict]:
    done = CliRunner().invoke(command, [*words, "--output", "json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return {(one["who"], one["what"]): one for one in json.loads(done.stdout)["rates"]}


def test_it_measures_each_chunker_against_zstd_alone():
    found = measured("--size", "16", "--no-peers")
    assert {who for who, _ in found} == {"zstd alone", *CHUNKERS}
    for chunker in CHUNKERS:
        full, unchanged, changed = (
            found[chunker, what]["stored_bytes"] for what in ("full", "unchanged", "4 % changed")
        )
        assert 0.25 * (16 << 20) < full < 0.5 * (16 << 20)
        assert unchanged - full < 2000
        assert changed - full < 0.2 * full
        assert found[chunker, "check"]["memory_bytes"] > 0


def test_a_repository_of_many_chunks_is_stored_into_read_and_checked():
    found = measured("--size", "8", "--no-peers", "--index", "40000")
    assert all(found[chunker, what] for chunker in CHUNKERS for what in ("full", "read back", "check"))


@pytest.mark.skipif(not shutil.which("restic") and not shutil.which("borg"), reason="no peer is installed")
def test_peers_do_the_same():
    found = measured("--size", "8")
    peers = {who for who, _ in found} - {"zstd alone", *CHUNKERS}
    assert peers
    assert all(
        (peer, what) in found for peer in peers for what in ("full", "unchanged", "4 % changed", "read back", "check")
    )


def test_a_disk_that_does_not_come_back_is_an_error(monkeypatch):
    async def nothing(_repository, _stream):
        yield 0, b"\1"

    monkeypatch.setattr(bench.reader, "pieces", nothing)
    with pytest.raises(WrongDiskError, match="not what was stored"):
        CliRunner().invoke(command, ["--size", "8", "--no-peers"], catch_exceptions=False)


def test_a_disk_is_the_same_for_the_same_seed_and_no_block_of_it_twice(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        make_disk(path, 16 << 20, 7)
    before = first.read_bytes()
    assert before == second.read_bytes()
    blocks = [before[at : at + 4096] for at in range(0, len(before), 4096)]
    assert len(set(blocks)) == len(blocks) == 4096
    for path in (first, second):
        change_disk(path, 7)
    after = first.read_bytes()
    assert after == second.read_bytes()
    assert sum(after[n * 4096 : (n + 1) * 4096] != one for n, one in enumerate(blocks)) == round(256 * 0.04) * 16


def test_a_disk_of_files_has_each_from_a_block_on(tmp_path):
    (tmp_path / "files").mkdir()
    for name in ("b", "a"):
        (tmp_path / "files" / name).write_bytes(name.encode() * 5000)
    assert make_disk_of_files(tmp_path / "disk", tmp_path / "files", 1 << 20) == 16384
    content = (tmp_path / "disk").read_bytes()
    assert content == (b"a" * 5000).ljust(8192, b"\0") + (b"b" * 5000).ljust(8192, b"\0")
