"""The page while agents store: it grows by itself, and rides out a kill of the daemon."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import running_inspector
from tests.inspector import runs
from tests.inspector.browsing import at
from tests.inspector.storing import store


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base") as daemon:
        yield daemon


@pytest.fixture
def page(context: BrowserContext, daemon: RunningDaemon) -> Iterator[Page]:
    with running_inspector(daemon, "--timeout", "2") as inspector:
        page = context.new_page()
        page.goto(inspector.address)
        yield page
        page.close()  # its streams end before the inspector


def test_a_job_appears_and_grows_by_itself(page: Page, daemon: RunningDaemon) -> None:
    """In the list, in its waterfall, and its text as it streams, while another process stores."""
    expect(page.locator(".empty")).to_contain_text("No jobs yet")
    calls = runs.completed("job-live", time.time_ns() // 1_000_000)
    middle = next(n for n, (_, value) in enumerate(calls) if value.get("type") == "streamReasoning") + 5
    store(daemon.endpoint, calls[:middle])
    expect(page.locator("a.job .code").first).to_have_text("job-live")
    expect(page.locator("a.job .status").first).to_contain_text("running")
    at(page, "/jobs/job-live/runs/run-1")
    said = "".join(value["delta"] for _, value in calls[:middle] if "delta" in value)
    expect(page.locator("#step-1 .reasoning .text")).to_have_text(said.strip())
    store(daemon.endpoint, calls[middle : middle + 3])
    said += "".join(value["delta"] for _, value in calls[middle : middle + 3])
    expect(page.locator("#step-1 .reasoning .text")).to_have_text(said.strip())
    page.get_by_role("button", name="Live").click()
    store(daemon.endpoint, calls[middle + 3 :])
    expect(page.get_by_role("button", name="Paused")).to_be_visible()
    expect(page.locator(".step")).to_have_count(1)
    page.get_by_role("button", name="Paused").click()
    expect(page.locator(".step")).to_have_count(5)
    expect(page.locator(".head .status")).to_contain_text("completed")


def test_a_kill_of_the_daemon_is_ridden_out(page: Page, daemon: RunningDaemon) -> None:
    calls = runs.failed("job-kill", time.time_ns() // 1_000_000)
    store(daemon.endpoint, calls[:40])
    at(page, "/jobs/job-kill/runs/run-1?view=events")
    expect(page.locator(".events > li").last).to_be_visible()
    daemon.kill()
    expect(page.locator(".trouble")).to_be_visible()
    daemon.start()
    store(daemon.endpoint, calls[40:])
    expect(page.locator(".events > li").last).to_contain_text("stopRunByError")
    expect(page.locator(".trouble")).to_have_count(0)
    events = sum(op == "storeEvent" for op, _ in calls)
    expect(page.locator(".about")).to_contain_text(f"{events} events")
