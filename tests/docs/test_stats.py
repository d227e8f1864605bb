"""The page on `stats` names every field of the answer, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from perstack_storage import Client, Stats
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
        stats = client.stats()
    fields = set(_fields(dict(stats)))
    assert list(_unfit(stats, Stats, "stats")) == []
    rows = [cells(line) for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w.]+)`", row[0])} == fields


def _unfit(value: Any, hint: Any, name: str) -> Iterator[str]:
    """Fields of the client's type of which the answer has none, or one of another type."""
    if is_typeddict(hint):
        for field, of_field in get_type_hints(hint).items():
            if field not in value:
                yield f"{name}.{field} is missing"
            else:
                yield from _unfit(value[field], of_field, f"{name}.{field}")
    elif get_origin(hint) is dict:
        yield from (text for item in value.values() for text in _unfit(item, get_args(hint)[1], name))
    else:
        types = get_args(hint) or (hint,)
        if type(value) not in types and not (type(value) is int and float in types):
            yield f"{name} is {value!r}, not {hint}"


def _fields(stats: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in stats.items():
        if isinstance(value, dict) and above + name not in BY_NAME:
            yield from _fields(value, f"{above}{name}.")
        else:
            yield above + name
