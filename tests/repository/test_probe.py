"""What a store can do is found out before a repository lies there, kept with it, and said again."""

import errno
import os

import pytest
import structlog

from novacron.repository.careful import CarefulStore
from novacron.repository.errors import DamagedError, RepositoryExistsError, StoreError, StoreUnfitError
from novacron.repository.folder import FolderStore
from novacron.repository.keys import Secret
from novacron.repository.probe import probe
from novacron.repository.repository import Repository
from novacron.repository.traits import Traits, decode_traits
from support.faulty import FaultyStore
from support.stores import MemoryStore, OverwritingStore

KEY = Secret.file(b"k" * 32)


class LettingAllWin(MemoryStore):
    """It looks first and then writes, so that all that come together win: as an S3 server was seen to do."""

    def put(self, name, data):
        if "race" in name:
            self.objects[name] = (data, 1.0)
        else:
            super().put(name, data)


class Forgetting(MemoryStore):
    def get(self, name, offset=0, length=None):
        return super().get(name, offset, length)[:-1]


class ListingLate(MemoryStore):
    def list(self, prefix):
        return iter([*super().list(prefix)][:-1])


class KeepingAll(MemoryStore):
    def delete(self, name):
        pass


class ReadingWholes(MemoryStore):
    def get(self, name, offset=0, length=None):
        if offset or length is not None:
            raise StoreUnfitError("it reads only whole objects")
        return super().get(name)


@pytest.mark.parametrize("make", [MemoryStore, lambda: CarefulStore(MemoryStore())])
def test_a_good_store_is_found_good_and_left_clean(make):
    store = make()
    assert probe(store, now=7) == Traits(conditional_create=True, ranged_reads=True, probed_at=7)
    assert list(store.list("probe/")) == []


def test_a_folder_is_a_good_store(tmp_path):
    assert probe(FolderStore(tmp_path), now=7).weaknesses() == ()


def test_a_folder_without_hard_links_is_refused(tmp_path, monkeypatch):
    def link(*_) -> None:
        raise PermissionError(errno.EPERM, "as on FAT")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreUnfitError, match="no hard links"):
        Repository.create(FolderStore(tmp_path / "store"), KEY, tmp_path / "cache")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_good_s3_is_found_good(good_s3, tmp_path):
    store = CarefulStore(good_s3.store(tmp_path.name))
    assert probe(store, now=7).weaknesses() == ()
    assert list(store.list("probe/")) == []


def test_a_weak_s3_is_found_weak_and_its_weaknesses_are_said(weak_s3, tmp_path):
    store = CarefulStore(weak_s3.store(tmp_path.name))
    found = probe(store, now=7)
    assert found == Traits(conditional_create=False, ranged_reads=False, probed_at=7)
    first, second = found.weaknesses()
    assert "never let two write" in first
    assert "only whole objects" in second
    assert list(store.list("probe/")) == []


@pytest.mark.parametrize("make", [OverwritingStore, LettingAllWin])
@pytest.mark.parametrize("careful", [False, True])
def test_a_store_that_lets_several_win_is_weak(make, careful):
    store = CarefulStore(make()) if careful else make()
    assert not probe(store, now=7).conditional_create


def test_a_store_that_reads_no_parts_is_weak():
    assert not probe(ReadingWholes(), now=7).ranged_reads


@pytest.mark.parametrize(("make", "lacks"), [(Forgetting, "give back"), (ListingLate, "list"), (KeepingAll, "delete")])
def test_a_store_that_cannot_keep_a_repository_is_refused(make, lacks, tmp_path):
    store = make()
    with pytest.raises(StoreUnfitError, match=f"does not {lacks}"):
        Repository.create(store, KEY, tmp_path / "cache")
    assert "envelope" not in store.objects


def test_a_store_that_fails_for_a_while_is_not_called_weak():
    for seed in range(20):
        store = FaultyStore(MemoryStore(), seed, 0.02)
        try:
            assert probe(CarefulStore(store, sleep=lambda _: None), now=7).conditional_create
        except StoreError as error:
            assert error.retryable  # noqa: PT017


def test_the_weaknesses_are_kept_with_the_repository_and_said_at_each_opening(tmp_path):
    store = OverwritingStore()
    with structlog.testing.capture_logs() as at_creation:
        Repository.create(store, KEY, tmp_path / "cache")
    with structlog.testing.capture_logs() as at_opening:
        opened = Repository.open(store, KEY, tmp_path / "cache")
    assert opened.traits == decode_traits(store.objects["traits"][0])
    assert [entry["cause"] for entry in at_opening] == list(opened.traits.weaknesses())
    assert at_opening == at_creation


def test_a_repository_without_traits_is_probed_when_it_is_opened(tmp_path):
    store = MemoryStore()
    Repository.create(store, KEY, tmp_path / "cache")
    del store.objects["traits"]
    assert Repository.open(store, KEY, tmp_path / "cache").traits.conditional_create
    assert "traits" in store.objects


def test_damaged_traits_are_told_with_what_to_do(tmp_path):
    store = MemoryStore()
    Repository.create(store, KEY, tmp_path / "cache")
    store.flip("traits", 3)
    with pytest.raises(DamagedError, match="traits") as told:
        Repository.open(store, KEY, tmp_path / "cache")
    assert "remove the object traits" in told.value.next_command


def test_a_repository_in_a_weak_store_is_not_made_twice(tmp_path):
    store = OverwritingStore()
    Repository.create(store, KEY, tmp_path / "cache")
    envelope = store.objects["envelope"]
    with pytest.raises(RepositoryExistsError):
        Repository.create(store, KEY, tmp_path / "cache")
    assert store.objects["envelope"] == envelope


def test_whoever_loses_the_race_to_make_a_repository_in_a_weak_store_is_told(tmp_path):
    store = OverwritingStore()
    other = OverwritingStore()
    Repository.create(other, KEY, tmp_path / "other")

    def overtaken(call: str) -> None:
        if call == "get envelope" and "envelope" in store.objects:
            store.objects["envelope"] = other.objects["envelope"]

    store.before_call = overtaken
    with pytest.raises(RepositoryExistsError):
        Repository.create(store, KEY, tmp_path / "cache")
