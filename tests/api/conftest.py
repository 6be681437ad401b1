"""A real controller without nodes, behind the real API on loopback."""

from contextlib import asynccontextmanager

import httpx
import pytest

from novacron.api.app import create_app
from novacron.api.serving import serving
from novacron.control.controller import Controller
from novacron.core.clock import SystemClock
from support.clusters import bind


@pytest.fixture
async def controller(tmp_path):
    async with Controller.running(
        data_dir=tmp_path / "data", name="site-a", listener=bind(), clock=SystemClock()
    ) as running:
        yield running


@asynccontextmanager
async def served(controller):
    listener = bind()
    async with serving(create_app(controller), listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
async def url(controller):
    async with served(controller) as url:
        yield url


@pytest.fixture
async def client(controller, url):
    headers = {"Authorization": f"Bearer {controller.admin_token}"}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers) as client:
        yield client
