"""A source's picture of the other side's RAM: what it begins with, and that it can be evicted."""

import os
import resource

import pytest

from novacron.core.units import MIB, PAGE_BYTES
from novacron.launch.bench.footprint import anonymous_bytes
from novacron.migration.shadow import shadow

SIZE = 64 * MIB
CONTENT = os.urandom(SIZE)


@pytest.fixture
def no_room():
    """No file can be as large."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - 1, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_nobody_finds_stands_behind_it(tmp_path):
    before = anonymous_bytes(os.getpid())
    with shadow(None, SIZE, tmp_path) as picture:
        assert picture[:PAGE_BYTES] == picture[-PAGE_BYTES:] == bytes(PAGE_BYTES)
        picture[:] = CONTENT
        assert anonymous_bytes(os.getpid()) - before < SIZE // 2
        assert list(tmp_path.iterdir()) == []
        assert picture[:] == CONTENT


@pytest.mark.usefixtures("no_room")
def test_where_the_disk_has_no_room_it_is_memory(tmp_path):
    before = anonymous_bytes(os.getpid())
    with shadow(None, SIZE, tmp_path) as picture:
        assert picture[:PAGE_BYTES] == bytes(PAGE_BYTES)
        picture[:] = CONTENT
        assert anonymous_bytes(os.getpid()) - before > SIZE // 2
        assert picture[:] == CONTENT


def test_an_image_is_never_written_to(tmp_path):
    image = tmp_path / "vm.ram"
    image.write_bytes(CONTENT)
    with shadow(image, SIZE, tmp_path) as picture:
        picture[:PAGE_BYTES] = bytes(PAGE_BYTES)
        assert picture[PAGE_BYTES:] == CONTENT[PAGE_BYTES:]
    assert image.read_bytes() == CONTENT
