"""Names on the pages are those of the code: files, classes, settings, log events, metrics."""

import re

import pytest

from perstack_stored.config.settings import ITEMS, key_of
from tests.docs.pages import FORMATS, RESULTS, ROOT, cells, pages

SOURCE = ROOT / "daemon/perstack_stored"
CODE = "\n".join(path.read_text() for path in sorted(SOURCE.rglob("*.py")))
# A changelog names what there was, and the benchmark other programs.
LEFT_OUT = (FORMATS, RESULTS, "client/", "CHANGELOG.md", "tests/bench/")
PAGES = [page for page in pages() if not page.startswith(LEFT_OUT)]
SETTINGS = {key_of(item) for item in ITEMS.values()}
PROGRAMS = {"perstack-stored", "perstack-storectl", "perstack-storage-client"}
GUIDE = (ROOT / "deploy/README.md").read_text()


def _named(page: str, pattern: str) -> list[str]:
    return re.findall(f"`({pattern})`", (ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    """From the top, from the package of the daemon, or from the page's own folder."""
    for name in _named(page, r"\w[\w./-]*/[\w.-]+\.(?:py|md|toml|json|sh|mjs)"):
        tops = (ROOT, SOURCE, (ROOT / page).parent)
        assert any((top / name).exists() for top in tops), f"{page}: {name}"


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_methods_exist(page: str) -> None:
    """A word with hyphens is a setting or a program; `Class.method` is one of the daemon's."""
    assert set(_named(page, r"[a-z]+(?:-[a-z]+)+")) <= SETTINGS | PROGRAMS
    for name in _named(page, r"[A-Z]\w+\.[a-z]\w+"):
        owner, _, method = name.partition(".")
        assert re.search(rf"^class {owner}\b", CODE, re.MULTILINE), f"{page}: {name}"
        assert re.search(rf"\bdef {method}\(", CODE), f"{page}: {name}"


def test_the_operators_guide_names_log_events_and_metrics_that_exist() -> None:
    """What a person is to look for can be found."""
    warnings = GUIDE.partition("### What the log warns of")[2].partition("\n## ")[0]
    heads = [line.partition(":")[0] for line in warnings.splitlines() if line.startswith("- `")]
    events = [event for head in heads for event in re.findall(r"`(\w+)`", head)]
    assert len(events) > 20
    assert [event for event in events if f'"{event}"' not in CODE] == []
    watched = GUIDE.partition("### What to watch")[2].partition("\n### ")[0]
    rows = [cells(line)[0] for line in watched.splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`([a-z_]+)[`{]", row)}
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "daemon/docs/metrics.md").read_text()))
    assert len(names) > 10
    assert names <= documented
