"""A real Prometheus scrapes a real controller."""

import asyncio
import json
import subprocess
from contextlib import asynccontextmanager

import httpx

from support.clusters import bind

CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: novacron
    authorization: {{credentials_file: {token}}}
    static_configs: [{{targets: ["{target}"]}}]
  - job_name: stranger
    static_configs: [{{targets: ["{target}"]}}]
"""


@asynccontextmanager
async def prometheus(directory, target, token):
    """A Prometheus that scrapes ``target``; asks it a query."""
    (directory / "token").write_text(token)
    config = directory / "prometheus.yml"
    config.write_text(CONFIG.format(token=directory / "token", target=target))
    with bind() as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address={address}",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}/api/v1", trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def value(client, query: str) -> float:
    """Of a query, once Prometheus has an answer."""
    async with asyncio.timeout(30):
        while True:
            try:
                found = (await client.get("/query", params={"query": query})).json()["data"]["result"]
            except (httpx.TransportError, json.JSONDecodeError, KeyError):  # it is starting
                found = []
            if found:
                return float(found[0]["value"][1])
            await asyncio.sleep(0.1)


async def test_prometheus_reads_the_metrics_by_the_clusters_token(controller, url, tmp_path):
    async with prometheus(tmp_path, url.removeprefix("http://"), controller.admin_token) as asked:
        assert await value(asked, 'up{job="novacron"}') == 1
        assert await value(asked, 'up{job="stranger"}') == 0
        assert await value(asked, 'novacron_nodes{state="ready"}') == 0
        assert await value(asked, "process_cpu_seconds_total") > 0
        told = (await asked.get("/targets/metadata", params={"metric": "novacron_migrations_total"})).json()
        assert told["data"][0]["type"] == "counter"


async def test_prometheus_finds_nothing_wrong_with_the_names(client, url):
    text = (await client.get(f"{url}/metrics")).content
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
