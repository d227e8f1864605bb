"""How tests open the page."""

from playwright.sync_api import Page, expect

expect.set_options(timeout=30_000)


def at(page: Page, path: str) -> Page:
    """Open an address of the page."""
    scheme, _, host, *_ = page.url.split("/", 3)
    page.goto(f"{scheme}//{host}{path}")
    return page
