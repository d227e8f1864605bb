"""Pictures of each screen, light and dark, for client/inspector/README.md.

python -m tests.inspector.screenshots FOLDER
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from perstack_storage import Client
from tests.helpers.daemon import running_daemon
from tests.helpers.inspector import running_inspector
from tests.helpers.raw_client import setting
from tests.helpers.replay import calls_of
from tests.inspector import runs
from tests.inspector.browsing import CHROMIUM, at
from tests.inspector.storing import store

SIZE = ViewportSize(width=1180, height=720)
NARROW = ViewportSize(width=400, height=780)
MODELS = ("claude-sonnet-4-5", "gpt-5", "gemini-2.5-pro")
CONTENT = "main :is(a.job, .vertex, canvas, table, .step, .events, .list, .message, .tree)"
SCREENS = {
    "jobs": "/",
    "job": "/jobs/job-delegated",
    "graph": "/jobs/captured-b?tab=graph",
    "then": "/jobs/job-delegated?at=700",
    "run": "/jobs/job-completed/runs/run-1?step=2",
    "events": "/jobs/job-completed/runs/run-1?view=events",
    "conversation": "/jobs/job-completed/runs/run-1?view=conversation",
    "record": "/records/973",
    "usage": "/usage?time=1d",
    "models": "/usage?time=1d&by=model",
    "tools": "/tools",
    "errors": "/errors",
}


# The footer names the folder of the base; that of this run says nothing to a reader.
_SHOWN_BASE = "shown => shown.textContent = '/srv/agents/perstack'"


def main(folder: Path) -> None:
    """Take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        running_daemon(Path(temporary) / "perstack") as daemon,
        running_inspector(daemon) as inspector,
        sync_playwright() as playwright,
    ):
        for _, calls in runs.every(time.time_ns() // 1_000_000):
            store(daemon.endpoint, calls)
        store(daemon.endpoint, calls_of("b", "captured-b"))
        with Client(daemon.endpoint) as client:
            runs_of_all = client.list_runs()
        store(daemon.endpoint, [_setting(run) for run in runs_of_all])
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            _take(browser, inspector.address, folder, theme)
        browser.close()


def _setting(run: Any) -> runs.Call:
    """The setting of a run."""
    model = MODELS[len(run["expertKey"]) % len(MODELS)]
    return ("storeRunSetting", {**setting(run["runId"]), "jobId": run["jobId"], "model": model})


def _take(browser: Browser, address: str, folder: Path, theme: str) -> None:
    context = browser.new_context(color_scheme="dark" if theme == "dark" else "light", viewport=SIZE)
    page = context.new_page()
    page.goto(address)
    for name, path in SCREENS.items():
        at(page, path)
        expect(page.locator(CONTENT).first).to_be_visible()
        _picture(page, folder / f"{name}-{theme}.png")
    at(page, "/jobs/job-completed?tab=checkpoints")
    page.get_by_role("link", name="what changed").nth(1).click()
    expect(page.locator(".message.plus").first).to_be_visible()
    _picture(page, folder / f"difference-{theme}.png")
    page.set_viewport_size(NARROW)
    at(page, "/jobs/job-delegated")
    expect(page.locator("canvas")).to_be_visible()
    _picture(page, folder / f"narrow-{theme}.png")
    context.close()


def _picture(page: Page, path: Path) -> None:
    page.locator("footer.foot .code").evaluate(_SHOWN_BASE)
    page.screenshot(path=path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
