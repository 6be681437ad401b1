"""Stock QEMU as a peer."""

import pytest

from novacron.core.units import MIB
from novacron.launch.lab.lab import open_lab
from novacron.launch.lab.link import Link
from novacron.launch.stock.contender import POST_COPY
from novacron.launch.stock.race import Entry, race
from support.pair import QUIET

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("qemu-2")]
SITES = ("a", "b")
STRICT_MS = 1  # pre-copy would have to come down to so little


async def test_post_copy_lets_the_guest_run_before_all_of_it_is_there(guest_files):
    async with open_lab(Link(125_000_000, delay_ms=1), SITES) as lab:
        result = await race(lab, SITES, POST_COPY, Entry(guest_files, 128 * MIB, QUIET, STRICT_MS, give_up_s=60))
    assert result.figures.converged
    assert result.figures.post_copy_bytes > 0
    assert result.errors == 0
