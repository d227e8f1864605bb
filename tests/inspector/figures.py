"""Figures of the page in a real Chromium: many jobs, a long job, live.

    python -m tests.inspector.figures [--jobs 100000] [--events 50000] [--rate 2000]

Wall-clock figures mean something on an idle machine only.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, expect, sync_playwright

from perstack_storage import Client
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.inspector import running_inspector
from tests.inspector.browsing import CHROMIUM, at
from tests.inspector.live_figures import delays, rates
from tests.inspector.runs import usage

STATUSES = ("completed", "completed", "completed", "running", "stoppedByError", "stoppedByMaxSteps")
LONG_RUNS, DELTAS = 8, 40
FRAMES = """steps => new Promise(resolve => {
    const times = []
    const next = time => {
        times.push(time)
        steps.shift()?.()
        if (times.length < 120) requestAnimationFrame(next)
        else resolve((times.length - 1) * 1000 / (times.at(-1) - times[0]))
    }
    requestAnimationFrame(next)
})"""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rate", type=int, default=2_000)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        running_daemon(Path(temporary) / "base") as daemon,
        running_inspector(daemon) as inspector,
        Client(daemon.endpoint, timeout_s=300) as client,
        sync_playwright() as playwright,
    ):
        _store_jobs(client, given.jobs)
        _store_long_job(client, given.events)
        eventually(lambda: _is_indexed(client), "the index has all", 300)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context().new_page()
        page.goto(inspector.address)
        _measure_jobs(page, given.jobs)
        _measure_long_job(page)
        _measure_live(page, client, daemon.endpoint, given.rate)
        for line in (*delays(page, client), *rates(page, client)):
            print(line, flush=True)
        browser.close()
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


def _is_indexed(client: Client) -> bool:
    stats = client.stats()
    return bool(stats["index"]["position"] == stats["position"])


def _say(what: str, value: float, unit: str) -> None:
    print(f"{what:<58} {value:>9,.1f} {unit}", flush=True)


def _store_jobs(client: Client, number: int) -> None:
    now = time.time_ns() // 1_000_000
    started = time.monotonic()
    with client.pipeline() as pipeline:
        for n in range(number):
            job: Any = {
                "id": f"job-{n:06}", "coordinatorExpertKey": f"@acme/expert-{n % 40}@1.0.0",
                "status": STATUSES[n % len(STATUSES)], "totalSteps": n % 30, "startedAt": now - n * 9000,
                "usage": usage(1000 + n % 50_000),
            }  # fmt: skip
            pipeline.store_job(job)
    _say(f"{number:,} jobs stored in", time.monotonic() - started, "s")


def _event(run: str, number: int, type: str, step: int, at_ms: float, **fields: Any) -> dict[str, Any]:
    return {
        "type": type, "id": f"{run}-{number}", "expertKey": f"@acme/{run}@1.0.0", "timestamp": at_ms,
        "jobId": "long", "runId": run, "stepNumber": step, **fields,
    }  # fmt: skip


def _store_long_job(client: Client, events: int) -> None:
    now = time.time_ns() // 1_000_000 - 3_600_000
    each = events // LONG_RUNS
    with client.pipeline() as pipeline:
        for n in range(LONG_RUNS):
            run, number, at_ms, step = f"run-{n}", 0, now + n * 5000, 0
            while number < each:
                step += 1
                call = {"id": f"{step}", "toolName": "readTextFile", "skillName": "s", "args": {"path": "/x"}}
                result = {**call, "result": [{"type": "textPart", "text": "lorem ipsum " * 20}]}
                records = [
                    ("startGeneration", {"messages": []}), ("startStreamingReasoning", {}),
                    *[("streamReasoning", {"delta": f"word {delta} and more "}) for delta in range(DELTAS)],
                    ("completeStreamingReasoning", {"text": "word and more " * DELTAS}),
                    ("callTools", {"toolCalls": [call], "usage": usage(3000)}),
                    ("resolveToolResults", {"toolResults": [result]}), ("continueToNextStep", {}),
                ]  # fmt: skip
                for type, fields in records:
                    at_ms += 15
                    pipeline.store_event(_event(run, number, type, step, at_ms, **fields))  # type: ignore[arg-type]
                    number += 1


def _paint(page: Page) -> float:
    script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    return float(page.evaluate(script))


def _measure_jobs(page: Page, number: int) -> None:
    paints, rows = [], []
    for _ in range(5):
        at(page, "/")
        page.reload(wait_until="commit")
        _wait(page, "a.job")
        rows.append(float(page.evaluate("performance.now()")))
        paints.append(_paint(page))
    _say(f"{number:,} jobs: first contentful paint", sorted(paints)[2], "ms")
    _say("  first rows", sorted(rows)[2], "ms")
    page.evaluate("window.steps = Array.from({ length: 120 }, (_, n) => () => scrollTo(0, n * 400))")
    _say("  scrolled", float(page.evaluate(f"({FRAMES})(window.steps)")), "frames/s")
    started = time.monotonic()
    page.locator("input[type=search]").fill("job-0999")
    expect(page.locator("a.job", has_text="job-099900")).to_be_visible(timeout=120_000)
    _say("  a search through all of them", time.monotonic() - started, "s")
    _say("  heap then", _heap(page), "MB")


def _heap(page: Page) -> float:
    session: CDPSession = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    metrics = session.send("Runtime.getHeapUsage")
    session.detach()
    return float(metrics["usedSize"]) / 1e6


def _wait(page: Page, selector: str) -> None:
    """Wait for an element, looking at each frame."""
    script = """selector => new Promise(resolve => {
        const look = () => document.querySelector(selector) ? resolve() : requestAnimationFrame(look)
        look()
    })"""
    page.evaluate(script, selector)


def _measure_long_job(page: Page) -> None:
    whole = []
    for _ in range(3):
        at(page, "/usage")
        at(page, "/jobs/long")
        _wait(page, ".live.on")
        whole.append(float(page.evaluate("performance.now()")))
    _say("the long job: until its waterfall is complete", sorted(whole)[1], "ms")
    _say("  heap", _heap(page), "MB")
    script = """() => {
        const canvas = document.querySelector("canvas")
        const box = canvas.getBoundingClientRect()
        const turn = (n, more) => canvas.dispatchEvent(new WheelEvent("wheel", {
            bubbles: true, cancelable: true, clientX: box.left + 300, clientY: box.top + 60, ...more }))
        window.steps = Array.from({ length: 120 }, (_, n) => () =>
            n < 12 ? turn(n, { deltaY: -100, ctrlKey: true }) : turn(n, { deltaX: 30, shiftKey: true }))
    }"""
    page.evaluate(script)
    _say("  zoomed and scrolled", float(page.evaluate(f"({FRAMES})(window.steps)")), "frames/s")


def _measure_live(page: Page, client: Client, endpoint: str, rate: int) -> None:
    seconds = 10
    at(page, "/jobs/live/runs/run")
    client.store_event({**_event("run", 0, "startRun", 1, time.time() * 1000), "jobId": "live"})
    at(page, "/jobs/live/runs/run?view=events")
    expect(page.get_by_role("button", name="Live")).to_be_visible()
    done = threading.Event()

    def store() -> None:
        with Client(endpoint) as own, own.pipeline() as pipeline:
            started = time.monotonic()
            for n in range(1, rate * seconds + 1):
                value = _event("run", n, "streamReasoning", 1, time.time() * 1000, delta="some words ")
                pipeline.store_event({**value, "jobId": "live"})
                if n % 50 == 0:
                    time.sleep(max(0.0, started + n / rate - time.monotonic()))
        _say("live: events stored", rate * seconds / (time.monotonic() - started), "per second")
        done.set()

    thread = threading.Thread(target=store)
    thread.start()
    lags = []
    while not done.is_set():
        page.wait_for_timeout(500)
        lags.append(_lag(page, client))
    thread.join()
    started = time.monotonic()
    expect(page.locator(".about")).to_contain_text(f"{rate * seconds + 1:,} events", timeout=60_000)
    _say("  most events that the page was behind", max(lags, default=0), "events")
    _say("  all of them shown after the last store", (time.monotonic() - started) * 1000, "ms")


def _lag(page: Page, client: Client) -> float:
    stored = client.list_runs(job_id="live")[0]["records"]["events"]
    text = page.locator(".about").inner_text()
    shown = int(text.partition(" events")[0].rpartition(", ")[2].replace(",", ""))
    return max(0, stored - shown)


if __name__ == "__main__":
    main()
