"""`perstack-storectl diff`, and where `follow` begins."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from perstack_storage import Client
from perstack_storage._storectl import following, values
from perstack_storage._views import differences
from tests.helpers.daemon import RunningDaemon, captured_run, running_daemon, under_other_job
from tests.helpers.replay import METHODS
from tests.helpers.storectl import COMMAND, Run, on_terminal, runner
from tests.hostile.texts import HOSTILE, acted_on
from tests.offline.bases import USAGE

JOB = "job-beta"
STOPPED, GOES_ON = "p2ze8oz6d0hy82bwrghl6don", "z30ao866qmkjcqti4m1gxjlf"
BEFORE_LAST, LAST = "ni6gin3ob060uukg441h7mdm", "t4evp56ru7ri8qng4vrv59pg"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One that holds captured run b."""
    with running_daemon(tmp_path_factory.mktemp("diff") / "perstack") as running:
        with Client(running.endpoint) as client, client.pipeline() as pipeline:
            for op, value in captured_run("b"):
                getattr(pipeline, METHODS[op])(under_other_job(value, JOB))
        yield running


@pytest.fixture
def run(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(daemon.base, capsys, monkeypatch)


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint) as client:
        yield client


def checkpoint(job: str, id: str, *messages: Any, **more: Any) -> Any:
    return {
        "id": id, "jobId": job, "runId": "r", "status": "proceeding", "stepNumber": 1, "usage": USAGE,
        "messages": list(messages), "expert": {"key": "k", "name": "n", "version": "v"},
    } | more  # fmt: skip


def message(id: str | None, text: str) -> Any:
    contents = [{"type": "textPart", "text": text}]
    return {"type": "userMessage", "contents": contents} | ({} if id is None else {"id": id})


# --- diff --------------------------------------------------------------------------------------------


def test_status_usage_and_messages_are_compared(daemon: RunningDaemon) -> None:
    place = ["--base-path", str(daemon.base), "--no-pager", "diff", BEFORE_LAST, LAST]
    status, text = on_terminal(place, 80)
    lines = text.splitlines()
    assert status == 0
    assert lines[:10] == [
        "job         job-beta",
        f"checkpoint  {BEFORE_LAST} → {LAST}",
        "status      proceeding → completed",
        "step        10 → 11",
        "context     13.2% → 14.4%",
        "input       22,000 → 24,000  (+2,000)",
        "output      4,400 → 4,800  (+400)",
        "tokens      26,400 → 28,800  (+2,400)",
        "messages    10 → 13: 3 added",
        lines[9],
    ]
    assert lines[9].startswith("+ expert       attemptCompletion(); ")
    assert max(map(len, lines)) == 80


def test_the_difference_as_json_has_the_messages_whole(run: Run, client: Client) -> None:
    (found,) = run("diff", STOPPED, GOES_ON, "--json").values
    after = client.retrieve_checkpoint(JOB, GOES_ON)
    assert found["from"] == {"job": JOB, "checkpoint": STOPPED}
    assert found["fields"]["status"] == {"from": "stoppedByDelegate", "to": "proceeding"}
    assert found["usage"]["totalTokens"] == {"from": 1200, "to": 22800}
    assert found["messages"]["added"] == after["messages"][3:]
    assert found["messages"]["unchanged"] == 3
    (same,) = run("diff", LAST, LAST, "--json").values
    assert (same["fields"], same["usage"], same["messages"]["added"]) == ({}, {}, [])


def test_messages_are_added_removed_changed_and_moved(run: Run, client: Client) -> None:
    one, two, three = message("1", "first"), message("2", "second"), message("3", "third")
    client.store_checkpoint(checkpoint("edits", "a", one, two, three))
    client.store_checkpoint(checkpoint("edits", "b", three, message("1", "FIRST"), message("4", "fourth")))
    lines = run("diff", "--job", "edits", "a", "b").lines
    assert lines[-5:] == [
        "messages    3: 1 added, 1 changed, 1 removed, in another order",
        "- user         second",
        "- user         first",
        "+ user         FIRST",
        "+ user         fourth",
    ]


def test_messages_without_ids_are_compared_by_what_they_are() -> None:
    same = message(None, "a")
    found = differences.between(
        {"messages": [same, same, message(None, "b")]}, {"messages": [same, same, same]}
    ).messages
    assert (found.unchanged, found.added, found.removed) == (2, [same], [message(None, "b")])


def test_checkpoints_of_any_job_are_found(run: Run, client: Client) -> None:
    """By their whole id, or a beginning in the job that is named."""
    assert run("diff", f"{JOB}/{STOPPED[:6]}", f"job-b/{LAST}", "--json").values
    assert run("diff", "--job", "job-b", STOPPED[:6], LAST[:6], "--json").values
    client.store_job({**_job(), "id": "newer", "startedAt": 2**50})
    assert run("diff", STOPPED, LAST).status == 0
    ran = run("diff", STOPPED, "none")
    assert (ran.status, ran.out) == (1, "")
    assert "checkpoint not found: none" in ran.error
    assert "did you mean" in run("diff", "--job", JOB, STOPPED, LAST[:-1] + "X").error


def _job() -> Any:
    return next(value for op, value in captured_run("b") if op == "storeJob")


def test_hostile_values_are_escaped(run: Run, client: Client) -> None:
    nasty: Any = "".join(HOSTILE.values())
    parts = [{"type": nasty}, {"type": "toolCallPart", "toolName": nasty, "args": nasty}]
    odd, more = {"type": nasty, "contents": parts}, {"status": nasty, "metadata": {nasty: {nasty: nasty}}}
    client.store_checkpoint(checkpoint("nasty", "a", 7, None, {}, message(nasty, nasty)))
    client.store_checkpoint(checkpoint("nasty", "b", odd, message(nasty, "x"), [nasty], **more))
    for form in ([], ["--json"], ["--color", "always"]):
        ran = run("diff", "--job", "nasty", "a", "b", *form)
        assert ran.status == 0
        assert acted_on(re.sub(r"\x1b\[\d?\d?m", "", ran.out) + ran.error) == []
        assert not any(line.startswith("fake") for line in ran.lines)


# --- where follow begins -----------------------------------------------------------------------------


def test_follow_begins_with_the_last_records(run: Run, client: Client) -> None:
    everything = [record["position"] for record in client.follow(idle_s=0)]
    some = run("follow", "--last", "5", "--idle", "0", "--json").values
    assert [record["position"] for record in some] == everything[-5:]
    many = run("follow", "--last", "99999", "--idle", "0", "--json").values
    assert [record["position"] for record in many] == everything


def test_follow_begins_with_the_last_events_of_a_type_in_a_run(run: Run, client: Client) -> None:
    of_run = [
        record["position"]
        for record in client.follow(job_id=JOB, run_id="run1", idle_s=0)
        if record["value"].get("type") == "startRun"
    ]
    for count in (1, 2, 999):
        which = ("--job", JOB, "--run", "run1", "--type", "startRun", "--last", str(count))
        found = run("follow", *which, "--idle", "0", "--json").values
        assert [record["position"] for record in found] == of_run[-count:]


def test_follow_begins_at_a_time(run: Run, client: Client) -> None:
    records = client.read_all()
    times = [record["time"] for record in records]
    for wanted in (0, times[0], times[len(times) // 2], times[-1], times[-1] + 10**6):
        expected = [record["position"] for record in records if record["time"] >= wanted]
        start = following.before_time(client, wanted)
        assert [record["position"] for record in records if record["position"] > start] == expected
    assert len(run("follow", "--since", "1h", "--idle", "0", "--json").values) >= len(records)
    later = datetime.fromtimestamp(time.time() + 9000, UTC).isoformat()
    assert run("follow", "--since", later, "--idle", "0") == (0, "", "")


def test_follow_new_prints_only_what_comes(daemon: RunningDaemon, client: Client) -> None:
    command = [*COMMAND, "--base-path", str(daemon.base), "follow", "--new", "--json", "--limit", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = 0
        while process.poll() is None:  # until it has begun
            number += 1
            client.store_checkpoint(checkpoint("new", f"c{number}"))
            time.sleep(0.05)
        (line,) = process.stdout.read().splitlines()
    assert json.loads(line)["value"]["jobId"] == "new"


@pytest.mark.parametrize("columns", [80, 160])
def test_on_a_terminal_records_fit_and_tell_what_happened(daemon: RunningDaemon, columns: int) -> None:
    place = ["--base-path", str(daemon.base), "follow", "--job", JOB, "--limit", "14"]
    status, text = on_terminal(place, columns)
    day, *lines = text.splitlines()
    assert status == 0
    assert re.fullmatch(r"── \d{4}-\d\d-\d\d, UTC[+-]\d\d:\d\d ──", day)
    assert max(map(len, lines)) == columns
    assert lines[1].endswith(f"{JOB}/run1  main: Do it.")
    assert any("job-beta/bylphijvov" in line and "child-0" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "back_s"),
    [("30s", 30), ("15m", 900), ("15 min", 900), ("2h", 7200), ("1d", 86400), ("1.5h", 5400)],
)
def test_times_ago(text: str, back_s: float) -> None:
    assert abs(values.moment(text) - (time.time() - back_s) * 1000) < 5000


def test_times_of_a_calendar_are_local_without_a_zone() -> None:
    assert values.moment("2026-11-23T04:35:52.251Z") == 1795408552251
    assert values.moment("2026-11-23T04:35") == datetime(2026, 11, 23, 4, 35).astimezone().timestamp() * 1000
