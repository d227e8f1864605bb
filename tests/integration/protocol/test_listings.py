"""Every listing can be read in pages, and all records from any position."""

import json
import random
from pathlib import Path
from typing import Any

from tests.helpers.daemon import running_daemon
from tests.helpers.raw_client import Raw, batch, checkpoint, event, job, setting


def _paged(raw: Raw, op: str, arguments: dict[str, Any], limit: int) -> list[Any]:
    """All of a listing, page by page."""
    items: list[Any] = []
    given = {**arguments, "limit": limit}
    while True:
        answer = raw.ask(op, given)
        assert len(answer.value) <= limit
        items += answer.value
        if "next" not in answer.header:
            return items
        assert len(answer.value) == limit
        given["after"] = answer.header["next"]


def test_every_listing_can_be_read_in_pages(tmp_path: Path) -> None:
    """For each page size the pages joined are the listing; ties don't fall between two pages."""
    rng = random.Random(7)
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(24):
            tied = rng.randrange(4)
            raw.store("storeJob", job(f"job{n}", startedAt=1000 + tied / 2))
            raw.store("storeRunSetting", setting(f"run{n}", jobId=f"j{tied}", updatedAt=1000 + tied / 2))
            raw.store("storeCheckpoint", checkpoint(f"c{n}", jobId="j", stepNumber=tied))
            timestamp = 2000 + tied / 4
            raw.store("storeEvent", event(f"e{n}", jobId="j", timestamp=timestamp, stepNumber=n % 3))
        run = {"jobId": "j", "runId": "r1"}
        for op, arguments in (
            ("getAllJobs", {}),
            ("getAllRuns", {}),
            ("getCheckpointsByJobId", {"jobId": "j"}),
            ("getEventsByRun", run),
            ("getEventContents", run),
            ("getEventContents", {**run, "maxStep": 1}),
        ):
            whole = raw.ask(op, arguments)
            assert "next" not in whole.header
            assert len(whole.value) == (16 if "maxStep" in arguments else 24)
            for limit in (1, 2, 3, 5, 8, 23, 24, 25, 10**9):
                assert _paged(raw, op, arguments, limit) == whole.value, (op, limit)
        contents = raw.ask("getEventContents", run).value
        assert contents == sorted(contents, key=lambda found: found["timestamp"])
        stored = {
            record["value"]["id"]: record["position"] for record in raw.read_all() if "id" in record["value"]
        }
        order = [(found["timestamp"], stored[found["id"]]) for found in contents]
        assert order == sorted(order)


def test_read_all_goes_on_from_any_position(tmp_path: Path) -> None:
    """From the middle of a batch too, without events that repeat an earlier one; `next` is always there."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(10):
            values = [
                ("storeEvent", json.dumps(event(f"e{n}")).encode()),
                ("storeEvent", json.dumps(event("again")).encode()),
                ("storeJob", json.dumps(job("same")).encode()),
                ("storeEvent", json.dumps(event(f"e{n}")).encode()),
            ]
            items, body = batch(values)
            raw.ask("store", body, items=items)
        everything = raw.ask("readAll").value
        # Of each four the last repeats the first; "again" is new once; jobs are all kept.
        assert [r["position"] for r in everything] == sorted(
            [1 + 4 * n for n in range(10)] + [2] + [3 + 4 * n for n in range(10)]
        )
        assert [r["op"] for r in everything[:3]] == ["storeEvent", "storeEvent", "storeJob"]
        times = [r["time"] for r in everything]
        assert times == sorted(times)
        for after in range(41):
            answer = raw.ask("readAll", {"after": after})
            assert answer.value == [r for r in everything if r["position"] > after]
            assert answer.header["next"] == 40
        for limit in (1, 2, 3, 7, 40, 50):
            after, found = 0, []
            while after < 40:
                answer = raw.ask("readAll", {"after": after, "limit": limit})
                found += answer.value
                assert answer.header["next"] == min(after + limit, 40)
                after = answer.header["next"]
            assert found == everything
