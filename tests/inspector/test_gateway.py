"""The gateway answers what the client reads, says what is wrong, and keeps secrets."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from perstack_storage import AsyncClient, Client
from perstack_storage._core.reads import Read
from perstack_storage._inspect import limits, slim
from perstack_storage._inspect.following import Filter
from perstack_storage._inspect.live import Hub
from perstack_storage._inspect.routes import ROUTES
from perstack_storage._inspect.source import Source, Wanted
from tests.docs.pages import ROOT
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import COMMAND, Inspector, running_inspector, stream
from tests.helpers.raw_client import Raw, event, session, setting
from tests.helpers.replay import METHODS, calls_of

SECRET = "sk-very-secret"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("gateway") / "base") as daemon:
        with Client(daemon.endpoint) as client:
            with client.pipeline() as pipeline:
                for run in "ab":
                    for op, value in calls_of(run, f"job-{run}"):
                        getattr(pipeline, METHODS[op])(value)
            secret = {**setting("run-s"), "env": {"KEY": SECRET}, "perstackApiKey": SECRET}
            client.store_run_setting({**secret, "jobId": "job-s"})
            client.redact_run_setting({**secret, "jobId": "job-t"})  # of other secrets, these are left
        yield daemon


@pytest.fixture(scope="module")
def inspector(daemon: RunningDaemon) -> Iterator[Inspector]:
    with running_inspector(daemon) as inspector:
        yield inspector


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint, timeout_s=120) as client:  # a value of 70 MB, beside load
        yield client


def pages(inspector: Inspector, path: str) -> list[Any]:
    items: list[Any] = []
    after = ""
    while True:
        page = inspector.get(f"{path}{after}")
        items += page["items"]
        if page["next"] is None:
            return items
        after = f"&after={quote(page['next'])}"


def test_pages_hold_what_the_client_reads(inspector: Inspector, client: Client) -> None:
    assert pages(inspector, "/api/jobs?limit=1") == client.list_jobs()
    assert pages(inspector, "/api/jobs/job-b/runs?limit=2") == client.list_runs(job_id="job-b")
    assert pages(inspector, "/api/runs?limit=4&order=oldest") == client.list_runs(newest_first=False)
    whole = pages(inspector, "/api/jobs/job-a/runs/run1/events?limit=100&omit=")
    assert whole == client.get_event_contents("job-a", "run1")
    assert pages(
        inspector, "/api/jobs/job-a/runs/run1/events?limit=9&types=callTools,completeRun&minStep=3"
    ) == (
        client.get_event_contents(
            "job-a", "run1", types=["callTools", "completeRun"], min_step=3,
            omit=["messages", "newMessage", "newMessages", "step", "checkpoint.messages", "nextCheckpoint"],
        )
    )  # fmt: skip
    assert pages(inspector, "/api/jobs/job-b/checkpoints?limit=3&omit=") == (
        client.get_checkpoints_by_job_id("job-b")
    )
    assert inspector.get("/api/jobs/job-a") == client.retrieve_job("job-a")
    assert pages(inspector, "/api/jobs?contains=JOB-B") == client.list_jobs(job_id="job-b")
    assert pages(inspector, "/api/jobs?job=job-a") == client.list_jobs(contains="job-a")


def test_records_come_by_position_whole_and_slim(inspector: Inspector, client: Client) -> None:
    expected = [record for record in client.read_all() if record["value"].get("jobId") == "job-b"]
    for record in expected:
        record.pop("epoch", None)
    found: list[Any] = []
    after = 0
    while True:
        page = inspector.get(f"/api/records?job=job-b&form=whole&limit=500&after={after}")
        found += [record for record in page["items"] if record["op"] != "storeJob"]
        after = page["next"]
        if page["end"]:
            break
    assert found == expected
    slim = inspector.get(f"/api/records?job=job-b&after={found[0]['position'] - 1}&limit=10000")["items"]
    texts = json.dumps(slim)
    assert '"messages"' not in texts
    assert '"delta"' in texts
    assert inspector.get(f"/api/records/{found[3]['position']}") == found[3]
    some = inspector.get("/api/records?job=job-b&types=callTools&ops=storeEvent,storeCheckpoint&limit=10000")
    kinds = {(record["op"], record["value"].get("type")) for record in some["items"]}
    assert kinds == {("storeEvent", "callTools"), ("storeCheckpoint", None)}


def test_a_value_comes_byte_for_byte(daemon: RunningDaemon, inspector: Inspector) -> None:
    """Numbers that no double holds, lone surrogates, and the order of keys stay as they were stored."""
    text = json.dumps(event(jobId="job-n", runId="run-n"))[:-1].encode()
    stored = text + b', "z": 1e400, "n": 123456789012345678901234567890, "a": "\\ud800", "z2": 1.0}'
    with Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", stored, session=session(), seq=1)
    body = inspector.ask("/api/jobs/job-n/runs/run-n/events?omit=").body
    assert stored in body


def test_a_job_is_shown_as_it_was(inspector: Inspector, client: Client) -> None:
    """With `asOf`, by every route that reads a part of it."""
    records = [one for one in client.read_all(job_id="job-b") if one["op"] == "storeCheckpoint"]
    then, last = records[1]["position"], records[-1]["position"]
    values: list[Any] = [one["value"] for one in records]
    of_job = "/api/jobs/job-b"
    found = pages(inspector, f"{of_job}/checkpoints?limit=3&omit=&asOf={then}")
    assert found == client.get_checkpoints_by_job_id("job-b", as_of=then)
    assert found == values[:2]
    run = values[0]["runId"]
    found = pages(inspector, f"{of_job}/runs/{run}/events?limit=100&omit=&asOf={then}")
    assert found == client.get_event_contents("job-b", run, as_of=then)
    assert 0 < len(found) < len(client.get_event_contents("job-b", run)) or values[-1]["runId"] != run
    first, later = values[0]["id"], values[-1]["id"]
    assert inspector.get(f"{of_job}/checkpoints/{first}?asOf={then}") == values[0]
    assert inspector.ask(f"{of_job}/checkpoints/{later}?asOf={then}").status == 404
    assert inspector.ask(f"{of_job}/diff?from={first}&to={later}&asOf={then}").status == 404
    assert inspector.get(f"{of_job}/diff?from={first}&to={later}&asOf={last}")["to"]["checkpoint"] == later
    assert inspector.get(f"{of_job}?asOf={last}") == client.retrieve_job("job-b", as_of=last)
    answer = inspector.ask(f"{of_job}?asOf={last + 1_000_000}")
    assert (answer.status, answer.error["code"], answer.error["field"]) == (410, "POSITION_GONE", "asOf")


@pytest.mark.parametrize(
    ("path", "status", "code", "field"),
    [
        ("/api/nothing", 404, "NOT_FOUND", None),
        ("/api/jobs/unknown", 404, "NOT_FOUND", "job"),
        ("/api/jobs/job-a/checkpoints/unknown", 404, "NOT_FOUND", None),
        ("/api/jobs/job-a/diff?from=unknown&to=unknown", 404, "NOT_FOUND", None),
        ("/api/jobs/job-a/diff?from=unknown", 400, "BAD_REQUEST", "to"),
        ("/api/records/999999999", 404, "NOT_FOUND", None),
        ("/api/records/0", 400, "BAD_REQUEST", "position"),
        ("/api/records/1_0", 400, "BAD_REQUEST", "position"),
        ("/api/jobs?limit=0", 400, "BAD_REQUEST", "limit"),
        ("/api/jobs?limit=" + "9" * 400, 400, "BAD_REQUEST", "limit"),
        ("/api/jobs?limit=1&limit=2", 400, "BAD_REQUEST", "limit"),
        ("/api/jobs?since=never", 400, "BAD_REQUEST", "since"),
        ("/api/jobs?order=up", 400, "BAD_REQUEST", "order"),
        ("/api/jobs?after=%7B", 400, "BAD_REQUEST", "after"),
        ("/api/jobs?after=%7B%7D", 400, "BAD_REQUEST", "after"),
        ("/api/jobs?more=1", 400, "BAD_REQUEST", "more"),
        ("/api/jobs?status=" + "x" * 201, 400, "BAD_REQUEST", "status"),
        ("/api/jobs?status=" + "x" * 20_000, 413, "TOO_LARGE", None),
        ("/api/jobs/" + "x" * 201, 400, "BAD_REQUEST", "job"),
        ("/api/jobs/%1b", 400, "BAD_REQUEST", "job"),
        ("/api/records?run=r", 400, "BAD_REQUEST", "job"),
        ("/api/stream?run=r", 400, "BAD_REQUEST", "job"),
        ("/api/stream?after=-1", 400, "BAD_REQUEST", "after"),
        ("/api/stream?form=jobs&job=j", 400, "BAD_REQUEST", "form"),
        ("/api/records?after=999999999", 410, "POSITION_GONE", "after"),
    ],
)
def test_an_error_has_a_code_and_names_the_field(
    inspector: Inspector, path: str, status: int, code: str, field: str | None
) -> None:
    answer = inspector.ask(path)
    assert (answer.status, answer.error["code"], answer.error.get("field")) == (status, code, field)
    assert answer.error["message"]


@pytest.mark.parametrize("job", ["job-s", "job-t"])
def test_secrets_of_run_settings_never_leave(inspector: Inspector, job: str) -> None:
    """The inspector's own user may read them all: it masks what the daemon would not mask for it."""
    last = inspector.ask(f"/api/records?after=0&limit=10000&job={job}")
    position = last.json["items"][0]["position"]
    bodies = [
        last.body,
        inspector.ask(f"/api/records?after=0&limit=10000&job={job}&form=whole").body,
        inspector.ask(f"/api/records/{position}").body,
        inspector.ask(f"/api/jobs/{job}/usage").body,
    ]
    with stream(inspector, f"?after={position - 1}&job={job}") as events:
        bodies.append(json.dumps(next(events).data).encode())
    for body in bodies:
        assert b"run-s" in body
        assert SECRET.encode() not in body
    assert all(b'"***"' in body for body in (*bodies[:3], bodies[4].replace(b'": "', b'":"')))


def test_an_etag_saves_the_bytes(inspector: Inspector) -> None:
    first = inspector.ask("/api/jobs/job-a")
    again = inspector.ask("/api/jobs/job-a", {"if-none-match": first.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert inspector.ask("/api/jobs/job-b", {"if-none-match": first.headers["etag"]}).status == 200


def test_only_reads_are_served(inspector: Inspector) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = inspector.ask("/api/jobs", method=method)
        assert (answer.status, answer.error["code"]) == (405, "METHOD_NOT_ALLOWED")
    head = inspector.ask("/api/jobs", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_difference_and_usage_are_those_of_the_command(daemon: RunningDaemon, inspector: Inspector) -> None:
    checkpoints = pages(inspector, "/api/jobs/job-b/checkpoints?limit=100")
    first, last = checkpoints[0]["id"], checkpoints[-1]["id"]
    command = [*COMMAND, "--endpoint", daemon.endpoint, "diff", first, last, "--job", "job-b", "--json"]
    printed = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert inspector.get(f"/api/jobs/job-b/diff?from={first}&to={last}") == json.loads(printed)
    usage = inspector.get("/api/jobs/job-b/usage")
    job = inspector.get("/api/jobs/job-b")
    assert usage["total"]["totalTokens"] == job["usage"]["totalTokens"]
    assert sum(row["usage"]["totalTokens"] for row in usage["runs"]) == job["usage"]["totalTokens"]


def test_the_document_describes_each_route(inspector: Inspector) -> None:
    paths = inspector.get("/api/openapi.json")["paths"]
    assert set(paths) == {route.path for route in ROUTES}
    for route in ROUTES:
        described = {one["name"] for one in paths[route.path]["get"]["parameters"]} - {"Last-Event-ID"}
        assert described == {parameter.name for parameter in route.parameters}


def test_a_large_record_is_cut_in_the_timeline_and_whole_by_its_position(
    inspector: Inspector, client: Client
) -> None:
    text = "x" * 1_000_000
    position = client.store_event(event(jobId="job-l", runId="run-l", text=text, deep=[[text]] * 70))
    page = inspector.ask(f"/api/records?after={position - 1}&job=job-l")
    assert len(page.body) < 200_000
    assert page.json["items"][0]["cut"] is True
    answer = inspector.ask(f"/api/records/{position}")
    assert (answer.status, answer.error["code"]) == (413, "TOO_LARGE")
    position = client.store_event(event(jobId="job-l", runId="run-l", text=text))
    assert inspector.get(f"/api/records/{position}")["value"]["text"] == text


def test_the_page_about_it_has_the_bounds_of_the_code() -> None:
    page = (ROOT / "client/inspector/README.md").read_text()
    for row in (
        f"| connections, streams | {limits.CONNECTIONS_MAX:,}, {limits.STREAMS_MAX:,} |",
        f"| requests at a time | {limits.REQUESTS_MAX}; more wait |",
        f"| an answer | {limits.ANSWER_BYTES_MAX >> 20} MiB, else `TOO_LARGE` |",
        f"| runs read at a time for usage, for tools | {limits.RUN_READS_MAX}, {limits.TOOL_READS_MAX} |",
        f"| remembered of them | the start of {limits.RUN_STARTS_KEPT_MAX:,} runs,"
        f" {limits.TOOLS_KEPT_BYTES_MAX >> 20} MiB of calls |",
        f"| counted of a run's tools | {limits.TOOL_EVENTS_MAX:,} events,"
        f" {limits.TOOL_BYTES_MAX >> 20} MiB read at a time |",
        f"| records kept for all streams | {limits.KEPT_RECORDS_MAX:,}, {limits.KEPT_BYTES_MAX >> 20} MiB |",
        f"| read for lists of jobs | {limits.CHANGES_RECORDS / limits.MERGE_S:,.0f} records a second |",
    ):
        assert row in page


class _Counting(Source):
    """Counts the bytes that came from the daemon."""

    bytes = 0

    async def read(self, *arguments: Any, **named: Any) -> Read:
        """One answer."""
        read = await super().read(*arguments, **named)
        self.bytes += len(read.body)
        return read


def test_a_large_checkpoint_is_not_read_for_a_list(
    daemon: RunningDaemon, inspector: Inspector, client: Client
) -> None:
    """Of 20 MB, as an event has them too, what the page shows comes from the daemon."""
    (found,) = client.get_checkpoints_by_job_id("job-a", limit=1)
    messages = [{"id": "m", "text": "x" * (20 << 20)}]
    large: dict[str, Any] = {**found, "jobId": "job-large", "messages": messages}
    position = client.store_checkpoint(large)
    client.store_event({**event("e-large"), "jobId": "job-large", "checkpoint": large})

    async def read() -> tuple[list[bytes], bytes, int]:
        async with AsyncClient(daemon.endpoint) as asynchronous:
            source = _Counting(asynchronous)
            arguments = {"jobId": "job-large", "omit": ["messages"]}
            listing = await source.listing("getCheckpointsByJobId", arguments)
            records, after = list[bytes](), position - 1
            while after < position + 1:
                some = await source.records(after, 100, Wanted("job-large"))
                records, after = records + some.items, some.next
            return records, listing.items, source.bytes

    records, listed, size = asyncio.run(read())
    assert size < 64 << 10
    assert [json.loads(record)["value"]["id"] for record in records] == [found["id"], "e-large"]
    assert json.loads(listed) == [{k: v for k, v in large.items() if k != "messages"}]
    (shown,) = inspector.get(f"/api/records?job=job-large&after={position - 1}")["items"]
    assert shown == json.loads(records[0])
    assert inspector.get(f"/api/records/{position}")["value"] == large


def test_a_stream_reads_of_a_large_record_what_it_sends(daemon: RunningDaemon) -> None:
    async def follow() -> tuple[bytes, int]:
        async with AsyncClient(daemon.endpoint) as asynchronous:
            source = _Counting(asynchronous)
            hub = Hub(source, "job-live")
            stream = hub.stream(None, Filter(merged=True))
            while b"event: at" not in await anext(stream):
                pass
            await asynchronous.store_event(
                {**event("e-live"), "jobId": "job-live", "messages": ["x" * (1 << 20)]}
            )
            sent = await anext(stream)
            hub.close()
            async for message in stream:
                assert b"STOPPING" in message
            return sent, source.bytes

    sent, size = asyncio.run(follow())
    assert b'"e-live"' in sent
    assert len(sent) < size < 64 << 10


def test_amid_deltas_the_daemon_looks_for_no_fields() -> None:
    delta = {"op": "storeEvent", "value": event("d", type="streamReasoning")}
    other = {"op": "storeEvent", "value": event("e", type="callTools")}
    assert slim.omitted_after([delta, delta, delta, other]) == ()
    assert slim.omitted_after([delta, delta, other]) == slim.TIMELINE_OMIT
    assert slim.omitted_after([{"op": "storeCheckpoint", "value": {"type": "streamReasoning"}}])
