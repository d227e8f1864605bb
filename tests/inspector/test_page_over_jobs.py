"""Usage, tools and errors over all jobs of a period, in a real Chromium."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Inspector
from tests.helpers.raw_client import setting
from tests.inspector import runs
from tests.inspector.browsing import at
from tests.inspector.storing import store

MODELS = {"job-completed": "claude-sonnet-4-5", "job-delegated": "gpt-5", "job-failed": "gpt-5"}
DAY = 86_400_000
OLD_JOBS = 130
"""More than one page of them."""


def model(job: str, name: str) -> runs.Call:
    """The setting of the first run of a job."""
    return ("storeRunSetting", {**setting("run-1"), "jobId": job, "model": name})


def called(job: str, at: int, *, failed: bool) -> list[runs.Call]:
    """A job of a run that called one tool."""
    base = {"jobId": job, "runId": "run", "expertKey": "@acme/caller@1.0.0", "stepNumber": 1}
    call = {"id": "call", "toolName": "listFiles", "skillName": "@perstack/base", "args": {"path": "/"}}
    result = {**call, "result": [{"type": "textPart", "text": "Error: no such folder" if failed else "ok"}]}
    more: list[dict[str, Any]] = [
        {"type": "callTools", "toolCalls": [call]}, {"type": "resolveToolResults", "toolResults": [result]},
    ]  # fmt: skip
    return [
        ("storeEvent", {**base, "id": f"{job}-{n}", "timestamp": at + 40 * n, **fields})
        for n, fields in enumerate(more)
    ]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("over") / "base") as daemon:
        now = time.time_ns() // 1_000_000
        for job, calls in runs.every(now):
            first = [model(job, MODELS[job])] if job in MODELS else []
            store(daemon.endpoint, [*first, *calls])
        old = [called(f"old-{n}", now - 20 * DAY - n * 1000, failed=n == 125) for n in range(OLD_JOBS)]
        store(daemon.endpoint, [call for calls in old for call in calls])
        yield daemon


def rows(page: Page) -> dict[str, list[str]]:
    """The cells of a table's rows by the first one."""
    expect(page.locator("tbody tr").first).to_be_visible()
    found = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in found}


def test_usage_over_time_by_expert_model_and_run(page: Page, inspector: Inspector) -> None:
    """Each run counts once, also where one goes on with the sum of its delegates."""
    job = inspector.get("/api/jobs/job-delegated/usage")
    items = inspector.get("/api/usage")["items"]
    total = sum(item["usage"]["totalTokens"] for item in items if item["usage"] is not None)
    at(page, "/usage?time=1d")
    experts = rows(page)
    for expert in job["experts"]:
        number, *figures = experts[expert["expertKey"]]
        assert (int(number), figures[4]) == (expert["runs"], f"{expert['usage']['totalTokens']:,}")
    expect(page.locator("figcaption")).to_contain_text("by expert")
    expect(page.locator(".plot rect[height]:not([height='0'])").first).to_be_attached()
    page.get_by_role("link", name="By model").click()
    expect(page.locator("figcaption")).to_contain_text("by model")
    models = rows(page)
    assert {name: int(cells[0]) for name, cells in models.items()} == {
        "claude-sonnet-4-5": 1, "gpt-5": 2, "unknown": 6,
    }  # fmt: skip
    tokens = [int(cells[5].replace(",", "")) for cells in models.values()]
    assert sum(tokens) == total > 0
    page.get_by_role("link", name="By run").click()
    expect(page.locator("figcaption")).to_contain_text("by run")
    expect(page.locator("tbody tr")).to_have_count(9)
    row = page.locator("tbody tr", has_text=re.compile("run-1.*job-completed"))
    expect(row).to_contain_text("claude-sonnet-4-5")
    row.get_by_role("link").click()
    expect(page).to_have_url(re.compile("/jobs/job-completed/runs/run-1$"))


def test_usage_says_what_it_counts(page: Page) -> None:
    at(page, "/usage?time=1d&by=job")
    expect(page.locator(".head .dim")).to_have_text("6 jobs")
    expect(page.get_by_role("columnheader", name="Expert of the job")).to_be_visible()
    at(page, "/usage")
    expect(page.locator(".head .dim")).to_have_text(f"{9 + OLD_JOBS} runs")
    page.route("**/api/usage?*", lambda route: route.abort())
    at(page, "/usage?time=7d")
    expect(page.locator(".trouble")).to_be_visible()


def test_tools_count_a_whole_period(page: Page) -> None:
    """Page by page; not only the newest, and it says how many."""
    at(page, "/tools")
    expect(page.locator(".head .dim")).to_contain_text(f"of {6 + OLD_JOBS} jobs, {9 + OLD_JOBS} runs")
    cells = rows(page)["listFiles @perstack/base"]
    assert cells == [f"{OLD_JOBS}", "1", "40 ms", "40 ms", "21 B", f"{2 * (OLD_JOBS - 1) + 21} B"]
    at(page, "/tools?time=1d")
    expect(page.locator(".head .dim")).to_contain_text("of 6 jobs, 9 runs")
    assert "listFiles @perstack/base" not in rows(page)
    assert rows(page)["exec @perstack/base"][:4] == ["1", "1", "1.8 s", "1.8 s"]
    page.locator(".list a").first.click()
    expect(page.locator(".step").first).to_be_visible()


def test_tools_stop_at_their_bound_and_say_so(page: Page) -> None:
    """A page of tools reads 2,000 runs at most, however large the store is."""
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        run = {"jobId": "j", "expertKey": "e", "startedAt": 1, "cut": False, "calls": []}
        items = [{**run, "runId": f"{len(asked)}-{n}"} for n in range(100)]
        route.fulfill(json={"position": 1, "next": "[1,1]", "items": items})

    page.route("**/api/tools?*", answer)
    at(page, "/tools")
    expect(page.locator(".head .dim")).to_have_text(
        "0 calls of 1 jobs, 2,000 runs, the newest; older ones are not counted"
    )
    assert len(asked) == 20


def test_errors_are_of_four_kinds(page: Page) -> None:
    """Also failed tools, and jobs that took as many steps as they may."""
    at(page, "/errors")
    problems = page.locator(".problems li")
    expect(problems).to_have_count(5)
    found = [text.split("\n")[1:2] for text in problems.all_inner_texts()]
    assert found == [["tool failed"], ["error"], ["retry"], ["max steps"], ["tool failed"]]
    expect(problems.nth(0)).to_contain_text("exec: Error: exit status 2")
    expect(problems.nth(1)).to_contain_text("Overloaded")
    expect(problems.nth(3)).to_contain_text("job-exhausted")
    expect(problems.nth(4)).to_contain_text("no such folder")
    page.get_by_role("link", name="Max steps 1").click()
    expect(problems).to_have_count(1)
    expect(page).to_have_url(re.compile("kind=steps"))
    page.get_by_role("link", name="Failed tools 2").click()
    expect(problems).to_have_count(2)
    page.get_by_role("link", name="Jobs 4").click()
    expect(problems).to_have_count(4)
    assert {text.split("\n")[2] for text in problems.all_inner_texts()} == {
        "job-completed", "job-failed", "job-exhausted", "old-125",
    }  # fmt: skip
    at(page, "/errors?time=1d&kind=tool")
    expect(problems).to_have_count(1)
    problems.get_by_role("link", name="step 3").click()
    expect(page.locator("#step-3 .call.failed")).to_be_visible()


def test_errors_say_what_they_are_of(page: Page) -> None:
    """Where there are more runs than it reads events of."""

    def answer(route: Any) -> None:
        kind = "runs" if "/api/runs?" in route.request.url else "jobs"
        run = {"expertKey": "e", "startedAt": 1, "status": None, "lastEventAt": 1, "records": {}}
        items = [
            {**run, "jobId": f"{kind}-{n}", "runId": "r", "eventTypes": {"stopRunByError": 1}}
            for n in range(250)
        ]
        route.fulfill(json={"position": 1, "next": None, "items": items})

    asked: list[str] = []

    def events(route: Any) -> None:
        asked.append(route.request.url)
        event = {"type": "stopRunByError", "id": f"{len(asked)}", "timestamp": 1, "stepNumber": 1}
        route.fulfill(json={"position": 1, "next": None, "items": [event]})

    page.route("**/api/runs?*", answer)
    page.route("**/api/jobs/*/runs/*/events?*", events)
    at(page, "/errors?kind=error")
    expect(page.locator(".about")).to_contain_text("of the newest 200 of 250 runs with such")
    expect(page.locator(".problems li")).to_have_count(200)
    assert len(asked) == 200


def test_a_job_names_its_end_at_the_maximum_of_steps(page: Page) -> None:
    at(page, "/jobs/job-exhausted?tab=errors")
    expect(page.locator(".problems li")).to_contain_text("max steps")
    expect(page.locator(".problems li")).to_contain_text("as many steps as it may")
    at(page, "/jobs/job-exhausted/runs/run-1")
    expect(page.locator(".problem.steps")).to_contain_text("Max steps")
