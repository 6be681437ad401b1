"""The live page, in a real browser."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from web.conftest import batch, ended, migration, move, progress, vm

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
pytestmark = pytest.mark.xdist_group("chromium")


async def violations(page) -> list:
    """What axe finds; run from inside, the page's policy lets no script in from outside."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run()")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]


async def test_an_empty_cluster_says_what_to_do(open_page):
    page = await open_page()
    await expect(page.get_by_role("heading", level=1)).to_have_text("site-a")
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#running-empty")).to_contain_text("novacron migrate VM --to CLUSTER --follow")
    await expect(page.locator("#vms-empty")).to_contain_text("novacron vm create")
    await expect(page.locator("#sites")).to_contain_text("rack-1")
    await expect(page.locator("#sites")).to_contain_text("8 GiB of RAM free")


async def test_a_migration_is_followed_from_its_first_page_to_its_end(cluster, open_page):
    page = await open_page()
    await expect(page.locator("#connection")).to_have_text("live")
    cluster.put("migration", migration())
    card = page.locator("#running article")
    await expect(card).to_contain_text("web-1: site-a → site-b")
    await expect(card.locator("[aria-current=step]")).to_have_text("copy")
    await expect(card).to_contain_text("owner: site-a")
    await expect(card).to_contain_text("72 Mbit/s")
    await expect(card.locator("canvas")).to_be_visible()
    cluster.put("migration", migration(phase="committed", progress=progress(phase="committed", round=3)))
    await expect(card).to_contain_text("owner: site-b")
    await expect(card.get_by_role("button", name="Cancel")).to_be_hidden()
    cluster.put("migration", ended(1))
    await expect(page.locator("#ended details")).to_contain_text("8.1 s, stood still 180 ms, 150 MiB on the wire")
    await expect(page.locator("#running article")).to_have_count(0)
    await expect(page.locator("#said")).to_have_text("migration of web-1: succeeded")


async def test_the_chart_of_a_migration_begins_with_what_was_told_before_the_page_was_open(cluster, open_page):
    begun = migration()["started_at"]
    told = [{"at": begun + second, "progress": progress()} for second in range(40)]
    cluster.series = {migration(number)["id"]: told for number in (1, 2)}
    cluster.put("migration", ended(1))
    cluster.put("migration", ended(2))
    page = await open_page()
    canvas = page.locator("#ended canvas")
    await expect(page.locator("#ended details")).to_have_count(2)
    await expect(canvas).to_have_count(0)
    await page.locator("details").first.locator("summary").click()
    await expect(canvas).to_have_count(1)
    cluster.put("migration", migration(1, outcome=""))
    await expect(page.locator("#running canvas")).to_be_visible()


@pytest.mark.parametrize(("outcome", "words"), [("rolled_back", "rolled back"), ("taken_over", "taken over")])
async def test_a_vm_that_came_back_within_the_window_is_under_way_no_more(cluster, open_page, outcome, words):
    page = await open_page()
    cluster.put("migration", ended(1) | {"phase": "window"})
    await expect(page.locator("#running article")).to_contain_text("owner: site-b")
    cluster.put("migration", ended(1) | {"phase": "window", "outcome": outcome})
    await expect(page.locator("#running article")).to_have_count(0)
    await expect(page.locator("#ended details")).to_contain_text(words)


async def test_the_bar_never_runs_backwards(cluster, open_page):
    page = await open_page()
    cluster.put("migration", migration(progress=progress(done_bytes=400 << 20)))
    bar = page.locator("progress")
    await expect(bar).to_have_js_property("value", 400 / 512 * 0.96)
    cluster.put("migration", migration(progress=progress(done_bytes=420 << 20, total_bytes=900 << 20, round=2)))
    await expect(page.locator("#running article")).to_contain_text("420 MiB of 900 MiB")
    await expect(bar).to_have_js_property("value", 400 / 512 * 0.96)


async def test_an_older_change_that_comes_late_is_passed_over(cluster, open_page):
    cluster.put("migration", migration(progress=progress(round=3)))
    page = await open_page()
    card = page.locator("#running article")
    await expect(page.locator("#connection")).to_have_text("live")
    cluster.put("migration", migration(progress=progress(round=2)), version=5)
    cluster.put("vm", vm(2))
    await expect(page.locator("#vms")).to_contain_text("web-2")
    await expect(card.locator("dd").first).to_have_text("3")


async def test_cancel_asks_first_and_then_says_so_to_the_api(cluster, open_page):
    cluster.put("migration", migration())
    page = await open_page()
    await page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Not now").click()
    assert cluster.posted == []
    await page.get_by_role("button", name="Cancel").click()
    await dialog.get_by_role("button", name="Cancel it").click()
    await expect(page.locator("#said")).to_have_text("cancel was asked for")
    assert cluster.posted == [(f"/api/v1/migrations/{migration()['id']}/cancel", {})]


async def test_a_rollback_is_offered_while_the_window_is_open(cluster, open_page):
    cluster.put("migration", {**ended(1), "phase": "window"})
    page = await open_page()
    await page.get_by_role("button", name="Roll back").click()
    await page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    await expect(page.locator("#said")).to_have_text("rollback was asked for")
    assert cluster.posted[0][0].endswith("/rollback")


async def test_a_batch_is_followed_vm_by_vm_to_its_end(cluster, open_page):
    no_room = {"code": "no_room", "cause": "no node can take web-2", "next_command": "novacron node list"}
    took = {"total_ms": {"value": 95_000, "low": 1, "high": 2}}
    first = move(1, phase="copy", migration_id=migration(1)["id"], done_bytes=50, total_bytes=100, predicted=took)
    page = await open_page()
    await expect(page.get_by_role("heading", name="Batches")).to_be_hidden()
    cluster.put("batch", batch(first, move(2), begins_at=1_700_000_000.0))
    card = page.locator("#batches article")
    await expect(card.get_by_role("heading")).to_have_text("rack-1 → site-b")
    await expect(card).to_contain_text("0 of 2 moved · 1 waiting · the time window opens at")
    await expect(card.locator("tbody tr").first).to_contain_text("copy, expected to take 1:35 min")
    bar = card.locator("progress")
    await expect(bar).to_have_js_property("value", 0.5 * 0.96 / 2)
    cluster.put("batch", batch({**first, "total_bytes": 200}, move(2, outcome="failed", problem=no_room)))
    await expect(card).to_contain_text("no node can take web-2")
    await expect(card).to_contain_text("next: novacron node list")
    await expect(bar).to_have_js_property("value", 0.5 * 0.96 / 2)
    moved = move(1, phase="done", outcome="succeeded")
    cluster.put("batch", batch(moved, move(2, outcome="failed", problem=no_room), outcome="partial"))
    await expect(page.locator("#batches article")).to_have_count(0)
    await expect(page.locator("#ended-batches details")).to_contain_text("done in part")
    await expect(page.locator("#said")).to_have_text("batch to site-b: partial")


async def test_a_batch_is_cancelled_once_that_is_confirmed(cluster, open_page):
    cluster.put("batch", batch(move(1)))
    page = await open_page()
    await page.get_by_role("button", name="Cancel batch").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()
    await expect(page.locator("#said")).to_have_text("cancel was asked for")
    assert cluster.posted == [(f"/api/v1/batches/{batch()['id']}/cancel", {})]
    cluster.put("batch", batch(move(1), cancelling=True))
    await expect(page.get_by_role("button", name="Cancel batch")).to_be_disabled()


async def test_a_migration_that_waits_for_its_window_says_until_when_and_why(cluster, open_page):
    waits = migration(phase="waiting", attempt=1, begins_at=1_700_000_000.0, waits_for="its window is 22:00-05:00 UTC")
    cluster.put("migration", waits)
    page = await open_page()
    note = page.locator("#running article .note")
    await expect(note).to_contain_text("begins at")
    await expect(note).to_contain_text(": its window is 22:00-05:00 UTC")
    await expect(note).not_to_contain_text("attempt")


async def test_a_vm_is_sent_to_a_cluster_that_is_chosen(cluster, open_page):
    cluster.put("vm", vm())
    page = await open_page()
    await page.get_by_role("button", name="Migrate web-1").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("combobox")).to_have_value("site-b")
    await dialog.get_by_role("button", name="Migrate", exact=True).click()
    await expect(page.locator("#said")).to_have_text("the migration of web-1 has begun")
    assert cluster.posted == [("/api/v1/migrations", {"vm": vm()["id"], "to": "site-b"})]


async def test_a_refusal_shows_its_cause_and_the_next_command(cluster, open_page):
    cluster.put("vm", vm())
    cluster.refuse = (409, {"code": "no_room", "cause": "no node has room", "next_command": "novacron node list"})
    page = await open_page(expect_errors=True)
    await page.get_by_role("button", name="Migrate web-1").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Migrate", exact=True).click()
    await expect(dialog).to_contain_text("no node has room")
    await expect(dialog).to_contain_text("Next: novacron node list")


async def test_a_broken_stream_is_said_and_taken_up_again(cluster, open_page):
    page = await open_page(expect_errors=True)
    await expect(page.locator("#connection")).to_have_text("live")
    cluster.cut()
    await expect(page.locator("#connection")).to_contain_text("not live")
    cluster.put("migration", migration())
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#running article")).to_have_count(1)


async def test_a_session_that_has_ended_leads_to_the_sign_in(cluster, open_page):
    cluster.signed_in = False
    page = await open_page(expect_errors=True)
    await page.wait_for_url("**/sign-in")
    await expect(page.get_by_label("Token of this cluster")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_accessible(cluster, open_page, scheme):
    cluster.put("vm", vm())
    cluster.put("migration", migration(1, progress=progress(converging=False, note="will not converge at this rate")))
    cluster.put("migration", ended(2))
    problem = {"code": "link", "cause": "the link broke", "next_command": "novacron migrate web-3 --to site-b"}
    cluster.put("migration", ended(3, "failed", problem=problem))
    cluster.put("batch", batch(move(1), move(2, outcome="failed", problem=problem)))
    cluster.put("batch", batch(move(3, outcome="succeeded"), id="batch-2", outcome="succeeded", started_at=1.0))
    page = await open_page(color_scheme=scheme)
    await expect(page.locator("canvas")).to_be_visible()
    await page.locator("details").first.locator("summary").click()
    assert await violations(page) == []
    assert await violations(await open_page("/sign-in", color_scheme=scheme)) == []


@pytest.mark.parametrize("count", [0, 1, 20])
async def test_it_fits_a_phone(cluster, open_page, count):
    for number in range(count):
        cluster.put("vm", vm(number))
        cluster.put("migration", migration(number) if number % 2 else ended(number))
        cluster.put("batch", batch(move(1, problem={"cause": "its window closes soon " * 9})))
    page = await open_page(viewport={"width": 360, "height": 740})
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#vms tr")).to_have_count(count)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
