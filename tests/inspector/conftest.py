"""A real Chromium on a real inspector."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    sync_playwright,
)

from perstack_storage._inspect.page import built_page
from tests.helpers.daemon import RunningDaemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.inspector.browsing import CHROMIUM

_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; left out where it, or the built page, is missing, but not in CI."""
    missing = (
        "chromium-headless-shell" if CHROMIUM is None else "" if built_page() else "the page (make inspector)"
    )
    if missing and not os.environ.get("CI"):
        pytest.skip(f"missing here: {missing}")
    assert not missing, missing
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's window of its own. Its requests, errors and console are checked at the end.

    Nothing is asked of any other host, no script fails, and nothing breaks the content policy.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    wrong: list[str] = []
    context.on("weberror", lambda error: wrong.append(str(error.error)))

    def on_dialog(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def on_console(message: ConsoleMessage) -> None:
        if _is_wrong(message.text, message.type):
            wrong.append(message.text)

    def on_request(request: Request) -> None:
        if not _is_ours(request.url):
            wrong.append(request.url)

    context.on("dialog", on_dialog)
    context.on("console", on_console)
    context.on("request", on_request)
    yield context
    context.close()
    assert not wrong


@pytest.fixture(scope="module")
def inspector(daemon: RunningDaemon) -> Iterator[Inspector]:
    """An inspector of the module's daemon."""
    with running_inspector(daemon, "--timeout", "2") as inspector:
        yield inspector


@pytest.fixture
def page(context: BrowserContext, inspector: Inspector) -> Page:
    """A window that has the token."""
    page = context.new_page()
    page.goto(inspector.address)
    return page


def _is_ours(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "file://", "blob:"))


def _is_wrong(text: str, type: str) -> bool:
    """Whether a line of the console tells of a fault; an answer with an error, or none, is none."""
    return type == "error" and "Failed to load resource" not in text and "net::ERR" not in text
