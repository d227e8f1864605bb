"""How soon the page shows what is stored, and what an open page costs those who store."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page

from perstack_storage import Client
from tests.inspector.browsing import at

_TIMES = 20
_ROUNDS, _EVENTS = 3, 20_000
_APPEARS = """text => {
    window.appeared = new Promise(resolve => {
        const look = () => document.querySelector("main").innerText.includes(text)
            ? resolve(Date.now()) : requestAnimationFrame(look)
        look()
    })
}"""


def _event(run: str, number: int, **fields: Any) -> Any:
    return {
        "type": "streamReasoning", "id": f"{run}-{number}", "expertKey": "@acme/live@1.0.0",
        "timestamp": time.time_ns() // 1_000_000, "jobId": run, "runId": run, "stepNumber": 1, **fields,
    }  # fmt: skip


def delays(page: Page, client: Client) -> Iterator[str]:
    """How long it takes from a store to the page: for a new job in the list, for text of a run."""
    at(page, "/")
    page.locator(".jobs").wait_for()
    of_jobs = [_delay(page, client, f"new-{n}") for n in range(_TIMES)]
    yield _line("a new job is in the list after", of_jobs)
    client.store_event(_event("text", 0, type="startRun"))
    at(page, "/jobs/text/runs/text")
    page.locator(".live.on").wait_for()
    of_texts = [_delay(page, client, "text", n) for n in range(1, _TIMES)]
    yield _line("streamed text is on the page of its run after", of_texts)


def _delay(page: Page, client: Client, run: str, number: int = 0) -> float:
    """Milliseconds."""
    delta = f"delta-{number}-end"
    page.evaluate(_APPEARS, delta if number else run)
    begun = time.time() * 1000
    client.store_event(_event(run, number, delta=delta))
    return float(page.evaluate("window.appeared")) - begun


def _line(what: str, found: list[float]) -> str:
    return f"{what:<58} {statistics.median(found):>9,.1f} ms, at most {max(found):,.1f}"


def rates(page: Page, client: Client) -> Iterator[str]:
    """How many events a second are stored beside no page, the list, and the waterfall of their job."""
    measured: dict[str, list[float]] = {"no page": [], "the list": [], "its waterfall": []}
    for turn in range(_ROUNDS):
        for beside, found in measured.items():
            run = f"rate-{turn}-{len(beside)}"
            client.store_event(_event(run, 0, type="startRun"))
            if beside != "no page":
                at(page, "/" if beside == "the list" else f"/jobs/{run}")
                page.locator(".jobs" if beside == "the list" else ".live.on").wait_for()
            found.append(_rate(client, run))
            at(page, "/icon.svg")
    alone = statistics.median(measured["no page"])
    for beside, found in measured.items():
        rate = statistics.median(found)
        yield f"stored beside {beside:<44} {rate:>9,.0f} events/s, {rate / alone:.2f} x"


def _rate(client: Client, run: str) -> float:
    started = time.monotonic()
    with client.pipeline() as pipeline:
        for number in range(1, _EVENTS + 1):
            pipeline.store_event(_event(run, number, delta="some words "))
    return _EVENTS / (time.monotonic() - started)
