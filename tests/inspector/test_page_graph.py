"""The graph of delegations on a job's page, in a real Chromium."""

import itertools
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.daemon import running_daemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.inspector import runs
from tests.inspector.browsing import at
from tests.inspector.delegations import COORDINATOR, chain, fan_out
from tests.inspector.storing import store

NODES_MAX = 70
"""What a graph begins with at most, whatever is in it."""


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    with running_daemon(tmp_path_factory.mktemp("graph") / "base") as daemon:
        now = time.time_ns() // 1_000_000 - 3_600_000
        calls = [
            *runs.delegated("job-delegated", now), *runs.completed("job-alone", now),
            *fan_out("job-50", 50, now), *fan_out("job-500", 500, now),
            *chain("job-chain", 500, now), *chain("job-ring", 4, now, ring=True),
        ]  # fmt: skip
        store(daemon.endpoint, calls)
        with running_inspector(daemon, "--timeout", "2") as inspector:
            yield inspector


def graph_of(page: Page, job: str) -> None:
    """Open the graph of a job."""
    at(page, f"/jobs/{job}?tab=graph")
    expect(page.locator(".vertex").first).to_be_visible()
    expect(page.locator(".live.on")).to_be_visible()


def left_of(page: Page, text: str) -> float:
    """Where the first node with a text begins."""
    box = page.locator(".vertex", has_text=text).first.bounding_box()
    assert box is not None
    return box["x"]


def test_it_draws_who_delegated_to_whom(page: Page) -> None:
    graph_of(page, "job-delegated")
    nodes = page.locator(".vertex")
    expect(nodes).to_have_count(4)
    assert left_of(page, "release-manager") < left_of(page, "researcher") == left_of(page, "reviewer")
    expect(page.locator(".graph path.delegates")).to_have_count(2)
    expect(page.locator(".graph path.goes")).to_have_count(1)
    expect(nodes.filter(has_text="researcher")).to_contain_text("completed")
    expect(nodes.first).to_contain_text("delegated")
    expect(page.locator(".graph .tools")).to_contain_text("4 runs, 2 delegations")
    nodes.filter(has_text="reviewer").click()
    expect(page).to_have_url(re.compile("/jobs/job-delegated/runs/run-child-1$"))


def test_it_obeys_the_keyboard(page: Page) -> None:
    graph_of(page, "job-delegated")
    page.locator(".vertex").first.focus()
    for key, text in (
        ("ArrowRight", "researcher"), ("ArrowDown", "reviewer"), ("ArrowUp", "researcher"),
        ("ArrowLeft", "release-manager"), ("Tab", "researcher"),
    ):  # fmt: skip
        page.keyboard.press(key)
        expect(page.locator(".vertex:focus")).to_contain_text(text)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/runs/run-child-0$"))


def test_it_shows_a_moment_of_the_past(page: Page) -> None:
    """And a run that nobody delegated to, alone."""
    graph_of(page, "job-delegated")
    page.locator(".travel input").focus()
    page.keyboard.press("Home")
    expect(page.locator(".vertex")).to_have_count(0)
    graph_of(page, "job-alone")
    expect(page.locator(".vertex")).to_have_count(1)
    expect(page.locator(".graph .tools")).to_contain_text("1 run, 0 delegations")


@pytest.mark.parametrize(
    ("job", "number"), [("job-50", 50), ("job-500", 500), ("job-chain", 500), ("job-ring", 4)]
)
def test_many_runs_are_folded_and_none_is_forgotten(page: Page, job: str, number: int) -> None:
    graph_of(page, job)
    assert counted(page) == number
    assert page.locator(".vertex").count() <= NODES_MAX
    if number > NODES_MAX:
        before = page.locator("a.vertex").count()
        page.locator(".vertex.fold").last.focus()
        page.keyboard.press("Enter")
        expect(page.locator("a.vertex").nth(before)).to_be_attached()
        assert counted(page) == number


def counted(page: Page) -> int:
    """The runs that a graph shows, and those that its folded nodes stand for."""
    folded = page.locator(".vertex.fold b").all_inner_texts()
    return page.locator("a.vertex").count() + sum(int(re.sub(r"\D", "", text)) for text in folded)


def test_of_many_runs_some_that_failed_are_shown(page: Page) -> None:
    graph_of(page, "job-500")
    expect(page.locator(".vertex", has_text=COORDINATOR)).to_have_count(1)
    assert 1 <= page.locator("a.vertex.bad").count() < page.locator("a.vertex").count()
    expect(page.locator(".vertex.fold").last).to_contain_text("completed")


@pytest.mark.parametrize("job", ["job-delegated", "job-500", "job-chain"])
def test_it_can_be_read_at_400_pixels(page: Page, job: str) -> None:
    """Each node is wide enough, none lies over another one, and nothing is outside of the window."""
    page.set_viewport_size({"width": 400, "height": 900})
    graph_of(page, job)
    boxes = [box for node in page.locator(".vertex").all() if (box := node.bounding_box()) is not None]
    assert all(box["width"] >= 180 and box["x"] >= 0 and box["x"] + box["width"] <= 400 for box in boxes)
    rows = sorted((box["y"], box["y"] + box["height"]) for box in boxes)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(rows))
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
