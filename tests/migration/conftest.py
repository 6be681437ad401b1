"""Fixtures of migrations."""

import pytest

from support.pair import Pair


@pytest.fixture
async def pair(make_driver, short_dir):
    return Pair(make_driver, short_dir)
