"""The page, as Vite has built it into the package: one document, one style sheet, one program."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "page"
NOT_BUILT = (
    "The page of the inspector is not built: a checkout needs Node 20 or newer, and `make inspector`. "
    "Packages bring it. The gateway answers all the same: /api/openapi.json describes it.\n"
)


class Page(NamedTuple):
    """The files of the page."""

    document: bytes
    style: bytes
    script: bytes
    icon: bytes


@cache
def built_page() -> Page | None:
    """The page; None where it is not built."""
    try:
        return Page(
            *((FOLDER / name).read_bytes() for name in ("index.html", "page.css", "page.js", "icon.svg"))
        )
    except OSError:
        return None
