"""The page while agents store: it grows by itself, whatever is late, fails, or is killed."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.inspector import runs
from tests.inspector.browsing import at
from tests.inspector.storing import store


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("live") / "base") as daemon:
        yield daemon


@pytest.fixture
def page(context: BrowserContext, inspector: Inspector) -> Iterator[Page]:
    page = context.new_page()
    page.goto(inspector.address)
    at(page, "/icon.svg")  # has the token now, and asks nothing by itself
    yield page
    page.close()  # its streams end before the inspector


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon with nothing in its base."""
    with running_daemon(tmp_path / "base") as daemon:
        yield daemon


@pytest.fixture
def empty_page(context: BrowserContext, empty: RunningDaemon) -> Iterator[Page]:
    with running_inspector(empty, "--timeout", "2") as inspector:
        page = context.new_page()
        page.goto(inspector.address)
        yield page
        page.close()


def job_of(path: str) -> str:
    """The job that an address of these tests is about: a search of the list, or the job's own page."""
    return re.split("[/=?]", path)[-1 if "?q=" in path else 2]


def status(page: Page) -> Locator:
    """Where its status stands: in its row of the list, or in the head of its own page."""
    return page.locator("a.job .status, .head .status")


def test_a_job_appears_and_grows_by_itself(empty_page: Page, empty: RunningDaemon) -> None:
    """In the list, in its waterfall, and its text as it streams, while another process stores."""
    page, daemon = empty_page, empty
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
    expect(page.get_by_role("button", name="Paused")).to_be_visible()
    store(daemon.endpoint, calls[middle + 3 :])
    expect(page.locator(".step")).to_have_count(1)
    page.get_by_role("button", name="Paused").click()
    expect(page.locator(".step")).to_have_count(5)
    expect(page.locator(".head .status")).to_contain_text("completed")


def fail_once(page: Page, urls: str, status: int = 503) -> list[str]:
    """Answer the next request with an error; returns a list that grows with each request."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.fulfill(status=status, json={"error": {"code": "BUSY", "message": "once"}})
        else:
            route.continue_()

    page.route(urls, answer)
    return asked


def until_asked_again(page: Page, asked: list[str]) -> None:
    """Wait for a second request."""
    end = time.monotonic() + 30
    while len(asked) < 2:
        assert time.monotonic() < end
        page.wait_for_timeout(20)


@pytest.mark.parametrize(
    "path", ["/?q=job-gap-list", "/jobs/job-gap", "/jobs/job-gap-run/runs/run-1?view=events"]
)
def test_nothing_is_missed_between_what_is_read_and_the_stream(
    page: Page, daemon: RunningDaemon, path: str
) -> None:
    """The stream begins late: what was stored since the page was read is shown all the same."""
    job = job_of(path)
    calls = runs.failed(job, time.time_ns() // 1_000_000)
    store(daemon.endpoint, calls[:10])
    late: list[Route] = []
    page.route("**/api/stream*", lambda route: late.append(route))  # noqa: PLW0108 - playwright marks it
    with page.expect_request("**/api/stream*"):
        at(page, path)
    store(daemon.endpoint, calls[10:])
    if "?q=" in path:
        store(daemon.endpoint, runs.completed(f"{job}-new", time.time_ns() // 1_000_000))
    expect(page.locator("main")).to_be_visible()  # events of the browser are handled meanwhile
    late[0].continue_()
    expect(status(page).filter(has_text="error")).to_be_visible()
    expect(page.locator("a.job")).to_have_count(2 if "?q=" in path else 0)


@pytest.mark.parametrize(
    "path", ["/?q=job-down-list", "/jobs/job-down", "/jobs/job-down-run/runs/run-1?view=events"]
)
def test_a_stream_that_is_refused_begins_again(page: Page, daemon: RunningDaemon, path: str) -> None:
    job = job_of(path)
    calls = runs.failed(job, time.time_ns() // 1_000_000)
    store(daemon.endpoint, calls[:10])
    asked = fail_once(page, "**/api/stream*")
    at(page, path)
    until_asked_again(page, asked)
    store(daemon.endpoint, calls[10:])
    expect(status(page)).to_contain_text("error")
    expect(page.locator(".trouble")).to_have_count(0)


def test_a_list_holds_what_is_looked_for_as_that_changes(page: Page, daemon: RunningDaemon) -> None:
    """Of any age: a job comes when it fits, and goes when it is deleted or fits no more."""
    now = time.time_ns() // 1_000_000
    calls = {
        name: runs.completed(f"job-fits-{name}", now - age) for name, age in [("new", 0), ("old", 10**9)]
    }
    store(daemon.endpoint, calls["new"][:-1])
    at(page, "/?q=FITS&status=running")
    expect(page.locator("a.job .code")).to_have_text(["job-fits-new"])
    store(daemon.endpoint, calls["old"][:-1])
    expect(page.locator("a.job .code")).to_have_text(["job-fits-new", "job-fits-old"])
    store(daemon.endpoint, calls["new"][-1:])
    expect(page.locator("a.job .code")).to_have_text(["job-fits-old"])
    with Client(daemon.endpoint) as client:
        client.delete_job("job-fits-old")
    expect(page.locator(".empty")).to_have_text("No job fits.")


def test_a_list_is_read_again_where_any_job_may_have_changed(page: Page, daemon: RunningDaemon) -> None:
    """As where more is stored than a stream of jobs names: what ended goes, what began comes."""
    now = time.time_ns() // 1_000_000
    calls = runs.completed("job-any-old", now)
    store(daemon.endpoint, calls[:-1])
    asked: list[Route] = []
    page.route("**/api/stream*", lambda route: asked.append(route) if not asked else None)
    with page.expect_request("**/api/stream*"):
        at(page, "/?q=job-any&status=running")
    expect(page.locator("a.job .code")).to_have_text(["job-any-old"])
    store(daemon.endpoint, [*calls[-1:], *runs.completed("job-any-new", now + 1)[:-1]])
    body = 'id: 1\nevent: jobs\ndata: {"jobs":null}\n\n'
    asked[0].fulfill(content_type="text/event-stream", body=body)
    expect(page.locator("a.job .code")).to_have_text(["job-any-new"])


def test_a_stream_that_is_silent_begins_again(page: Page, daemon: RunningDaemon) -> None:
    """A connection that is dead without an end, as of a proxy."""
    page.clock.install()
    asked: list[Route] = []
    page.route("**/api/stream*", lambda route: asked.append(route) if not asked else route.continue_())
    with page.expect_request("**/api/stream*"):
        at(page, "/")
    store(daemon.endpoint, runs.completed("job-silent", time.time_ns() // 1_000_000))
    page.clock.fast_forward(36_000)
    expect(page.locator(".trouble")).to_be_visible()
    page.clock.fast_forward(1_000)
    expect(page.locator("a.job", has_text="job-silent")).to_be_visible()
    asked[0].abort()


@pytest.mark.parametrize(
    ("path", "urls"), [("/?q=job-late-list", "**/api/jobs?*"), ("/jobs/job-late", "**/api/jobs/*/runs*")]
)
def test_a_read_that_fails_is_made_again(page: Page, daemon: RunningDaemon, path: str, urls: str) -> None:
    """The first one, and the one that a record of the stream causes."""
    calls = runs.failed(job_of(path), time.time_ns() // 1_000_000)
    store(daemon.endpoint, calls[:-1])
    asked = fail_once(page, urls)
    at(page, path)
    until_asked_again(page, asked)
    expect(page.locator(".trouble")).to_have_count(0)
    page.unroute_all()
    fail_once(page, urls)
    store(daemon.endpoint, calls[-1:])  # one record causes one read
    expect(status(page)).to_contain_text("error")


def test_a_waterfall_does_without_the_deltas_of_a_long_job(page: Page, daemon: RunningDaemon) -> None:
    """They are counted all the same, come live, and are read where a moment of the past is looked at."""
    calls = long_job("job-long", 6000)
    store(daemon.endpoint, calls[:-2])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    at(page, "/jobs/job-long?tab=runs")
    events = page.locator("tbody td.num").nth(2)
    expect(page.locator(".live.on")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0  # one is drawn 60 times a second
    expect(events).to_have_text(f"{len(calls) - 2:,}")
    store(daemon.endpoint, calls[-2:])
    expect(events).to_have_text(f"{len(calls):,}")
    expect(page.locator(".figures")).to_contain_text(f"{len(calls):,}")
    reads = [url for url in asked if "/api/records?" in url]
    assert reads
    assert all("types=" in url for url in reads)
    page.get_by_role("button", name="One record back").click()
    expect(page.locator(".figures")).to_contain_text(f"{len(calls) - 1:,}")
    expect(events).to_have_text(f"{len(calls) - 1:,}")


def test_a_run_does_without_the_deltas_of_the_others(page: Page, daemon: RunningDaemon) -> None:
    """Its own are all there, and those of another run once that one is looked at."""
    job = "job-of-two"
    calls = long_job(job, 6000)
    of_two: list[runs.Call] = [
        (op, {**value, "runId": "run-2", "id": f"two-{value['id']}"}) for op, value in long_job(job, 30)
    ]
    of_two[0][1]["initialCheckpoint"] = {"delegatedBy": {"runId": "run-1", "toolCallId": "t"}}
    store(daemon.endpoint, [*calls[:3000], *of_two[:20], *calls[3000:], *of_two[20:]])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    at(page, f"/jobs/{job}/runs/run-2?view=events")
    expect(page.locator(".about")).to_contain_text("33 events")
    expect(page.locator(".events")).to_contain_text("30 deltas, 150 B")
    reads = [url for url in asked if "/api/records?" in url]
    assert reads
    assert all("types=" in url for url in reads)
    page.locator(".about").get_by_role("link").click()
    expect(page.locator(".about")).to_contain_text(f"{len(calls):,} events")
    page.get_by_role("link", name="Events").click()
    expect(page.locator(".events")).to_contain_text("6,000 deltas")


def long_job(job: str, deltas: int) -> list[runs.Call]:
    """A run that goes on, with many deltas: also the last events are some."""
    now = time.time_ns() // 1_000_000
    types = ["startRun", "startGeneration", "startStreamingReasoning", *["streamReasoning"] * deltas]
    return [
        (
            "storeEvent",
            {
                "id": f"{job}-{n}", "type": type, "timestamp": now + n, "jobId": job, "runId": "run-1",
                "expertKey": "@acme/long@1.0.0", "stepNumber": 1, "delta": "word ",
            },
        )
        for n, type in enumerate(types)
    ]  # fmt: skip


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
