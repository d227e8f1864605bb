"""The C client of `client/c`, built with sanitizers, on a real daemon: it proves the text of wire.md."""

import json
import select
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.client.behaviour.values import event
from tests.client.c.program import JOB, RUN, Interactive, lines, numbers, run_program
from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import setting


def test_without_an_endpoint_the_base_is_that_of_the_environment(
    program: str, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PERSTACK_STORED_ENDPOINT", raising=False)
    for ours, perstack in (("", str(daemon.base)), (str(daemon.base), str(tmp_path / "none"))):
        monkeypatch.setenv("PERSTACK_STORED_BASE", ours)
        monkeypatch.setenv("PERSTACK_STORAGE_PATH", perstack)
        assert run_program(program, "", "events", JOB, RUN) == (0, "[]\n", "")


def test_a_list_of_endpoints_is_refused(
    program: str, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an argument and in the environment; a comma in a path makes no list."""
    monkeypatch.setenv("PERSTACK_STORED_ENDPOINT", f"{daemon.endpoint},tcp://b:7171")
    for given in ("", "tcp://a:7171, tcp://b:7171"):
        status, output, complaints = run_program(program, given, "events", JOB, RUN)
        assert (status, output) == (1, "")
        assert complaints == "a list of endpoints: this client takes one, of one daemon\n"
    monkeypatch.setenv("PERSTACK_STORED_ENDPOINT", daemon.endpoint)
    status, _, complaints = run_program(program, "ipc:///nowhere/a,b,/c,", "events", JOB, RUN, timeout_ms=100)
    assert (status, complaints.split()[0]) == (1, "NO_ANSWER"), complaints


LONG_MS = 3_600_000  # a client that waits for its timeout makes the test fail


@pytest.mark.parametrize("served_before", [False, True])
def test_without_a_socket_and_an_endpoint_it_does_not_wait(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, served_before: bool
) -> None:
    base = tmp_path / "base"
    (base / ".stored" if served_before else base).mkdir(parents=True)
    monkeypatch.delenv("PERSTACK_STORED_ENDPOINT", raising=False)
    monkeypatch.setenv("PERSTACK_STORED_BASE", str(base))
    for words, given in ((("events", JOB, RUN), ""), (("store",), lines(event(JOB, 1)))):
        status, output, complaints = run_program(program, "", *words, given=given, timeout_ms=LONG_MS)
        assert (status, output) == (1, "")
        assert complaints == (
            "NO_DAEMON - there is no socket; a daemon is started with: "
            f"perstack-stored serve --base-path {base}\n"
        )


def test_a_socket_is_waited_for_where_it_was_named_or_the_daemon_was_met(
    program: str, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERSTACK_STORED_ENDPOINT", raising=False)
    monkeypatch.setenv("PERSTACK_STORED_BASE", str(daemon.base))
    met, named = Interactive(program, ""), Interactive(program, daemon.endpoint)
    met.send(event(JOB, 0))
    assert met.position() == 1
    daemon.kill()
    (daemon.base / ".stored/stored.sock").unlink()
    met.send(event(JOB, 1))
    named.send(event(JOB, 2))
    complaints = [client.process.stderr for client in (met, named) if client.process.stderr is not None]
    readable, _, _ = select.select(complaints, [], [], 2.0)
    assert not readable  # both go on waiting
    daemon.start()
    assert {met.position(), named.position()} == {2, 3}
    assert (met.end(), named.end()) == ("", "")


def test_what_is_stored_is_listed(program: str, daemon: RunningDaemon) -> None:
    """Positions grow by one; the listing is larger than an answer may be, so it comes in parts."""
    count = 2000
    status, output, complaints = run_program(
        program, daemon.endpoint, "store", given=lines(*(event(JOB, n) for n in range(count)))
    )
    assert (status, complaints) == (0, "")
    assert output.split() == [str(n) for n in range(1, count + 1)]
    status, output, complaints = run_program(program, daemon.endpoint, "events", JOB, RUN)
    assert (status, complaints) == (0, "")
    assert [found["timestamp"] for found in json.loads(output)] == [
        event(JOB, n)["timestamp"] for n in range(count)
    ]
    assert len(output) > 65536
    assert run_program(program, daemon.endpoint, "events", JOB, "another") == (0, "[]\n", "")


def test_an_error_is_reported_and_the_next_store_follows(program: str, daemon: RunningDaemon) -> None:
    """Code and field; the refused one's number is settled."""
    given = lines(event(JOB, 0), event(JOB, 1, stepNumber=-1), event(JOB, 2)) + "{\n" + lines(event(JOB, 3))
    status, output, complaints = run_program(program, daemon.endpoint, "store", given=given)
    assert status == 1
    assert output.split() == ["1", "2", "3"]
    first, second = complaints.splitlines()
    assert first.startswith("BAD_VALUE stepNumber ")
    assert second.startswith("BAD_JSON - ")
    assert numbers(daemon) == [0, 2, 3]


def test_jobs_and_runs_are_deleted(program: str, daemon: RunningDaemon) -> None:
    """A run, then its job; an id that none can have is refused."""
    given = lines(event(JOB, 1), event(JOB, 2) | {"runId": "other"})
    assert run_program(program, daemon.endpoint, "store", given=given)[0] == 0
    assert run_program(program, daemon.endpoint, "delete", JOB, RUN) == (0, "3\n", "")
    assert run_program(program, daemon.endpoint, "events", JOB, RUN) == (0, "[]\n", "")
    assert len(json.loads(run_program(program, daemon.endpoint, "events", JOB, "other")[1])) == 1
    assert run_program(program, daemon.endpoint, "delete", JOB) == (0, "4\n", "")
    assert run_program(program, daemon.endpoint, "events", JOB, "other") == (0, "[]\n", "")
    status, _, complaints = run_program(program, daemon.endpoint, "delete", "a/b")
    assert (status, "BAD_VALUE" in complaints) == (1, True)


def test_a_run_setting_is_redacted(program: str, daemon: RunningDaemon) -> None:
    """Of the job and run that were named, whatever stands in the setting; one that is none is refused."""
    with Client(daemon.endpoint) as client:
        client.store_run_setting(setting(RUN, jobId=JOB) | {"env": {"KEY": "secret"}})
        clean = setting(RUN, jobId=JOB) | {"env": {}}
        redact = ("redact", JOB, RUN)
        assert run_program(program, daemon.endpoint, *redact, given=json.dumps(clean)) == (0, "2\n", "")
        assert [dict(one)["env"] for one in client.get_all_runs()] == [{}]
        for wrong in ("", "{}", json.dumps(clean)[:-1], json.dumps(clean) + ',"jobId":"x"}'):
            status, output, complaints = run_program(program, daemon.endpoint, *redact, given=wrong)
            assert (status, output) == (1, "")
            assert complaints.startswith("BAD_")
        # A key after the setting stands in the place of none that was named.
        status, output, _ = run_program(
            program, daemon.endpoint, *redact, given=json.dumps(clean) + ',"jobId":"x"'
        )
        assert (status, output) == (0, "3\n")
        assert [one["jobId"] for one in client.deletions()] == [JOB]


def test_an_argument_is_quoted(program: str, daemon: RunningDaemon) -> None:
    """So a hostile id is refused as an id, and an odd one is one."""
    for id in ('a"b\\c', "a\nb", "..", "x" * 201):
        status, _, complaints = run_program(program, daemon.endpoint, "events", id, RUN)
        assert (status, complaints.split()[:2]) == (1, ["BAD_REQUEST", "jobId"])
    odd = 'ä 🙂 "},{'
    assert run_program(program, daemon.endpoint, "store", given=lines(event(odd, 1)))[0] == 0
    assert len(json.loads(run_program(program, daemon.endpoint, "events", odd, RUN)[1])) == 1


def test_a_value_larger_than_a_frame_goes_in_parts(program: str, daemon: RunningDaemon) -> None:
    """Five frames, one record."""
    large = event(JOB, 0, text="x" * 20 * 1024 * 1024)
    assert run_program(program, daemon.endpoint, "store", given=lines(large, event(JOB, 1))) == (
        0,
        "1\n2\n",
        "",
    )
    with Client(daemon.endpoint) as client:
        assert [dict(found) for found in client.get_event_contents(JOB, RUN)] == [large, event(JOB, 1)]


def test_values_are_stored_all_or_none(program: str, daemon: RunningDaemon) -> None:
    """Where one is refused, the error has its number in the batch, and nothing is stored."""
    assert run_program(program, daemon.endpoint, "atomic", given=lines(event(JOB, 1), event(JOB, 2)))[:2] == (
        0,
        "1\n",
    )
    wrong = lines(event(JOB, 3), event(JOB, 4, stepNumber=-1))
    status, _, said = run_program(program, daemon.endpoint, "atomic", given=wrong)
    assert status == 1
    assert said.startswith("item 1: BAD_VALUE stepNumber")
    with Client(daemon.endpoint) as client:
        assert [dict(one)["n"] for one in client.get_event_contents(JOB, RUN)] == [1, 2]


def test_a_job_is_kept_from_others(program: str, daemon: RunningDaemon) -> None:
    """Its own stores move the position on; those of another session end it."""
    with Client(daemon.endpoint) as client:
        position = client.store_event(event(JOB, 1))
        given = lines(event(JOB, 2), event(JOB, 3), event(JOB, 4))
        status, said, _ = run_program(program, daemon.endpoint, "own", JOB, str(position), given=given)
        assert (status, said) == (0, "2\n3\n4\n")
        status, _, said = run_program(
            program, daemon.endpoint, "own", JOB, str(position), given=lines(event(JOB, 5))
        )
        assert status == 1
        assert said.startswith("CONFLICT expect ")
        assert len(client.get_event_contents(JOB, RUN)) == 4
