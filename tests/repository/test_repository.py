"""What is stored comes back as it was; what is damaged, lost or broken off is told, and never told wrong."""

import random

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from novacron.core.errors import InternalError
from novacron.core.units import MIB
from novacron.repository import packs, reader, writer as writing
from novacron.repository.check import check
from novacron.repository.chunkers import BY_CONTENT, CHUNKERS, FIXED
from novacron.repository.chunks import MAX_CHUNK_BYTES as CHUNK_BYTES
from novacron.repository.errors import (
    ChunkUnknownError,
    DamagedError,
    IndexDamagedError,
    ManifestExistsError,
    ManifestUnknownError,
    PackMissingError,
    RepositoryError,
    RepositoryExistsError,
    RepositoryMissingError,
    StoreError,
    VanishingPackError,
    WrongKeyError,
)
from novacron.repository.folder import FolderStore
from novacron.repository.keys import Secret, new_recovery_key
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.prune import prune
from novacron.repository.regions import Part, make_page
from novacron.repository.repository import Repository
from novacron.repository.writer import Writer
from support.stores import MemoryStore

KEY = Secret.file(b"k" * 32)
LATER = 2_000_000_000.0


def chunk(seed: int, size: int = CHUNK_BYTES) -> bytes:
    """Half of each block does not compress, and no two blocks are alike; seed 0 is zeros."""
    draw = random.Random(seed)
    blocks = (draw.randbytes(2048).ljust(4096, b"\1") for _ in range(0, size, 4096))
    return b"".join(blocks)[:size] if seed else bytes(size)


async def pieces(content: bytes, at_once: int = 2 * CHUNK_BYTES):
    for at in range(0, len(content), at_once):
        yield at, content[at : at + at_once]


async def stored(repository: Repository, name: str, content: bytes) -> Writer:
    writer = Writer(repository)
    stream = await writer.store(Stream.empty("disk", len(content)), pieces(content))
    writer.commit(name, manifest_of(repository, stream))
    return writer


def manifest_of(repository: Repository, stream: Stream) -> Manifest:
    return Manifest(1.0, repository.chunker.name, (stream,), {"vm": "web"})


def content_pack(store: MemoryStore) -> str:
    """The larger one; the other is of pages."""
    return max(
        (name for name in store.objects if name.startswith("packs/")), key=lambda name: len(store.objects[name][0])
    )


async def read(repository: Repository, name: str) -> bytes:
    stream = repository.manifest(name).stream("disk")
    content = bytearray(stream.size_bytes)
    async for at, data in reader.pieces(repository, stream):
        content[at : at + len(data)] = data
    return bytes(content)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture(params=CHUNKERS.values(), ids=CHUNKERS.keys())
def repository(request, store, tmp_path):
    return Repository.create(store, KEY, tmp_path / "cache", request.param)


def reopened(repository: Repository, tmp_path, secret: Secret = KEY) -> Repository:
    again = Repository.open(repository.store, secret, tmp_path / "again")
    again.refresh()
    return again


@given(
    chunker=st.sampled_from([FIXED, BY_CONTENT]),
    seeds=st.lists(st.integers(0, 5), max_size=36),
    tail=st.integers(0, 12).map(lambda n: n * 1024),
    more=st.lists(st.integers(0, 9), max_size=6),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_is_stored_comes_back(tmp_path, chunker, seeds, tail, more):
    repository = Repository.create(MemoryStore(), KEY, tmp_path / "cache", chunker)
    end = chunk(77, tail)
    first, second = b"".join(map(chunk, seeds)) + end, b"".join(map(chunk, seeds + more)) + end
    await stored(repository, "one", first)
    again = await stored(repository, "two", second)
    assert (await read(repository, "one"), await read(repository, "two")) == (first, second)
    if chunker is FIXED:
        assert again.written.new_chunks == len(set(more) - {0, *seeds})
    other = reopened(repository, tmp_path)
    assert (await read(other, "one"), await read(other, "two")) == (first, second)
    assert check(other, read=True).faults == []


async def test_what_is_there_already_is_not_stored_again(repository):
    first = await stored(repository, "one", b"".join(map(chunk, range(8))))
    second = await stored(repository, "two", b"".join(map(chunk, [*range(8), 0, *range(1, 8)])))
    third = await stored(repository, "three", b"".join(map(chunk, range(8))))
    assert first.written.new_bytes == 7 * CHUNK_BYTES
    assert (second.written.new_chunks, third.written.new_chunks) == (0, 0)
    assert second.written.stored_bytes < 10_000  # a page
    assert third.written.stored_bytes == 0


async def test_packs_are_closed_when_they_are_full(repository, monkeypatch):
    monkeypatch.setattr(packs, "FULL_BYTES", CHUNK_BYTES)
    content = b"".join(map(chunk, range(1, 9)))
    await stored(repository, "one", content)
    assert len(repository.packs()) == 4 + 1  # and one of pages
    assert await read(repository, "one") == content


@pytest.mark.parametrize("secret", [Secret.passphrase("open sesame"), Secret.file(b"k" * 40), Secret.none()])
async def test_a_repository_opens_by_what_it_was_made_with_and_by_nothing_else(tmp_path, secret):
    store = FolderStore(tmp_path / "repository")
    repository = Repository.create(store, secret, tmp_path / "cache")
    await stored(repository, "one", chunk(1))
    assert await read(reopened(repository, tmp_path, secret), "one") == chunk(1)
    for wrong in (Secret.passphrase("open sesam"), Secret.file(b"l" * 40)):
        with pytest.raises(WrongKeyError):
            Repository.open(store, wrong, tmp_path / "cache")
    with pytest.raises(RepositoryExistsError):
        Repository.create(store, secret, tmp_path / "cache")


def test_there_is_nothing_to_open_where_nothing_is(tmp_path):
    with pytest.raises(RepositoryMissingError):
        Repository.open(FolderStore(tmp_path), KEY, tmp_path / "cache")
    with pytest.raises(WrongKeyError, match="at least 32"):
        Secret.file(b"short")


async def test_a_recovery_key_opens_what_its_passphrase_is_lost_of(repository, store, tmp_path):
    await stored(repository, "one", chunk(1))
    text = new_recovery_key()
    with pytest.raises(WrongKeyError, match="has no recovery key"):
        Repository.open(store, Secret.recovery(text), tmp_path / "other")
    repository.add_recovery(Secret.recovery(text))
    repository.add_recovery(Secret.recovery(new_recovery_key()))  # the first stays
    written_down = text.lower().replace("-", "  ") + "\n"
    other = Repository.open(store, Secret.recovery(written_down), tmp_path / "other")
    other.refresh()
    assert await read(other, "one") == chunk(1)
    for wrong in (Secret.recovery(new_recovery_key()), Secret.file(b"k" * 33)):
        with pytest.raises(WrongKeyError):
            Repository.open(store, wrong, tmp_path / "other")
    for no_key in ("", text[:-1], text.replace("-", "1"), f"{text}-AAAA"):
        with pytest.raises(WrongKeyError, match="13 groups of four"):
            Secret.recovery(no_key)


@pytest.mark.parametrize("name", ["envelope", "recovery"])
def test_a_damaged_envelope_is_told_by_a_check(repository, store, name):
    repository.add_recovery(Secret.recovery(new_recovery_key()))
    assert check(repository, read=False).faults == []
    content, at = store.objects[name]
    store.objects[name] = (bytes([content[0] ^ 1]) + content[1:], at)
    (fault,) = check(repository, read=False).faults
    assert fault.code == "repository_damaged"


async def test_only_a_repository_in_which_nothing_was_stored_is_unmade(repository, store):
    repository.add_recovery(Secret.recovery(new_recovery_key()))
    await stored(repository, "one", chunk(1))
    with pytest.raises(RepositoryExistsError):
        repository.unmake()
    repository.delete_manifest("one")
    prune(repository, grace_s=0, now=LATER)
    prune(repository, grace_s=0, now=LATER)
    repository.unmake()
    assert not [name for name in store.objects if not name.startswith("index/")]


async def test_a_prune_tells_how_far_it_is_and_can_be_ended_at_any_time(repository):
    for number in range(3):
        await stored(repository, str(number), b"".join(map(chunk, range(1 + 4 * number, 5 + 4 * number))))
    await stored(repository, "kept", b"".join(map(chunk, range(1, 13, 4))))
    for number in range(3):
        repository.delete_manifest(str(number))
    steps = []
    for end in range(1000):
        seen = []

        def look(done, end=end, seen=seen):
            seen.append((done.phase, done.moved_bytes, done.total_bytes))
            if len(seen) > end:
                raise InternalError("ended")

        try:
            done = prune(repository, grace_s=0, now=LATER, progress=look)
        except InternalError:
            steps.append(seen[-1])
        else:
            break
    assert done.moved_bytes == done.total_bytes
    assert [phase for phase, _, _ in steps] == sorted(
        (phase for phase, _, _ in steps), key=["looking", "moving", "removing"].index
    )
    assert any(0 < moved <= total for _, moved, total in steps)
    assert check(repository, read=True).faults == []
    assert await read(repository, "kept") == b"".join(map(chunk, range(1, 13, 4)))


async def test_nothing_of_the_content_or_of_names_lies_open(repository, store):
    await stored(repository, "one", b"a secret line\n".ljust(CHUNK_BYTES, b"."))
    assert not any(b"secret" in data or b"created_at" in data or b"disk" in data for data, _ in store.objects.values())


async def test_a_manifest_is_never_replaced(repository):
    await stored(repository, "one", chunk(1))
    with pytest.raises(ManifestExistsError):
        await stored(repository, "one", chunk(2))
    assert await read(repository, "one") == chunk(1)
    with pytest.raises(ManifestUnknownError):
        repository.manifest("two")


async def test_every_changed_byte_is_told(tmp_path):
    """Of every object, each byte of its ends and some between."""
    store = MemoryStore()
    repository = Repository.create(store, KEY, tmp_path / "cache")
    await stored(repository, "one", chunk(1, 8192) + bytes(4096))
    repository.mark("ab" * 32, "unused")
    whole, draw = dict(store.objects), random.Random(7)
    for name, (data, _) in whole.items():
        ends = range(min(200, len(data)))
        places = {*ends, *(len(data) - 1 - at for at in ends), *(draw.randrange(len(data)) for _ in range(100))}
        for at in sorted(places):
            store.objects = dict(whole)
            store.flip(name, at)
            assert told(store, tmp_path), (name, at)
    store.objects = whole
    assert not told(store, tmp_path)


def told(store: MemoryStore, tmp_path) -> bool:
    try:
        repository = Repository.open(store, KEY, tmp_path / "fresh")
        for copy in (tmp_path / "fresh").glob("*"):
            copy.unlink()
        return bool(check(repository, read=True).faults)
    except DamagedError:
        return True


async def test_a_cut_object_is_told(repository, store, tmp_path):
    await stored(repository, "one", chunk(1))
    for name, (data, at) in dict(store.objects).items():
        for length in (0, 10, len(data) - 1):
            store.objects[name] = (data[:length], at)
            assert told(store, tmp_path), (name, length)
        store.objects[name] = (data, at)


async def test_a_lost_or_damaged_index_is_told_again_by_the_packs(repository, store, tmp_path):
    content = b"".join(map(chunk, range(6)))
    await stored(repository, "one", content)
    (segment,) = [name for name in store.objects if name.startswith("index/")]
    store.flip(segment, 50)
    damaged = Repository.open(store, KEY, tmp_path / "again")
    with pytest.raises(IndexDamagedError):
        damaged.refresh()
    del store.objects[segment]
    lost = reopened(repository, tmp_path)
    with pytest.raises(ChunkUnknownError):
        await read(lost, "one")
    assert [fault.code for fault in check(lost, read=False).faults] == ["chunk_unknown"]
    with pytest.raises(ChunkUnknownError):
        prune(lost, grace_s=0, now=LATER)
    assert lost.rebuild_index() == 2
    assert await read(lost, "one") == content
    assert await read(reopened(lost, tmp_path), "one") == content


async def test_the_headers_tell_an_index_where_a_trailer_is_damaged(repository, store):
    content = b"".join(map(chunk, range(1, 4)))
    await stored(repository, "one", content)
    pack = content_pack(store)
    store.flip(pack, len(store.objects[pack][0]) - 40)
    repository.rebuild_index()
    assert await read(repository, "one") == content
    assert check(repository, read=True).faults[0].code == "repository_damaged"


async def test_a_damaged_copy_of_the_index_at_this_machine_is_fetched_again(repository, tmp_path):
    await stored(repository, "one", chunk(1))
    (copy,) = (tmp_path / "cache").iterdir()
    copy.write_bytes(bytes(len(copy.read_bytes())))
    again = Repository.open(repository.store, KEY, tmp_path / "cache")
    again.refresh()
    assert await read(again, "one") == chunk(1)


async def test_a_corrupt_chunk_is_stored_again_by_who_meets_it_and_heals_what_needs_it(repository, store):
    content = b"".join(map(chunk, range(1, 4)))
    await stored(repository, "one", content)
    pack = content_pack(store)
    store.flip(pack, 5000)
    with pytest.raises(DamagedError, match="is corrupt"):
        await read(repository, "one")
    found = check(repository, read=True)
    assert [(fault.code, fault.manifests) for fault in found.faults] == [
        ("repository_damaged", ()),
        ("pack_missing", ("one",)),
    ]
    repository.refresh()
    assert (await stored(repository, "two", content)).written.new_bytes == 3 * CHUNK_BYTES
    assert await read(repository, "one") == content
    prune(repository, grace_s=0, now=LATER)
    assert check(repository, read=True).faults == []


async def test_a_missing_pack_is_named(repository, store):
    await stored(repository, "one", chunk(1))
    pack = content_pack(store)
    del store.objects[pack]
    with pytest.raises(PackMissingError, match=packs.name_of(pack)[:16]):
        await read(repository, "one")
    assert [fault.code for fault in check(repository, read=False).faults] == ["pack_missing"]


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_call_leaves_a_whole_repository(tmp_path, after):
    first, second = b"".join(map(chunk, range(4))), b"".join(map(chunk, range(4, 7)))

    async def work(store: MemoryStore, folder) -> None:
        repository = Repository.open(store, KEY, folder)
        repository.refresh()
        await stored(repository, "two", second)
        repository.delete_manifest("one")
        prune(repository, grace_s=0, now=LATER)

    for number in range(1, 200):
        store = MemoryStore()
        repository = Repository.create(store, KEY, tmp_path / f"make-{number}")
        await stored(repository, "one", first)
        await stored(reopened(repository, tmp_path), "kept", chunk(9))
        store.after, store.breaks_at, store.calls = after, number, 0
        try:
            await work(store, tmp_path / f"work-{number}")
        except StoreError:
            store.breaks_at = 0
        else:
            assert number > 15
            break
        again = Repository.open(store, KEY, tmp_path / f"look-{number}")
        found = check(again, read=True)
        assert found.faults == [], number
        for name, content in (("one", first), ("two", second), ("kept", chunk(9))):
            if name in again.manifests():
                assert await read(again, name) == content
        await stored(again, "three", first + second)
        prune(again, grace_s=0, now=LATER)
        assert check(again, read=True).faults == []


async def test_what_a_deleted_manifest_alone_needed_goes(repository):
    first, second = (random.Random(seed).randbytes(CHUNK_BYTES) for seed in (1, 2))  # no part of them is the same
    await stored(repository, "one", first)
    await stored(repository, "two", second)
    repository.delete_manifest("one")
    waiting = prune(repository, grace_s=3600, now=LATER)
    assert (waiting.marked, waiting.removed) == (2, 0)  # of content, and of pages
    gone = prune(repository, grace_s=0, now=LATER + 3600)
    assert (gone.removed, len(repository.packs())) == (2, 2)
    assert await read(repository, "two") == second
    assert check(repository, read=True).faults == []
    assert (await stored(repository, "three", first)).written.new_bytes == CHUNK_BYTES


async def test_of_a_pack_that_is_needed_in_small_part_that_part_is_stored_anew(repository):
    await stored(repository, "one", b"".join(map(chunk, [1, 2, 3, 4, 5, 6, 0, 7])))
    await stored(repository, "two", b"".join(map(chunk, [7, 0, 8])))
    (before,) = {size for size, _ in repository.packs().values() if size > 3 * CHUNK_BYTES}
    repository.delete_manifest("one")
    pruned = prune(repository, grace_s=0, now=LATER)
    assert pruned.moved_chunks >= 1
    assert pruned.removed == 2  # the other one is of pages
    assert sum(size for size, _ in repository.packs().values()) < before / 2
    assert await read(repository, "two") == b"".join(map(chunk, [7, 0, 8]))
    assert check(repository, read=True).faults == []
    assert prune(repository, grace_s=0, now=LATER).marked == 0


async def test_a_pack_that_is_used_again_loses_its_tombstone(repository):
    await stored(repository, "one", chunk(1))
    repository.mark(next(iter(repository.packs())), "unused")
    pruned = prune(repository, grace_s=0, now=LATER)
    assert (pruned.removed, repository.tombstones()) == (0, {})


@pytest.mark.parametrize("moment", ["list tombstones/", "put manifests/two", "list packs/"])
async def test_a_writer_that_stands_still_while_its_packs_are_pruned_takes_its_manifest_back(
    repository, store, tmp_path, moment
):
    """As by SIGSTOP at that moment: the other one marks, waits, looks again and removes."""
    await stored(repository, "one", chunk(1))
    writer = Writer(repository)
    stream = await writer.store(Stream.empty("disk", CHUNK_BYTES), pieces(chunk(1)))
    other = reopened(repository, tmp_path)
    other.delete_manifest("one")
    repository.delete_manifest("one")

    def stopped(call: str) -> None:
        if call.startswith(moment):
            store.before_call = lambda _: None
            prune(other, grace_s=0, now=LATER)

    store.before_call = stopped
    try:
        writer.commit("two", manifest_of(repository, stream))
    except VanishingPackError:
        assert repository.manifests() == []
        repository.refresh()
        await stored(repository, "two", chunk(1))
    repository.refresh()
    assert await read(repository, "two") == chunk(1)
    assert check(repository, read=True).faults == []


async def test_an_error_of_the_source_ends_the_storing_and_counts_for_nothing(repository):
    async def failing():
        yield 0, chunk(1)
        raise RepositoryError("the disk could not be read")

    with pytest.raises(RepositoryError, match="the disk"):
        await Writer(repository).store(Stream.empty("disk", CHUNK_BYTES), failing())
    assert repository.manifests() == []


async def test_a_pack_of_its_own_that_is_pruned_while_it_stores_is_missed(repository, tmp_path):
    """As when a backup takes longer than the grace period."""
    writer = Writer(repository)
    stream = await writer.store(Stream.empty("disk", CHUNK_BYTES), pieces(chunk(1)))
    writer.flush()
    prune(reopened(repository, tmp_path), grace_s=0, now=LATER)
    with pytest.raises(VanishingPackError):
        writer.commit("one", manifest_of(repository, stream))
    assert repository.manifests() == []


async def test_places_are_told_to_the_index_on_the_way(repository, monkeypatch):
    monkeypatch.setattr(packs, "FULL_BYTES", 2 * CHUNK_BYTES)
    monkeypatch.setattr(writing, "SEGMENT_ENTRIES", 8)
    content = b"".join(map(chunk, range(1, 60)))
    writer = await stored(repository, "one", content)
    assert len(repository.index.segments) > 2
    assert writer._claimed == set()
    assert await read(repository, "one") == content
    assert check(repository, read=True).faults == []


def test_pages_are_kept_no_longer_than_until_their_pack_is_put(repository, monkeypatch):
    """What is kept of them in memory does not grow with what is stored."""
    monkeypatch.setattr(packs, "FULL_BYTES", 2 * CHUNK_BYTES)
    writer = Writer(repository)
    for number in range(8000):
        writer.store_page(make_page([Part(0, 4096, random.Random(number).randbytes(32))] * 4))
    assert 0 < sum(map(len, writer._new_pages.values())) < 2 * CHUNK_BYTES
    assert len(repository.index.segments) > 0


@pytest.mark.parametrize("chunker", [FIXED, BY_CONTENT])
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_new_content_replaces_what_was_there_and_any_part_can_be_read(tmp_path, chunker, data):
    repository = Repository.create(MemoryStore(), KEY, tmp_path / "cache", chunker)
    size = data.draw(st.integers(1, 10 * MIB))
    units = -(-size // chunker.unit_bytes)
    content, writer = bytearray(size), Writer(repository)
    stream = Stream.empty("disk", size)
    for round_number in range(1, 4):
        changed = sorted(data.draw(st.sets(st.integers(0, units - 1), max_size=8)))
        pieces_now = []
        for unit in changed:
            at = unit * chunker.unit_bytes
            length = min(chunker.unit_bytes, size - at)
            seed = data.draw(st.sampled_from([0, round_number, unit % 3]))
            content[at : at + length] = chunk(seed, length + length % 2)[:length]
            pieces_now.append((at, bytes(content[at : at + length])))
        stream = await writer.store(stream, given_pieces(pieces_now))
    writer.commit("one", manifest_of(repository, stream))
    assert await read(repository, "one") == content
    for _ in range(4):
        offset, length = data.draw(st.integers(0, size)), data.draw(st.integers(0, 100_000))
        found = reader.read(repository, stream, offset, length)
        assert found == bytes(content[offset : offset + length]).ljust(length, b"\0")


async def given_pieces(found):
    for piece in found:
        yield piece


async def test_content_that_is_no_whole_unit_is_refused(repository):
    with pytest.raises(InternalError, match="no whole unit"):
        await Writer(repository).store(Stream.empty("disk", MIB), given_pieces([(0, b"1" * 5000)]))


async def test_a_region_that_has_not_changed_costs_nothing_but_its_page_in_the_manifest(repository, store):
    content = random.Random(3).randbytes(9 * MIB)
    await stored(repository, "one", content)
    second = await stored(repository, "two", content)
    assert second.written.stored_bytes == 0
    assert len(repository.manifest("two").stream("disk").pages) == 3 * 32
    assert len(store.objects["manifests/two"][0]) < 400


async def test_a_writer_reads_no_more_than_it_must_for_a_part(repository, store):
    await stored(repository, "one", random.Random(3).randbytes(12 * MIB))
    fetched = []
    store.before_call = fetched.append
    stream = repository.manifest("one").stream("disk")
    assert reader.read(repository, stream, 5 * MIB, 4096) == random.Random(3).randbytes(12 * MIB)[5 * MIB :][:4096]
    assert len([call for call in fetched if call.startswith("get packs/")]) <= 4  # two salts, a page, a chunk


async def test_an_envelope_says_how_a_repository_cuts(repository, tmp_path):
    assert reopened(repository, tmp_path).chunker is repository.chunker
