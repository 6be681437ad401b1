"""A store behind a bad network: what a manifest refers to is never lost, errors are clear, the next run goes on."""

import os
import random

import pytest

from novacron.repository import reader, writer
from novacron.repository.careful import ATTEMPTS, CarefulStore
from novacron.repository.check import check
from novacron.repository.chunkers import BY_CONTENT, FIXED
from novacron.repository.chunks import MAX_CHUNK_BYTES as CHUNK_BYTES
from novacron.repository.errors import StoreError, StoreUnfitError
from novacron.repository.keys import Secret
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.prune import prune
from novacron.repository.repository import Repository
from novacron.repository.store import ObjectExistsError, ObjectMissingError
from novacron.repository.writer import Writer
from support.faulty import FaultyStore
from support.stores import MemoryStore, OverwritingStore

KEY = Secret.file(b"k" * 32)
LATER = 2_000_000_000.0


class Scripted(MemoryStore):
    """Puts go as ``script`` says; anything else goes well."""

    def __init__(self, *script):
        super().__init__()
        self.script = list(script)

    def put(self, name, data):
        what = self.script.pop(0) if self.script else "well"
        if what not in {"refuses", "lies"}:
            super().put(name, data[: len(data) // 2] if what in {"cuts", "halves"} else data)
        if what in {"refuses", "loses", "cuts"}:
            raise StoreError("broken")


def careful(store) -> CarefulStore:
    return CarefulStore(store, sleep=lambda _: None)


@pytest.mark.parametrize("fault", ["refuses", "loses", "lies", "cuts", "halves"])
def test_a_put_gets_through_whatever_becomes_of_it_at_first(fault):
    store = Scripted(fault, fault)
    careful(store).put("manifests/one", b"content")
    assert store.objects["manifests/one"][0] == b"content"


@pytest.mark.parametrize("fault", ["refuses", "loses", "lies", "cuts", "halves"])
def test_a_name_that_another_took_meanwhile_is_not_taken_for_ones_own(fault):
    class Overtaken(Scripted):
        def put(self, name, data):
            try:
                super().put(name, data)
            finally:
                if not overtaken:
                    overtaken.append(name)
                    self.objects[name] = (b"another", 1.0)

    overtaken: list[str] = []
    store = Overtaken(fault)
    with pytest.raises(ObjectExistsError):
        careful(store).put("manifests/one", b"content")
    assert store.objects["manifests/one"][0] == b"another"


def test_a_name_that_was_taken_before_is_told_at_once_even_for_the_same_content():
    store = Scripted()
    careful(store).put("manifests/one", b"content")
    with pytest.raises(ObjectExistsError):
        careful(store).put("manifests/one", b"content")


@pytest.mark.parametrize(
    ("fault", "said"), [("refuses", "broken"), ("lies", "does not have"), ("halves", "3 of the 7")]
)
def test_patience_ends_with_what_was_wrong(fault, said):
    waits = []
    store = Scripted(*[fault] * 100)
    with pytest.raises(StoreError, match=said):
        CarefulStore(store, sleep=waits.append).put("manifests/one", b"content")
    assert len(store.script) == 100 - ATTEMPTS
    assert all(a < b for a, b in zip(waits, waits[2:], strict=False))
    assert "manifests/one" not in store.objects


def test_what_cannot_pass_is_not_tried_again():
    calls = []

    def unfit(call: str) -> None:
        calls.append(call)
        raise StoreUnfitError("never")

    store = MemoryStore()
    with pytest.raises(ObjectMissingError):
        careful(store).get("envelope")
    store.before_call = unfit
    with pytest.raises(StoreUnfitError):
        careful(store).get("envelope")
    assert (store.calls, calls) == (1, ["get envelope"])


class Run:
    """Backups, restores, deletions and prunes, drawn by a seed; what must be there afterwards is known."""

    def __init__(self, memory: MemoryStore, seed: int, folder) -> None:
        self.draw = random.Random(seed)
        self.memory = memory
        Repository.create(self.memory, KEY, folder / "first", (FIXED, BY_CONTENT)[seed % 2])
        self.network = FaultyStore(self.memory, seed, 0.08, most=1000, outages=0.004)
        self.folder = folder
        self.contents: dict[str, bytes] = {}  # all that were ever begun
        self.kept: set[str] = set()  # those that must be there
        self.failures = 0

    def opened(self, store) -> Repository:
        repository = Repository.open(store, KEY, self.folder / "cache")
        repository.refresh()
        return repository

    async def step(self, number: int) -> None:
        try:
            repository = self.opened(careful(self.network))
            match self.draw.choice(["store", "store", "read", "delete", "prune"]):
                case "store":
                    await self.store(repository, f"backup-{number}")
                case "read":
                    await self.read(repository, self.draw.choice(sorted(self.kept)) if self.kept else None)
                case "delete" if self.kept:
                    name = self.draw.choice(sorted(self.kept))
                    self.kept.remove(name)
                    repository.delete_manifest(name)
                case "prune":
                    self.network.settle()  # no request is late by more than the grace period, which is none here
                    prune(repository, grace_s=0, now=LATER)
        except StoreError:
            self.failures += 1

    async def store(self, repository: Repository, name: str) -> None:
        chunks = [self.draw.randrange(12) for _ in range(self.draw.randrange(1, 6))]
        content = b"".join(bytes([n]) * 100 + bytes(CHUNK_BYTES - 100) for n in chunks)
        self.contents[name] = content

        async def pieces():
            for at in range(0, len(content), CHUNK_BYTES):
                yield at, content[at : at + CHUNK_BYTES]

        writing = Writer(repository)
        stream = await writing.store(Stream.empty("disk", len(content)), pieces())
        writing.commit(name, Manifest(1.0, repository.chunker.name, (stream,)))
        self.kept.add(name)

    async def read(self, repository: Repository, name: str | None) -> None:
        if name is not None:
            stream = repository.manifest(name).stream("disk")
            content = bytearray(stream.size_bytes)
            async for at, data in reader.pieces(repository, stream):
                content[at : at + len(data)] = data
            assert bytes(content) == self.contents[name]

    async def look(self) -> None:
        """With a good network: everything that is there is whole, what must be there is, and work goes on."""
        self.network.settle()
        repository = self.opened(self.memory)
        assert self.kept <= set(repository.manifests()) <= self.contents.keys()
        assert check(repository, read=True).faults == []
        for name in repository.manifests():
            await self.read(repository, name)
        await self.store(repository, "last")
        prune(repository, grace_s=0, now=LATER)
        prune(repository, grace_s=0, now=LATER + 1)
        assert check(repository, read=True).faults == []
        assert check(repository, read=True).loose_packs == 0


@pytest.fixture
def repeatable(monkeypatch):
    """One call of the store after the other, and the same keys and names each time."""
    monkeypatch.setattr(reader, "AHEAD", 1)
    monkeypatch.setattr(writer, "AT_A_TIME", 1)
    monkeypatch.setattr(os, "urandom", random.Random(7).randbytes)


@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("kind", [MemoryStore, OverwritingStore])
async def test_nothing_that_a_manifest_refers_to_is_lost_over_a_bad_network(kind, tmp_path):
    failures, faults = 0, set()
    for seed in range(20):
        run = Run(kind(), seed, tmp_path / str(seed))
        for number in range(15):
            await run.step(number)
        await run.look()
        failures += run.failures
        faults |= run.network.faults.keys()
    assert failures > 20
    assert faults == {"", "refuses", "loses", "lies", "cuts", "halves", "late"}
