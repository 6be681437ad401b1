"""``novacron bench pipeline``: figures of both ends, from memory that arrives whole."""

import json

import pytest
from click.testing import CliRunner

from novacron.launch.bench import pipeline
from novacron.launch.bench.memory import dirtied, like_memory
from novacron.launch.bench.pipeline import WrongPagesError, command


def test_it_measures_every_round_against_zstd_alone():
    done = CliRunner().invoke(command, ["--memory", "1", "--runs", "1", "--output", "json"], catch_exceptions=False)
    found = {(one["what"], one["end"]): one for one in json.loads(done.stdout)["rates"] if one["cores"] == 1}
    assert found["zstd alone", ""]["ratio"] == 1
    for end in ("source", "destination", "both"):
        assert 0.2 < found["new pages", end]["wire_share"] < 0.5
        assert found["dirty again", end]["wire_share"] < 0.1
        assert found["unchanged", end]["wire_share"] < 0.001


def test_memory_that_does_not_arrive_is_an_error(monkeypatch):
    monkeypatch.setattr(pipeline.RamReceiver, "pages", _lose)
    with pytest.raises(WrongPagesError, match="new pages"):
        pipeline._measure(1 << 20, 1, 1, 7)


async def _lose(_self, _body):
    """A receiver that writes nothing."""


def test_the_memory_is_the_same_for_the_same_seed_and_every_page_changes():
    memory = like_memory(64, 7)
    again = dirtied(memory, 7)
    pages = range(0, len(memory), 4096)
    assert memory == like_memory(64, 7) != like_memory(64, 8)
    assert all(memory[at : at + 4096] != again[at : at + 4096] for at in pages)
    assert len({memory[at : at + 4096] for at in pages}) == 64
