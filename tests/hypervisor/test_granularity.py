"""What a mark of QEMU's dirty bitmaps stands for."""

import pytest

from novacron.core.units import GIB, KIB
from novacron.hypervisor.qemu.machine import MAX_MARKS, granularity


@pytest.mark.parametrize(
    ("disk_bytes", "stands_for"),
    [
        (4 * KIB, 4 * KIB),
        (256 * GIB, 4 * KIB),
        (256 * GIB + 4 * KIB, 8 * KIB),
        (4096 * GIB, 64 * KIB),
    ],
)
def test_a_mark_stands_for_a_block_until_there_would_be_too_many(disk_bytes, stands_for):
    assert granularity(disk_bytes) == stands_for
    assert disk_bytes <= stands_for * MAX_MARKS
