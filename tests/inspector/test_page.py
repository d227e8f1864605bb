"""The page, in a real Chromium: what each screen promises."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Inspector
from tests.helpers.replay import calls_of
from tests.inspector import runs
from tests.inspector.browsing import at
from tests.inspector.storing import store


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("page") / "base") as daemon:
        for _, calls in runs.every(time.time_ns() // 1_000_000):
            store(daemon.endpoint, calls)
        for run in "abc":
            store(daemon.endpoint, calls_of(run, f"captured-{run}"))
        yield daemon


def names(page: Page) -> list[str]:
    """The ids in the list of jobs, from top to bottom."""
    found: list[str] = page.locator("a.job .code").all_inner_texts()
    return found


def test_jobs_come_newest_first_with_status_and_figures(page: Page) -> None:
    expect(page.locator("a.job")).to_have_count(9)
    assert names(page)[:6] == [
        "job-completed", "job-delegated", "job-crashed", "job-asking", "job-failed", "job-exhausted",
    ]  # fmt: skip
    words = dict(zip(names(page), page.locator("a.job .status").all_inner_texts(), strict=True))
    for job, word in {
        "completed": "completed", "crashed": "stalled", "asking": "waits for a person", "failed": "error",
        "exhausted": "max steps",
    }.items():  # fmt: skip
        assert words[f"job-{job}"].endswith(word)
    row = page.locator("a.job", has_text="captured-b").inner_text().split("\n")
    assert {"20", "5", "28.8k"} <= set(row)
    assert page.locator("a.job", has_text="job-failed").locator(".num.bad").inner_text() == "2"


def test_jobs_are_searched_and_filtered_and_the_address_keeps_it(page: Page) -> None:
    expect(page.locator("a.job")).to_have_count(9)  # keys are heard now
    page.keyboard.press("/")
    page.keyboard.type("RELEASE-man")
    expect(page.locator("a.job")).to_have_count(1)
    assert names(page) == ["job-delegated"]
    at(page, "/?status=stoppedByError")
    expect(page.locator("a.job")).to_have_count(1)
    page.reload()
    expect(page.locator("a.job .code")).to_have_text("job-failed")
    at(page, "/?expert=main&time=1h")
    expect(page.locator(".empty")).to_have_text("No job fits.")


def test_the_waterfall_nests_runs_by_delegation(page: Page) -> None:
    at(page, "/jobs/job-delegated")
    labels = page.locator(".label")
    expect(labels).to_have_count(4)
    texts = labels.all_inner_texts()
    assert [re.split(r"@1|@2", text)[0].strip() for text in texts] == [
        "@acme/release-manager", "@acme/researcher", "@acme/reviewer", "↳\n@acme/release-manager",
    ]  # fmt: skip
    lefts = [box["x"] for label in labels.all() if (box := label.locator("a").bounding_box()) is not None]
    assert lefts[0] < lefts[1] == lefts[2]
    assert painted(page) > 1000


def painted(page: Page) -> int:
    """Pixels of the waterfall that are drawn."""
    return int(
        page.evaluate(
            """() => {
            const canvas = document.querySelector("canvas")
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
            let painted = 0
            for (let at = 3; at < data.length; at += 4) if (data[at]) painted++
            return painted
        }"""
        )
    )


def test_the_waterfall_obeys_the_keyboard_and_the_mouse(page: Page) -> None:
    at(page, "/jobs/job-delegated")
    canvas = page.locator("canvas")
    canvas.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    expect(canvas).not_to_have_attribute("data-zoom", "")
    page.keyboard.press("0")
    expect(canvas).to_have_attribute("data-zoom", "")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.03, box["y"] + 26 + 17)
    expect(page.locator(".tip")).to_contain_text("first token after 0.42 s")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/jobs/job-delegated/runs/run-child-0$"))


def test_steps_show_the_call_beside_its_result(page: Page) -> None:
    at(page, "/jobs/job-completed/runs/run-1?step=3")
    third = page.locator("#step-3")
    expect(third).to_have_class(re.compile("marked"))
    expect(third.locator(".call.failed")).to_contain_text("make: *** [docs] Error 2")
    expect(third.locator(".arguments")).to_have_text("commandmake docs")
    expect(third.locator(".facts")).to_contain_text("first token 0.42 s")
    call, result = third.locator(".call > div").all()
    left, right = call.bounding_box(), result.bounding_box()
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    expect(page.locator("#step-5 .result")).to_contain_text("The report is ready.")
    at(page, "/jobs/job-failed/runs/run-1")
    expect(page.locator("#step-3 .problem.retry")).to_contain_text("had no tool call")
    expect(page.locator("#step-3 .problem.error")).to_contain_text("Overloaded (status 529, may be tried")


def test_deltas_are_folded_and_can_be_opened(page: Page, daemon: RunningDaemon) -> None:
    at(page, "/jobs/captured-a/runs/run1?view=events")
    lines = page.locator(".events > li")
    with Client(daemon.endpoint) as client:
        events: list[Any] = list(client.get_event_contents("captured-a", "run1"))
    deltas = [event for event in events if event["type"] == "streamReasoning" and event["stepNumber"] == 1]
    stream = lines.filter(has_text="deltas").first
    expect(stream).to_contain_text(f"{len(deltas)} deltas, ")
    assert lines.count() < len(events) / 3
    stream.get_by_role("button").click()
    expect(stream.locator(".deltas .text")).to_have_text("".join(event["delta"] for event in deltas))
    stream.get_by_role("button", name="one by one").click()
    expect(stream.locator(".deltas li")).to_have_count(len(deltas))


def test_the_conversation_is_that_which_the_model_saw(page: Page, daemon: RunningDaemon) -> None:
    at(page, "/jobs/job-completed/runs/run-1?view=conversation")
    with Client(daemon.endpoint) as client:
        last = client.get_checkpoints_by_job_id("job-completed")[-1]
    expect(page.locator(".message")).to_have_count(len(last["messages"]))
    page.locator("select").select_option("1")
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".message.user")).to_contain_text(runs.QUERY)


def test_a_record_has_an_address_by_its_position(
    page: Page, daemon: RunningDaemon, inspector: Inspector
) -> None:
    position = 40
    page.locator(".find input").fill(f"#{position}")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/records/{position}$"))
    with Client(daemon.endpoint) as client:
        record = client.get_event(position)
    expect(page.locator("h1")).to_contain_text(str(record["value"].get("type", "")))
    expect(page.locator(".tree")).to_contain_text(str(record["value"]["id"]))
    page.get_by_role("link", name="As stored").click()
    raw = inspector.ask(f"/api/records/{position}").body.decode()
    expect(page.locator(".raw")).to_have_text(raw)
    page.locator("body").click()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(f"/records/{position + 1}\\?"))
    at(page, "/records/99999999")
    expect(page.locator(".empty")).to_contain_text("Nothing is at this position")


def test_two_checkpoints_are_compared(page: Page) -> None:
    at(page, "/jobs/job-completed?tab=checkpoints")
    page.get_by_role("link", name="what changed").first.click()
    expect(page.locator(".message.plus")).to_have_count(2)
    expect(page.locator(".changes")).to_contain_text("totalTokens")
    expect(page.locator("main")).to_contain_text("4 → 6: 2 added, 4 the same")


def test_usage_counts_each_run_once(page: Page, daemon: RunningDaemon) -> None:
    """The run that goes on begins with the sum of its delegates."""
    at(page, "/jobs/job-delegated?tab=usage")
    with Client(daemon.endpoint) as client:
        job = client.retrieve_job("job-delegated")
    assert job is not None
    table = page.locator("table", has=page.get_by_role("columnheader", name="Expert"))
    expect(table.locator("tbody tr")).to_have_count(3)
    rows = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
    total = sum(int(row[6].replace(",", "")) for row in rows)
    assert total == job["usage"]["totalTokens"]
    expect(page.locator("svg")).to_be_visible()
    at(page, "/usage?by=job")
    expect(page.locator("tbody tr").filter(has_text="release-manager")).to_contain_text(f"{total:,}")
    expect(page.get_by_role("columnheader", name="jobs")).to_be_visible()
    days = page.locator("svg .tick:not([text-anchor])").all_text_contents()
    assert len(days) > 1
    assert len(days) == len(set(days))


def test_tools_and_errors_have_their_views(page: Page) -> None:
    at(page, "/jobs/job-completed?tab=tools")
    row = page.locator("tr", has_text="exec").first
    expect(row).to_be_visible()
    cells = row.locator("td").all_inner_texts()
    assert cells[1:5] == ["1", "1", "1.8 s", "1.8 s"]
    at(page, "/tools")
    expect(page.locator("h2")).to_be_visible()
    expect(page.locator(".head .dim")).to_contain_text("of 9 jobs")
    row = page.locator("tr", has_text="readTextFile").first
    assert int(row.locator("td").all_inner_texts()[1]) > 20
    page.locator(".list a").first.click()
    expect(page.locator(".step").first).to_be_visible()
    at(page, "/jobs/job-failed?tab=errors")
    expect(page.locator(".problems li")).to_have_count(2)
    at(page, "/jobs/captured-b")  # its calls that delegate are in two events each
    expect(page.locator(".tabs a", has_text="Tools")).to_have_text("Tools 22")


def test_a_job_is_shown_as_it_was(page: Page, daemon: RunningDaemon) -> None:
    """At any position, from the journal: what came later is not there, and a run that went on is open."""
    with Client(daemon.endpoint) as client:
        records = [one for one in client.read_all() if one["value"].get("jobId") == "job-delegated"]
    third = [one for one in records if one["op"] == "storeCheckpoint"][2]["position"]
    at(page, f"/jobs/job-delegated?at={third}")
    expect(page.locator(".travel.past")).to_contain_text(f"#{third}")
    expect(page.locator(".label")).to_have_count(1)
    expect(page.locator(".head .status")).to_contain_text("running")
    page.locator(".travel input").focus()
    page.keyboard.press("End")
    expect(page.locator(".label")).to_have_count(4)
    expect(page).to_have_url(re.compile("/jobs/job-delegated$"))
    page.keyboard.press("Home")
    expect(page.locator(".label")).to_have_count(0)
    page.get_by_role("button", name="Back to now").click()
    expect(page.locator(".label")).to_have_count(4)


def test_an_exported_job_opens_without_a_server(page: Page, tmp_path: Path) -> None:
    at(page, "/jobs/job-delegated")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as HTML").click()
    path = tmp_path / "job.html"
    download.value.save_as(path)
    page.goto(path.as_uri())
    expect(page.locator(".label")).to_have_count(4)
    page.locator(".label a").nth(1).click()
    expect(page.locator(".step")).to_have_count(3)
    page.get_by_role("link", name=re.compile("Events")).click()
    expect(page.locator(".events > li").first).to_contain_text("startRun")
    page.locator(".events > li a").first.click()
    expect(page.locator(".tree")).to_contain_text("inputMessages")
    page.goto(f"{path.as_uri()}#/jobs/job-delegated/runs/run-1?view=conversation")
    expect(page.locator(".message").first).to_be_visible()
    expect(page.locator(".trouble")).to_have_count(0)


# --- for everybody -----------------------------------------------------------------------------------

SCREENS = (
    "/", "/usage", "/usage?by=run", "/tools", "/errors", "/jobs/job-delegated",
    "/jobs/job-delegated?tab=graph", "/jobs/job-delegated?tab=runs", "/jobs/job-exhausted?tab=errors",
    "/jobs/job-delegated?tab=usage", "/jobs/job-completed?tab=tools", "/jobs/job-failed?tab=errors",
    "/jobs/job-delegated?tab=checkpoints", "/jobs/job-delegated?at=500", "/jobs/job-completed/runs/run-1",
    "/jobs/job-failed/runs/run-1", "/jobs/job-completed/runs/run-1?view=events",
    "/jobs/job-completed/runs/run-1?view=conversation", "/records/40", "/records/40?view=raw",
)  # fmt: skip
NAMELESS = """() => [...document.querySelectorAll("a, button, input, select, canvas")].filter(element => {
    const label = element.labels?.[0]?.textContent ?? ""
    const own = element.tagName === "SELECT" ? "" : element.textContent
    return ![own, label, element.getAttribute("aria-label") ?? "", element.title].some(text => text.trim())
}).map(element => element.outerHTML)"""
CONTENT = "a.job, .vertex, table, canvas, .text, .tree, .events, .empty, .list"
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


def test_each_screen_can_be_read_by_everybody(page: Page) -> None:
    """In both themes contrast as WCAG's AA has it; names for links and fields; 400 pixels are enough."""
    page.set_viewport_size({"width": 400, "height": 900})
    for path in SCREENS:
        at(page, path)
        expect(page.locator(f"main :is({CONTENT})").first).to_be_visible()
        assert page.evaluate(NAMELESS) == [], path
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
            assert page.evaluate(CONTRAST) == [], f"{path}, {theme}"
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, f"{path} is {wider} pixels too wide"
