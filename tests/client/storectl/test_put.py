"""perstack-storectl put, and the exit status of all commands."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from perstack_storage import Client
from tests.client.storectl.given import JOB, event, setting
from tests.helpers.daemon import captured_run
from tests.helpers.storectl import Run


@pytest.mark.parametrize(
    ("layout", "count"),
    [
        (json.dumps, 1),
        (lambda value: json.dumps(value, indent=2), 1),
        (lambda value: "\n" + json.dumps(value) + "\n\n" + json.dumps(value | {"id": "other"}), 2),
    ],
)
def test_put_takes_one_value_or_a_line_for_each(
    run: Run, client: Client, layout: Callable[[Any], str], count: int, request: pytest.FixtureRequest
) -> None:
    job = f"put-{abs(hash(request.node.name))}"
    ran = run("put", "event", "--json", given=layout(event(job, 1)).encode())
    assert (ran.status, ran.error) == (0, "")
    found = list(client.follow(job_id=job, idle_s=0))
    assert [record["position"] for record in found] == [value["position"] for value in ran.values]
    assert len(found) == count


def test_put_takes_every_kind(run: Run, client: Client) -> None:
    calls = captured_run("a")
    job = {**next(value for op, value in calls if op == "storeJob"), "id": "kinds"}
    checkpoint = {**next(value for op, value in calls if op == "storeCheckpoint"), "jobId": "kinds"}
    run_setting = {**setting(), "jobId": "kinds"}
    kinds = {
        "job": job, "checkpoint": checkpoint, "event": event("kinds", 1), "run-setting": run_setting
    }  # fmt: skip
    for kind, value in kinds.items():
        assert run("put", kind, given=json.dumps(value).encode()).out.startswith("stored a value at position")
    values = [record["value"] for record in client.follow(job_id="kinds", idle_s=0)]
    assert values == [job, checkpoint, event("kinds", 1), run_setting]


def test_put_says_which_values_were_refused_and_stores_the_others(run: Run, client: Client) -> None:
    values = [event("refused", 1), event("refused", 2, timestamp="soon"), event("refused", 3)]
    ran = run("put", "event", given="\n".join(map(json.dumps, values)).encode())
    assert ran.status == 1
    assert "value 2: timestamp" in ran.error
    assert "stored 2 values" in ran.out
    assert [e["id"] for e in client.get_event_contents("refused", "r")] == ["e1", "e3"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (b"", "empty"),
        (b"{", "line 1 is not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (json.dumps(event("torn", 1)).encode() + b'\n{"a":', "line 2 is not JSON"),
    ],
)
def test_put_of_what_is_no_value_says_so(run: Run, given: bytes, sentence: str) -> None:
    ran = run("put", "event", given=given)
    assert ran.status == 1
    assert sentence in ran.error
    assert ("1 before it were stored" in ran.error) == (b"torn" in given)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["job", "none"], 1, "job not found: none"),
        (["checkpoint", JOB, "none"], 1, "checkpoint not found: none"),
        (["events", JOB, "none"], 1, "run not found: none"),
        (["checkpoints", "none"], 1, "job not found: none"),
        (["log", "none"], 1, "job not found: none"),
        (["log", JOB, "--run", "none"], 1, "run not found: none"),
        (["job", "jbo1"], 1, "did you mean 'job1'?"),
        (["jbos"], 2, "did you mean 'jobs'?"),
        (["log", "--step", "5-1"], 2, "invalid step"),
        (["log", "--sumary"], 2, "did you mean '--summary'?"),
        (["log", "--step", "x"], 2, "invalid step"),
        (["follow", "--since", "yesterday"], 2, "invalid time"),
        (["follow", "--new", "--last", "3"], 2, "not allowed with"),
        (["job", "a/b"], 1, "BAD_REQUEST"),
        (["follow", "--after", "99999999"], 1, "POSITION_GONE"),
        ([], 2, "usage"),
        (["nothing"], 2, "invalid choice"),
        (["jobs", "--limit", "0"], 2, "integer from 1 on"),
        (["jobs", "--after", "{}"], 2, "invalid cursor"),
        (["put", "thing"], 2, "invalid choice"),
        (["follow", "--run", "r"], 2, "--run needs --job"),
        (["events", "j", "r", "--follow", "--after", "[]"], 2, "--after"),
        (["events", "j", "r", "--idle", "1"], 2, "--idle"),
        (["--timeout", "0", "ping"], 2, "--timeout"),
        (["--timeout", "0.2", "--endpoint", "ipc:///nowhere/none.sock", "ping"], 3, "perstack-stored serve"),
    ],
)
def test_the_exit_status_says_what_happened(
    run: Run, arguments: list[str], status: int, sentence: str
) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert sentence in ran.error


def test_without_a_runtime_folder_a_base_too_deep_is_a_matter_of_usage(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert run("--base-path", "/" + "x" * 120, "ping").status == 2
