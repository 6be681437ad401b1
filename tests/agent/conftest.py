"""Fixtures of agents."""

import pytest

from support.nodes import two_nodes


@pytest.fixture
async def nodes(short_dir, guest_files, accelerator_file):
    async with two_nodes(short_dir, guest_files, accelerator_file) as nodes:
        yield nodes
