"""How tests open the page, and store what it shows."""

from playwright.sync_api import Page, expect

from perstack_storage import Client
from tests.helpers.replay import METHODS
from tests.inspector.runs import Call

expect.set_options(timeout=30_000)


def store(endpoint: str, calls: list[Call]) -> list[int]:
    """Store calls in order; returns their positions."""
    with Client(endpoint, timeout_s=90) as client, client.pipeline() as pipeline:
        for op, value in calls:
            getattr(pipeline, METHODS[op])(value)
    return [position for position in pipeline.positions if position is not None]


def at(page: Page, path: str) -> Page:
    """Open an address of the page."""
    scheme, _, host, *_ = page.url.split("/", 3)
    page.goto(f"{scheme}//{host}{path}")
    return page
