"""What every store does, wherever it keeps its objects."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from novacron.repository.careful import CarefulStore
from novacron.repository.errors import StoreError
from novacron.repository.folder import FolderStore, clear_aside
from novacron.repository.store import ObjectExistsError, ObjectMissingError
from novacron.repository.traits import Traits
from support.faulty import FaultyStore
from support.stores import MemoryStore

WEAK = Traits(conditional_create=False, ranged_reads=False, probed_at=0)  # test_probe.py proves it


@pytest.fixture(params=["folder", "memory", "faulty", "good_s3", "weak_s3"])
def store(request, tmp_path):
    """Each as repositories use it."""
    match request.param:
        case "folder":
            return FolderStore(tmp_path / "store")
        case "memory":
            return MemoryStore()
        case "faulty":
            return CarefulStore(FaultyStore(MemoryStore(), seed=1, rate=0.3), sleep=lambda _: None)
        case "good_s3":
            return CarefulStore(request.getfixturevalue("good_s3").store(tmp_path.name))
        case _:
            return WEAK.fit(CarefulStore(request.getfixturevalue("weak_s3").store(tmp_path.name)))


def test_what_is_put_is_there_whole_and_in_parts(store):
    store.put("packs/ab/abc", b"0123456789")
    assert store.get("packs/ab/abc") == b"0123456789"
    assert store.get("packs/ab/abc", 3, 4) == b"3456"
    assert store.get("packs/ab/abc", 8, 100) == b"89"
    assert store.get("packs/ab/abc", 4) == b"456789"
    assert store.get("packs/ab/abc", 100) == b""
    assert store.get("packs/ab/abc", 10, 5) == b""
    assert store.get("packs/ab/abc", 3, 0) == b""
    store.put("packs/ab/abe", b"")
    assert store.get("packs/ab/abe") == b""
    with pytest.raises(ObjectMissingError):
        store.get("packs/ab/abd", 3, 4)


def test_a_name_is_put_once(store):
    store.put("envelope", b"first")
    with pytest.raises(ObjectExistsError):
        store.put("envelope", b"second")
    assert store.get("envelope") == b"first"


def test_of_writers_that_race_for_a_name_one_wins(store):
    won, barrier = [], threading.Barrier(16)

    def put(number: int) -> None:
        barrier.wait()
        try:
            store.put("manifests/one", bytes([number]) * 100_000)
        except ObjectExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("manifests/one") == bytes(won) * 100_000
    assert [stored.size_bytes for stored in store.list("manifests/")] == [100_000]


def test_a_list_tells_what_lies_under_a_prefix(store):
    for name in ("packs/ab/abc", "packs/cd/cde", "index/abc"):
        store.put(name, name.encode())
    assert sorted((s.name, s.size_bytes) for s in store.list("packs/")) == [("packs/ab/abc", 12), ("packs/cd/cde", 12)]
    assert all(stored.modified_at > 0 for stored in store.list("packs/"))
    assert list(store.list("manifests/")) == []


def test_a_list_of_more_than_one_page_is_whole(store):
    names = {f"index/{number:064x}" for number in range(1050)}
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(lambda name: store.put(name, b""), names))
    assert sorted(stored.name for stored in store.list("index/")) == sorted(names)


def test_what_is_deleted_is_gone_and_its_name_free(store):
    store.put("index/abc", b"old")
    store.delete("index/abc")
    store.delete("index/abc")
    with pytest.raises(ObjectMissingError):
        store.get("index/abc")
    store.put("index/abc", b"new")
    assert store.get("index/abc") == b"new"


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a//b", "", "a/b/c/d/e", "a/.hidden", "A"])
def test_a_name_that_no_object_can_have_is_refused(store, name):
    with pytest.raises(ValueError, match="cannot be the name"):
        store.put(name, b"")


def test_a_folder_leaves_nothing_aside_and_clears_what_a_killed_writer_left(tmp_path):
    store = FolderStore(tmp_path / "store")
    store.put("packs/ab/abc", b"whole")
    assert list((tmp_path / "store/.aside").iterdir()) == []
    (tmp_path / "store/.aside/half").write_bytes(b"ha")
    clear_aside(tmp_path / "store")
    assert list((tmp_path / "store/.aside").iterdir()) == []
    assert store.get("packs/ab/abc") == b"whole"


def test_a_folder_that_cannot_be_read_says_which(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file/envelope"):
        FolderStore(tmp_path / "file").get("envelope")
