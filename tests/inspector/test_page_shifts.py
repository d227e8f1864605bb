"""Nothing jumps: the cumulative layout shift of each screen, as it loads and as agents store, in Chromium.

The sum of all shifts that no input caused is at least the figure of the field, which calls 0.1 good.
"""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Inspector
from tests.inspector import runs
from tests.inspector.browsing import at, load
from tests.inspector.storing import store

GOOD = 0.1
WIDE, NARROW = 1180, 400
OBSERVER = """(() => {
    window.shifts = []
    const take = list => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value)
    }
    new PerformanceObserver(take).observe({ type: "layout-shift", buffered: true })
})()"""
SETTLED = """() => new Promise(resolve => {
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(resolve, 50)))
})"""
CONTENT = "a.job, .vertex, table, canvas, .step, .events, .message, .tree, .raw, .list > li"
OVER_JOBS = ("/", "/usage", "/usage?by=run", "/tools", "/errors", "/records/40", "/records/40?view=raw")
OF_A_JOB = (
    "/jobs/job-delegated", "/jobs/job-delegated?tab=graph", "/jobs/job-delegated?tab=runs",
    "/jobs/job-delegated?tab=usage", "/jobs/job-completed?tab=tools", "/jobs/job-failed?tab=errors",
    "/jobs/job-delegated?tab=checkpoints", "/jobs/job-delegated?at=500", "/jobs/job-completed/runs/run-1",
    "/jobs/job-completed/runs/run-1?view=events", "/jobs/job-completed/runs/run-1?view=conversation",
)  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("shifts") / "base") as daemon:
        for _, calls in runs.every(time.time_ns() // 1_000_000):
            store(daemon.endpoint, calls)
        yield daemon


@pytest.fixture
def page(context: BrowserContext, inspector: Inspector) -> Iterator[Page]:
    page = context.new_page()
    page.add_init_script(OBSERVER)
    page.goto(inspector.address)
    yield page
    page.close()


def shift(page: Page) -> float:
    """The sum of the shifts so far, once what is drawn has settled."""
    page.evaluate(SETTLED)
    return float(page.evaluate("window.shifts.reduce((sum, value) => sum + value, 0)"))


def test_a_jump_is_measured(page: Page) -> None:
    expect(page.locator("a.job").first).to_be_visible()
    before = shift(page)
    page.evaluate("document.querySelector('main').style.paddingTop = '400px'")
    assert shift(page) > before + GOOD


@pytest.mark.parametrize(("width", "paths"), [(NARROW, (*OVER_JOBS, *OF_A_JOB)), (WIDE, OF_A_JOB)])
def test_a_screen_that_loads_does_not_jump(page: Page, width: int, paths: tuple[str, ...]) -> None:
    """Also where each answer is late, so that the screen is drawn without it first."""

    def late(route: Route) -> None:
        page.wait_for_timeout(40)
        route.continue_()

    page.set_viewport_size({"width": width, "height": 800})
    page.route("**/api/**", late)
    found = {}
    for path in paths:
        load(page, path)
        expect(page.locator(f"main :is({CONTENT})").first).to_be_visible()
        found[path] = shift(page)
    page.unroute_all(behavior="ignoreErrors")
    assert {path: value for path, value in found.items() if value > GOOD} == {}


@pytest.mark.parametrize(
    "path",
    [
        "/", "/jobs/J", "/jobs/J?tab=graph", "/jobs/J?tab=runs", "/jobs/J?tab=usage", "/jobs/J?tab=tools",
        "/jobs/J?tab=checkpoints", "/jobs/J/runs/run-1", "/jobs/J/runs/run-1?view=events",
    ],
)  # fmt: skip
def test_a_screen_does_not_jump_while_agents_store(page: Page, daemon: RunningDaemon, path: str) -> None:
    """From the first step of a job to its end, in eight bursts."""
    job = "job" + re.sub(r"\W+", "-", path) + "-end"
    calls = runs.delegated(job, time.time_ns() // 1_000_000)
    page.set_viewport_size({"width": NARROW, "height": 800})
    store(daemon.endpoint, calls[:60])
    at(page, path.replace("J", job))
    expect(page.locator(f"main :is({CONTENT}, .empty)").first).to_be_visible()
    loaded = shift(page)
    size = -(-len(calls[60:]) // 8)
    for first in range(60, len(calls), size):
        store(daemon.endpoint, calls[first : first + size])
        page.wait_for_timeout(120)  # the page draws at most each 100 ms
    expect(page.locator(f"a.job:has-text('{job}') .status, .head .status")).not_to_contain_text("running")
    assert shift(page) - loaded <= GOOD
