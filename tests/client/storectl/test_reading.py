"""perstack-storectl: each command that reads, and following."""

import json
import signal
import subprocess
from typing import Any

from perstack_storage import Client
from perstack_storage._views import units
from tests.client.storectl.given import JOB, RUN, checkpoint_of, event
from tests.helpers.daemon import RunningDaemon
from tests.helpers.storectl import COMMAND, Run


def test_ping(run: Run, daemon: RunningDaemon) -> None:
    assert run("ping").out.startswith(f"{daemon.endpoint} answered in ")
    (value,) = run("ping", "--json").values
    assert value["endpoint"] == daemon.endpoint
    assert 0 < value["ms"] < 5000


def test_stats(run: Run) -> None:
    names = [line.split()[0] for line in run("stats").lines]
    assert {"position", "journal.syncs", "index.lagRecords", "reads.following"} <= set(names)
    assert run("stats", "--json").values[0]["position"] > 0


def test_jobs_and_job(run: Run, client: Client) -> None:
    client.store_event(event("events-only", 1))
    jobs = client.list_jobs()
    title, *rows = run("jobs").lines
    assert title.split()[:3] == ["JOB", "STATUS", "RUNS"]
    assert [row.split()[0] for row in rows] == [job["jobId"] for job in jobs]
    assert {JOB, "events-only"} <= {job["jobId"] for job in jobs}
    assert run("jobs", "--json").values == jobs
    assert run("jobs", "--status", "completed", "--json").values == client.list_jobs(status="completed")
    assert run("jobs", "--expert", "main", "--json").values == client.list_jobs(expert_key="main")
    assert [value["jobId"] for value in run("jobs", "--json", "--since", "2026-01-01").values] == [JOB]
    assert JOB not in run("jobs", "--until", "2026-01-01").out
    assert run("job", JOB, "--json").values == [client.retrieve_job(JOB)]
    tokens = [line.split()[0] for line in run("job", JOB).lines if "totalTokens" in line]
    assert tokens == ["usage.totalTokens"]
    (started,) = [line.split() for line in run("job", JOB).lines if line.startswith("startedAt")]
    assert started[2:] == units.when(int(started[1])).split()


def test_runs(run: Run, client: Client) -> None:
    runs = client.list_runs()
    title, *rows = run("runs").lines
    assert title.split()[:2] == ["JOB", "RUN"]
    assert [row.split()[:2] for row in rows] == [[v["jobId"], v["runId"]] for v in runs]
    assert run("runs", "--json").values == runs
    assert [value["runId"] for value in run("runs", JOB, "--json").values] == [RUN]
    assert run("runs", JOB).lines[1].split()[:3] == [RUN, "main", "completed"]


def test_settings(run: Run, client: Client) -> None:
    title, *rows = run("settings").lines
    assert title.split()[:2] == ["JOB", "RUN"]
    assert [row.split()[:2] for row in rows] == [[v["jobId"], v["runId"]] for v in client.get_all_runs()]
    assert run("settings", "--json", "--show-secrets").values == client.get_all_runs()


def test_checkpoints_and_checkpoint(run: Run, client: Client) -> None:
    checkpoints = client.get_checkpoints_by_job_id(JOB)
    assert len(checkpoints) == 8
    _, *rows = run("checkpoints", JOB).lines
    assert [row.split()[0] for row in rows] == [checkpoint["id"] for checkpoint in checkpoints]
    assert run("checkpoints", JOB, "--json").values == checkpoints
    first = checkpoints[0]["id"]
    assert run("checkpoint", JOB, first, "--json").values == checkpoints[:1]
    assert run("checkpoint", JOB, first).lines[0].split() == ["id", first]


def test_events(run: Run, client: Client) -> None:
    metas, contents = client.get_events_by_run(JOB, RUN), client.get_event_contents(JOB, RUN)
    _, *rows = run("events", JOB, RUN).lines
    assert [row.split()[2:] for row in rows] == [[str(m["stepNumber"]), m["type"]] for m in metas]
    assert run("events", JOB, RUN, "--json").values == metas
    assert run("events", JOB, RUN, "--json", "--contents").values == contents
    assert run("events", JOB, RUN, "--json", "--contents", "--max-step", "1").values == [
        content for content in contents if content["stepNumber"] <= 1
    ]
    assert run("events", JOB, RUN, "--json", "--max-step", "0").values == []
    assert contents[0]["id"] in run("events", JOB, RUN, "--contents").lines[1]


def test_events_of_the_only_run_and_of_the_newest_job(run: Run, client: Client) -> None:
    """Without RUN it is the only run of the job; several are named, and nothing is chosen among them."""
    expected = client.get_events_by_run(JOB, RUN)
    assert run("events", JOB, "--json").values == expected
    assert len(run("events", JOB, "--json", "--follow", "--idle", "0").values) == len(expected)
    client.store_event(event("forked", 1))
    newest = client.list_jobs(1)[0]["jobId"]
    assert run("events", "--json").values == run("events", newest, "--json").values
    client.store_event(event("forked", 1) | {"runId": "r2"})
    for more in ((), ("--follow", "--idle", "0")):
        found = run("events", "forked", *more)
        assert (found.status, found.lines) == (1, [])
        assert found.error.splitlines()[0].endswith("forked has 2 runs, name one of them:")
        assert {line.strip() for line in found.error.splitlines()[1:3]} == {"r", "r2"}
    assert "job not found: none" in run("events", "none", "--follow").error


def test_what_was_there_at_a_position_or_time(run: Run, client: Client) -> None:
    """By each command that reads one job; a position that is not there is no answer."""
    positions = [client.store_checkpoint(checkpoint_of("then") | {"status": status}) for status in ("a", "b")]
    client.store_event(event("then", 1))
    at = str(positions[0])
    ((id, status),) = [
        (v["id"], v["status"]) for v in run("checkpoints", "then", "--as-of", at, "--json").values
    ]
    assert status == "a"
    assert run("checkpoint", "then", id, "--as-of", at, "--json").values[0]["status"] == "a"
    assert run("checkpoint", "then", id, "--as-of", "2020-01-01").status == 1
    assert run("events", "then", "r", "--as-of", at, "--json").values == []
    assert len(run("events", "then", "r", "--contents", "--as-of", "0s", "--json").values) == 1
    found = run("job", JOB, "--as-of", "0")
    assert (found.status, "as of position 0" in found.error) == (1, True)
    found = run("job", JOB, "--as-of", "99999999")
    assert (found.status, "not in this history" in found.error) == (1, True)
    assert run("job", JOB, "--as-of", "yesterday").status == 2
    assert run("events", "then", "r", "--as-of", at, "--follow").status == 2


def test_a_listing_is_cut_and_gone_on_with(run: Run, client: Client) -> None:
    expected = client.get_events_by_run(JOB, RUN)
    found: list[Any] = []
    more: list[str] = []
    while True:
        ran = run("events", JOB, RUN, "--json", "--limit", "150", *more)
        found += ran.values
        if not ran.error:
            break
        assert "there are more: --after '" in ran.error
        more = ["--after", ran.error.split("'")[1]]
    assert found == expected
    assert len(found) > 300


def test_events_follow_gives_those_that_are_there_in_the_order_stored(run: Run, client: Client) -> None:
    expected = [
        record["value"]
        for record in client.follow(job_id=JOB, run_id=RUN, idle_s=0)
        if record["op"] == "storeEvent"
    ]
    arguments = ("events", JOB, RUN, "--follow", "--idle", "0")
    assert run(*arguments, "--contents", "--json").values == expected
    assert [line.split()[3] for line in run(*arguments).lines] == [value["type"] for value in expected]
    assert len(run(*arguments, "--limit", "3").lines) == 3
    assert {value["stepNumber"] for value in run(*arguments, "--max-step", "1", "--json").values} <= {0, 1}


def test_follow(run: Run, client: Client) -> None:
    records = client.read_all()
    everything = run("follow", "--idle", "0", "--json", "--show-secrets")
    assert everything.values[: len(records)] == records
    some = run("follow", "--after", "5", "--limit", "3", "--json").values
    assert [record["position"] for record in some] == [6, 7, 8]
    lines = run("follow", "--job", JOB, "--run", RUN, "--idle", "0").lines
    assert lines[0].split()[0] == str(client.read_all()[1]["position"])
    assert f"{JOB}/{RUN}" in lines[0]


def test_follow_goes_on_at_a_named_cursor(run: Run, client: Client) -> None:
    """With --commit it moves to what was printed last, and no further."""
    positions = [client.store_event(event("named", number)) for number in range(3)]
    follow = ("follow", "--name", "printer", "--job", "named", "--json", "--idle", "0")
    assert [value["position"] for value in run(*follow).values] == positions
    assert run("cursors", "--json").values == []
    printed = run(*follow, "--commit", "--limit", "2")
    assert (printed.status, [value["position"] for value in printed.values]) == (0, positions[:2])
    (cursor,) = run("cursors", "--json").values
    assert (cursor["name"], cursor["position"]) == ("printer", positions[1])
    assert [value["position"] for value in run(*follow, "--commit").values] == positions[2:]
    assert run(*follow, "--commit").values == []
    title, row = run("cursors").lines
    assert title.split()[:3] == ["CURSOR", "POSITION", "LAG"]
    assert row.split()[0] == "printer"
    missing = run("cursors", "--delete", "print")
    assert (missing.status, "did you mean 'printer'" in missing.error) == (1, True)
    assert run("cursors", "--delete", "printer").out.startswith("deleted cursor printer")
    assert run("cursors", "--json").values == []
    assert run("follow", "--commit").status == 2


def test_follow_goes_on_with_what_is_stored_from_now_on(daemon: RunningDaemon, client: Client) -> None:
    """Each line comes at once, also in a pipe; Ctrl-C ends it without a word."""
    arguments = ["follow", "--job", "followed", "--json", "--base-path", str(daemon.base)]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for number in range(3):
            client.store_event(event("followed", number))
            assert json.loads(process.stdout.readline())["value"] == event("followed", number)
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=120)
    assert (process.returncode, rest, error) == (130, b"", b"")


def test_follow_goes_on_from_a_position_of_the_same_history(run: Run, client: Client) -> None:
    """With --store and --epoch as they were printed; with others it says that the position is gone."""
    client.store_event(event("again", 1))
    newest = run("follow", "--json", "--idle", "0").values[-1]
    place = ("follow", "--json", "--idle", "0", "--after", str(newest["position"]))
    store = client.hello()["store"]
    assert run(*place, "--store", store, "--epoch", newest["epoch"]).status == 0
    for wrong in (("--store", "0" * 32), ("--epoch", "1-0000000000000000")):
        ran = run(*place, *wrong)
        assert ran.status == 1
        assert "POSITION_GONE" in ran.error
