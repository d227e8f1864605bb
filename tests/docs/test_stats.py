"""The page on `stats` names every field of the answer, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.docs.pages import ROOT, cells
from tests.helpers.daemon import running_daemon

PAGE = ROOT / "daemon/docs/stats.md"
BY_NAME = {
    "stored",
    "refused",
    "cursors.lagRecords",
    "connections.failed",
    "connections.cut",
    "connections.paused",
}


def test_every_field_is_on_the_page_and_no_other(tmp_path: Path) -> None:
    """A group is named by its members, but for counts by operation, code or reason."""
    with running_daemon(tmp_path / "base") as daemon, Client(daemon.endpoint) as client:
        fields = set(_fields(client.stats()))
    rows = [cells(line) for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w.]+)`", row[0])} == fields


def _fields(stats: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in stats.items():
        if isinstance(value, dict) and above + name not in BY_NAME:
            yield from _fields(value, f"{above}{name}.")
        else:
            yield above + name
