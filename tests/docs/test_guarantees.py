"""Every promise names the test that proves it, and each of these tests exists."""

import re

from tests.docs.pages import ROOT

PAGE = ROOT / "daemon/docs/guarantees.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_promise_names_a_test_that_exists() -> None:
    """A test that is renamed or removed is renamed or replaced on the page."""
    promises = PAGE.read_text().split("\n- ")[1:]
    assert len(promises) > 50
    for promise in promises:
        tests = NAMED.findall(promise)
        assert tests, f"no test is named: {promise.splitlines()[0]}"
        for file, name in tests:
            path = ROOT / file
            assert path.exists(), f"{file} does not exist"
            assert re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE), f"{file}::{name}"
