"""Usage and calls of tools run by run, over all jobs: what the gateway answers, and what it reads for it."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from perstack_storage import AsyncClient, Client
from perstack_storage._core.reads import Read
from perstack_storage._inspect import limits
from perstack_storage._inspect.kept import Kept
from perstack_storage._inspect.run_tools import Calls, RunTools
from perstack_storage._inspect.run_usage import RunUsage
from perstack_storage._inspect.source import Source
from perstack_storage._inspect.usage import usage_of_job
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.helpers.raw_client import event, setting
from tests.helpers.replay import calls_of
from tests.inspector import runs
from tests.inspector.storing import store

SECRET = "sk-very-secret"
NOW = 1_795_000_000_000


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("listings") / "base") as daemon:
        first = {**setting("run-1"), "jobId": "job-completed", "model": "m-first", "perstackApiKey": SECRET}
        store(daemon.endpoint, [("storeRunSetting", first)])
        for _, calls in runs.every(NOW):
            store(daemon.endpoint, calls)
        store(daemon.endpoint, calls_of("b", "captured-b"))
        late = {**setting("run-child-0"), "jobId": "job-delegated", "model": "m-late"}
        large = {**setting("run-child-1"), "jobId": "job-delegated", "input": {"text": "x" * (2 << 20)}}
        store(daemon.endpoint, [("storeRunSetting", late), ("storeRunSetting", large)])
        yield daemon


@pytest.fixture(scope="module")
def inspector(daemon: RunningDaemon) -> Iterator[Inspector]:
    with running_inspector(daemon) as inspector:
        yield inspector


class Counting(Source):
    """Counts its reads by operation."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(client)
        self.ops: list[str] = []

    async def read(self, op: str, *arguments: Any, **named: Any) -> Read:
        """One answer."""
        self.ops.append(op)
        return await super().read(op, *arguments, **named)


def test_usage_of_runs_is_that_of_their_jobs(inspector: Inspector) -> None:
    """A run that goes on for others does not count theirs again."""
    rows = inspector.get("/api/usage?limit=1000")["items"]
    jobs = {row["jobId"] for row in rows}
    assert len(jobs) == 7
    for job in jobs:
        expected = {run["runId"]: run["usage"] for run in inspector.get(f"/api/jobs/{job}/usage")["runs"]}
        assert {row["runId"]: row["usage"] for row in rows if row["jobId"] == job} == expected
    total = inspector.get("/api/jobs/captured-b")["usage"]["totalTokens"]
    assert sum(row["usage"]["totalTokens"] for row in rows if row["jobId"] == "captured-b") == total
    assert [row["startedAt"] for row in rows] == sorted((row["startedAt"] for row in rows), reverse=True)
    page = inspector.get("/api/usage?limit=2")
    assert page["items"] == rows[:2]
    assert page["next"] is not None


def test_models_are_those_of_the_settings(inspector: Inspector) -> None:
    """Wherever the setting stands in the run; a very large one is not read. Nothing else of it leaves."""
    answer = inspector.ask("/api/usage?limit=1000")
    models = {(row["jobId"], row["runId"]): row["model"] for row in answer.json["items"]}
    assert models["job-completed", "run-1"] == "m-first"
    assert models["job-delegated", "run-child-0"] == "m-late"
    assert models["job-delegated", "run-child-1"] is None
    assert models["job-failed", "run-1"] is None
    assert SECRET.encode() not in answer.body
    for run in inspector.get("/api/jobs/job-delegated/usage")["runs"]:
        assert run["model"] == models["job-delegated", run["runId"]]


def test_usage_of_a_job_reads_no_settings_of_other_jobs(daemon: RunningDaemon) -> None:
    async def read() -> list[str]:
        async with AsyncClient(daemon.endpoint) as client:
            source = Counting(client)
            assert [row["model"] for row in (await usage_of_job(source, "job-completed"))["runs"]] == [
                "m-first"
            ]
            return source.ops

    assert "getAllRuns" not in asyncio.run(read())


def test_calls_of_tools_come_with_their_results(inspector: Inspector, daemon: RunningDaemon) -> None:
    rows = {(row["jobId"], row["runId"]): row for row in inspector.get("/api/tools?limit=200")["items"]}
    calls = rows["job-completed", "run-1"]["calls"]
    assert [call["name"] for call in calls] == [
        "readTextFile", "searchFiles", "exec", "writeTextFile", "attemptCompletion",
    ]  # fmt: skip
    failed = calls[2]
    assert (failed["step"], failed["tookMs"], failed["failed"], failed["resultBytes"]) == (3, 1800, True, 45)
    assert failed["args"] == '{"command":"make docs"}'
    assert failed["error"].startswith("Error: exit status 2")
    with Client(daemon.endpoint) as client:
        events = client.get_event_contents("captured-b", "run1", types=["callTools"])
    named = [call["id"] for one in events for call in one["toolCalls"]]  # type: ignore[typeddict-item]
    assert [call["id"] for call in rows["captured-b", "run1"]["calls"]] == named
    only = inspector.get("/api/tools?only=failed&limit=200")["items"]
    assert [call for row in only for call in row["calls"]] == [failed]
    assert len(only) == len(rows)
    assert inspector.ask("/api/tools?limit=201").error["field"] == "limit"


def test_what_does_not_change_is_read_once(daemon: RunningDaemon) -> None:
    async def read() -> tuple[list[str], list[str]]:
        async with AsyncClient(daemon.endpoint) as client:
            source = Counting(client)
            usage, tools = RunUsage(source), RunTools(source)
            arguments = {"limit": 1000, "newestFirst": True}
            first = await usage.page(arguments), await tools.page(arguments, failed=False)
            assert (await usage.page(arguments), await tools.page(arguments, failed=False)) == first
            ops = source.ops[:]
            job = {"jobId": "job-again", "runId": "run", "type": "callTools", "toolCalls": [{"id": "1"}]}
            await client.store_event({**event("e-again"), **job})
            again = await tools.page(arguments, failed=False)
            assert b"job-again" in again.items
            await client.delete_job("job-again")
            return ops, source.ops[len(ops) :]

    ops, later = asyncio.run(read())
    assert ops.count("listRuns") == 4
    assert ops[-2:] == ["listRuns", "listRuns"]
    assert later == ["listRuns", "getEventContents"]


def test_large_results_do_not_hold_the_others_up(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond the bound of a read ends the run's list, which says so."""
    monkeypatch.setattr(limits, "TOOL_BYTES_MAX", 1 << 20)

    def call(number: int, size: int) -> list[runs.Call]:
        base = {"jobId": "job-large", "runId": "run", "expertKey": "e", "stepNumber": number}
        id = f"call-{number}"
        result = {"id": id, "toolName": "t", "result": [{"type": "textPart", "text": "x" * size}]}
        call = {"type": "callTools", "toolCalls": [{"id": id, "toolName": "t"}]}
        return [
            ("storeEvent", {**base, "id": f"{id}-{n}", "timestamp": NOW + 10 * number + n, **fields})
            for n, fields in enumerate([call, {"type": "resolveToolResults", "toolResults": [result]}])
        ]

    sizes = [500_000, 600_000, 700_000, 2_000_000, 5]
    store(daemon.endpoint, [one for n, size in enumerate(sizes) for one in call(n, size)])

    async def read() -> Any:
        async with AsyncClient(daemon.endpoint) as client:
            page = await RunTools(Source(client)).page({"jobId": "job-large"}, failed=False)
            await client.delete_job("job-large")
            return json.loads(page.items)

    (row,) = asyncio.run(read())
    assert row["cut"] is True
    assert [call["resultBytes"] for call in row["calls"]] == [500_000, 600_000, 700_000, 0]


def test_events_of_any_form_are_taken() -> None:
    calls = Calls()
    base = {"stepNumber": 1, "timestamp": 5.5}
    hostile: list[Any] = [
        None,
        7,
        "x",
        [],
        {},
        {"id": {}, "toolName": [1], "args": "a" * 9999, "skillName": 1},
    ]
    for value in [hostile, None, {"0": 1}, "calls"]:
        calls.take({"type": "callTools", "toolCalls": value, "toolCall": value, **base})
        calls.take({"type": "resolveToolResults", "toolResults": value, "toolResult": value, **base})
    result = {
        "id": {},
        "result": [{"text": {"a": 1}}, {"thinking": "\ud800é"}, {"type": 1}, {"isError": True}],
    }
    calls.take({"type": "resolveToolResults", "toolResults": [result], **base, "timestamp": 7})
    (row,) = (row for row in calls.rows if row["name"] != "?")
    assert (row["tookMs"], row["failed"], len(row["args"])) == (1.5, True, 160)
    assert row["resultBytes"] == len('{"a":1}\n') + len("?é\n".encode()) + len("(1)\n") + len("(part)")


def test_what_is_kept_is_bounded() -> None:
    kept: Kept[str] = Kept(10)
    for number in range(5):
        kept.put(number, f"value {number}", 3)
    assert [kept.get(number) for number in range(3)] == [None, None, "value 2"]
    kept.put(2, "other", 9)
    assert [kept.get(number) for number in (2, 3, 4)] == ["other", None, None]
    kept.put(5, "large", 11)
    assert kept.get(5) is None
