"""The C client of `client/c`, built with sanitizers, on a real daemon: it proves the text of wire.md."""

import json
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from perstack_storage import Client
from perstack_storage._core.errors import ErrorCode
from tests.client.behaviour.values import event
from tests.client.fake_daemon import FakeDaemon, frame
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.raw_client import setting
from tests.vectors.vectors import exchanges

SOURCES = Path(__file__).parents[2] / "client" / "c"
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=all"
JOB, RUN = "job", "r"


def _missing() -> str | None:
    if not all(map(shutil.which, ("make", "cc"))):
        return "gcc and make"
    found = subprocess.run(
        ["cc", "-E", "-include", "zmq.h", "-"], input=b"", capture_output=True, check=False
    )
    return "libzmq3-dev" if found.returncode else None


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example program, which is all of the client."""
    missing = _missing()
    if missing is not None:
        assert "CI" not in os.environ, f"{missing} must be installed"
        pytest.skip(f"needs {missing}: apt-get install gcc make libzmq3-dev")
    build = tmp_path_factory.mktemp("c")
    made = subprocess.run(
        ["make", "-C", str(SOURCES), f"BUILD={build}", f"CFLAGS={SANITIZERS}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return str(build / "example")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path / "base", "--answer-bytes", "65536") as running:
        yield running


def _run(
    program: str, endpoint: str, *words: str, given: str = "", timeout_ms: int = 30_000
) -> tuple[int, str, str]:
    """Exit status, output and complaints."""
    done = subprocess.run(
        [program, endpoint, *words],
        input=given.encode(),
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "TIMEOUT_MS": str(timeout_ms)},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def _lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def _numbers(daemon: RunningDaemon) -> list[int]:
    with Client(daemon.endpoint) as client:
        return [found["n"] for found in client.get_event_contents(JOB, RUN)]  # type: ignore[typeddict-item]


def test_without_an_endpoint_the_base_is_that_of_the_environment(
    program: str, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PERSTACK_STORED_ENDPOINT", raising=False)
    for ours, perstack in (("", str(daemon.base)), (str(daemon.base), str(tmp_path / "none"))):
        monkeypatch.setenv("PERSTACK_STORED_BASE", ours)
        monkeypatch.setenv("PERSTACK_STORAGE_PATH", perstack)
        assert _run(program, "", "events", JOB, RUN) == (0, "[]\n", "")


LONG_MS = 3_600_000  # a client that waits for its timeout makes the test fail


@pytest.mark.parametrize("served_before", [False, True])
def test_without_a_socket_and_an_endpoint_it_does_not_wait(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, served_before: bool
) -> None:
    base = tmp_path / "base"
    (base / ".stored" if served_before else base).mkdir(parents=True)
    monkeypatch.delenv("PERSTACK_STORED_ENDPOINT", raising=False)
    monkeypatch.setenv("PERSTACK_STORED_BASE", str(base))
    for words, given in ((("events", JOB, RUN), ""), (("store",), _lines(event(JOB, 1)))):
        status, output, complaints = _run(program, "", *words, given=given, timeout_ms=LONG_MS)
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
    met, named = _Interactive(program, ""), _Interactive(program, daemon.endpoint)
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
    status, output, complaints = _run(
        program, daemon.endpoint, "store", given=_lines(*(event(JOB, n) for n in range(count)))
    )
    assert (status, complaints) == (0, "")
    assert output.split() == [str(n) for n in range(1, count + 1)]
    status, output, complaints = _run(program, daemon.endpoint, "events", JOB, RUN)
    assert (status, complaints) == (0, "")
    assert [found["timestamp"] for found in json.loads(output)] == [
        event(JOB, n)["timestamp"] for n in range(count)
    ]
    assert len(output) > 65536
    assert _run(program, daemon.endpoint, "events", JOB, "another") == (0, "[]\n", "")


def test_an_error_is_reported_and_the_next_store_follows(program: str, daemon: RunningDaemon) -> None:
    """Code and field; the refused one's number is settled."""
    given = _lines(event(JOB, 0), event(JOB, 1, stepNumber=-1), event(JOB, 2)) + "{\n" + _lines(event(JOB, 3))
    status, output, complaints = _run(program, daemon.endpoint, "store", given=given)
    assert status == 1
    assert output.split() == ["1", "2", "3"]
    first, second = complaints.splitlines()
    assert first.startswith("BAD_VALUE stepNumber ")
    assert second.startswith("BAD_JSON - ")
    assert _numbers(daemon) == [0, 2, 3]


def test_jobs_and_runs_are_deleted(program: str, daemon: RunningDaemon) -> None:
    """A run, then its job; an id that none can have is refused."""
    given = _lines(event(JOB, 1), event(JOB, 2) | {"runId": "other"})
    assert _run(program, daemon.endpoint, "store", given=given)[0] == 0
    assert _run(program, daemon.endpoint, "delete", JOB, RUN) == (0, "3\n", "")
    assert _run(program, daemon.endpoint, "events", JOB, RUN) == (0, "[]\n", "")
    assert len(json.loads(_run(program, daemon.endpoint, "events", JOB, "other")[1])) == 1
    assert _run(program, daemon.endpoint, "delete", JOB) == (0, "4\n", "")
    assert _run(program, daemon.endpoint, "events", JOB, "other") == (0, "[]\n", "")
    status, _, complaints = _run(program, daemon.endpoint, "delete", "a/b")
    assert (status, "BAD_VALUE" in complaints) == (1, True)


def test_a_run_setting_is_redacted(program: str, daemon: RunningDaemon) -> None:
    """Of the job and run that were named, whatever stands in the setting; one that is none is refused."""
    with Client(daemon.endpoint) as client:
        client.store_run_setting(setting(RUN, jobId=JOB) | {"env": {"KEY": "secret"}})
        clean = setting(RUN, jobId=JOB) | {"env": {}}
        redact = ("redact", JOB, RUN)
        assert _run(program, daemon.endpoint, *redact, given=json.dumps(clean)) == (0, "2\n", "")
        assert [dict(one)["env"] for one in client.get_all_runs()] == [{}]
        for wrong in ("", "{}", json.dumps(clean)[:-1], json.dumps(clean) + ',"jobId":"x"}'):
            status, output, complaints = _run(program, daemon.endpoint, *redact, given=wrong)
            assert (status, output) == (1, "")
            assert complaints.startswith("BAD_")
        # A key after the setting stands in the place of none that was named.
        status, output, _ = _run(program, daemon.endpoint, *redact, given=json.dumps(clean) + ',"jobId":"x"')
        assert (status, output) == (0, "3\n")
        assert [one["jobId"] for one in client.deletions()] == [JOB]


def test_an_argument_is_quoted(program: str, daemon: RunningDaemon) -> None:
    """So a hostile id is refused as an id, and an odd one is one."""
    for id in ('a"b\\c', "a\nb", "..", "x" * 201):
        status, _, complaints = _run(program, daemon.endpoint, "events", id, RUN)
        assert (status, complaints.split()[:2]) == (1, ["BAD_REQUEST", "jobId"])
    odd = 'ä 🙂 "},{'
    assert _run(program, daemon.endpoint, "store", given=_lines(event(odd, 1)))[0] == 0
    assert len(json.loads(_run(program, daemon.endpoint, "events", odd, RUN)[1])) == 1


def test_a_value_larger_than_a_frame_goes_in_parts(program: str, daemon: RunningDaemon) -> None:
    """Five frames, one record."""
    large = event(JOB, 0, text="x" * 20 * 1024 * 1024)
    assert _run(program, daemon.endpoint, "store", given=_lines(large, event(JOB, 1))) == (0, "1\n2\n", "")
    with Client(daemon.endpoint) as client:
        assert [dict(found) for found in client.get_event_contents(JOB, RUN)] == [large, event(JOB, 1)]


class _Interactive:
    """The program with its standard input open: a store at a time."""

    def __init__(self, program: str, endpoint: str, timeout_ms: int = 30_000) -> None:
        self.process = subprocess.Popen(
            [program, endpoint, "store"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TIMEOUT_MS": str(timeout_ms)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout

    def send(self, value: object) -> None:
        self._input.write(_lines(value).encode())
        self._input.flush()

    def position(self) -> int:
        return int(self._output.readline())

    def end(self) -> str:
        """Its complaints."""
        return self.process.communicate(timeout=120)[1].decode()


def test_a_restart_in_between_is_ridden_out(program: str, daemon: RunningDaemon) -> None:
    """Nothing is lost, and nothing is stored twice."""
    client = _Interactive(program, daemon.endpoint)
    for number in range(6):
        if number % 2:
            daemon.kill()
            client.send(event(JOB, number))
            daemon.start()
        else:
            client.send(event(JOB, number))
        assert client.position() == number + 1
    assert client.end() == ""
    assert _numbers(daemon) == list(range(6))


def test_a_store_without_an_answer_is_sent_again_and_stored_once(program: str, daemon: RunningDaemon) -> None:
    """The daemon is stopped for longer than the client's patience: it finds the store on both connections."""
    client = _Interactive(program, daemon.endpoint)
    client.send(event(JOB, 0))
    assert client.position() == 1
    os.kill(daemon.pid, signal.SIGSTOP)
    timer = threading.Timer(2.5, os.kill, (daemon.pid, signal.SIGCONT))
    timer.start()
    client.send(event(JOB, 1))
    assert client.position() == 2
    client.send(event(JOB, 2))
    assert client.position() == 3
    assert client.end() == ""
    with Client(daemon.endpoint) as reader:
        assert reader.stats()["position"] == 3


def test_without_an_answer_in_time_it_says_so_and_goes_on(program: str, daemon: RunningDaemon) -> None:
    """The outcome is unknown, and the store never comes after a later one."""
    client = _Interactive(program, daemon.endpoint, timeout_ms=500)
    client.send(event(JOB, 0))
    assert client.position() == 1
    daemon.kill()
    client.send(event(JOB, 1))
    assert client.process.stderr is not None
    assert client.process.stderr.readline().startswith(b"NO_ANSWER")
    daemon.start()
    client.send(event(JOB, 2))
    assert client.position() == 2
    client.end()
    assert _numbers(daemon) == [0, 2]


def test_answers_are_hostile(program: str, tmp_path: Path) -> None:
    """With any answer there, an error or a fault is reported, and the sanitizers find nothing."""
    answers = [e.answer.frame for e in exchanges("answers")]
    answers += [
        b"",
        b"{",
        b'{"ok":true,"id":1',
        b'{"ok":true,"id":1,"position":99999999999999999999}',
        b'{"ok":true,"id":1,"position":-1}',
        b'{"ok":true,"id":1,"position":"1"}',
        b'{"ok":false,"id":1,"error":{"code":"'
        + b"X" * 500
        + b'","message":"\xc3'.ljust(300, b"\xff")
        + b'"}}',
        b'{"ok":false,"id":1,"error":{"code":"\\ud83d\\ude42\\ud83d\\u12\\","message":"a"}}',
        b'{"ok":false,"id":1,"error":[[["x"]]]}',
        b'{"ok":false,"id":1,"error":' + b"[" * 60_000,
        b'{"ok":false,"id":1,"error":{"code":"\\u0000\\q","message":5,"field":null}}',
        b'{"a":"\\',
        b'{"a":{"b":[}}',
        bytes(range(256)),
    ]
    endpoint = f"ipc://{tmp_path}/other.sock"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.bind(endpoint)
        client = _Interactive(program, endpoint, timeout_ms=400)
        for seq, answer in enumerate(answers, 1):
            client.send(event(JOB, seq))
            router.send_multipart(_answered(router, seq, answer))
        complaints = client.end()
    assert client.process.returncode == 1
    assert "Sanitizer" not in complaints, complaints
    assert "runtime error" not in complaints, complaints
    told = [line.split()[0] for line in complaints.splitlines()]
    assert len(told) >= len(answers) - 10
    assert {str(code) for code in ErrorCode} <= set(told)
    assert told.count("FAULT") >= 10


def _answered(router: "zmq.Socket[bytes]", seq: int, answer: bytes) -> list[bytes]:
    """The answer to the store with this number; those before may be sent again in between."""
    while True:
        assert router.poll(10_000), f"store {seq} was not sent"
        peer, frame = router.recv_multipart()
        header = json.loads(frame.partition(b"\n")[0])
        if header["seq"] == seq:
            return [peer, answer.replace(b'"id":7,', b'"id":%d,' % header["id"])]


def test_an_answer_that_never_ends_ends_with_the_timeout(program: str, tmp_path: Path) -> None:
    """Each part says that there is more; the call takes no longer than its timeout for that."""
    pulled: list[int] = []

    def script(header: dict[str, Any], _: bytes) -> list[bytes] | None:
        pulled.append(header["id"])
        more = {"read": "k", "part": len(pulled)}
        return [frame({"id": header["id"], "ok": True, "more": more}, b"[1]")]

    endpoint = f"ipc://{tmp_path}/d.sock"
    with FakeDaemon(endpoint, script=script):
        status, _, complaints = _run(program, endpoint, "events", JOB, RUN, timeout_ms=1000)
    assert status != 0
    assert complaints.startswith("NO_ANSWER")
    assert len(pulled) > 1


def test_a_process_that_is_stopped_beyond_its_timeout_waits_for_the_answer(
    program: str, tmp_path: Path
) -> None:
    """The time in which it stood still is no silence of the daemon."""
    asked, answers = threading.Event(), threading.Event()

    def script(header: dict[str, Any], _: bytes) -> list[bytes] | None:
        if header["op"] == "storeEvent":
            asked.set()
            answers.wait(10)
        return None

    endpoint = f"ipc://{tmp_path}/d.sock"
    with FakeDaemon(endpoint, script=script):
        process = subprocess.Popen(
            [program, endpoint, "store"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TIMEOUT_MS": "1000"},
        )
        assert process.stdin is not None
        process.stdin.write(_lines(event(JOB, 1)))
        process.stdin.flush()
        assert asked.wait(10)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        answers.set()
        output, complaints = process.communicate(timeout=120)
    assert (process.returncode, output.split(), complaints) == (0, ["1"], "")


def test_values_are_stored_all_or_none(program: str, daemon: RunningDaemon) -> None:
    """Where one is refused, the error has its number in the batch, and nothing is stored."""
    assert _run(program, daemon.endpoint, "atomic", given=_lines(event(JOB, 1), event(JOB, 2)))[:2] == (
        0,
        "1\n",
    )
    wrong = _lines(event(JOB, 3), event(JOB, 4, stepNumber=-1))
    status, _, said = _run(program, daemon.endpoint, "atomic", given=wrong)
    assert status == 1
    assert said.startswith("item 1: BAD_VALUE stepNumber")
    with Client(daemon.endpoint) as client:
        assert [dict(one)["n"] for one in client.get_event_contents(JOB, RUN)] == [1, 2]


def test_a_job_is_kept_from_others(program: str, daemon: RunningDaemon) -> None:
    """Its own stores move the position on; those of another session end it."""
    with Client(daemon.endpoint) as client:
        position = client.store_event(event(JOB, 1))
        given = _lines(event(JOB, 2), event(JOB, 3), event(JOB, 4))
        status, said, _ = _run(program, daemon.endpoint, "own", JOB, str(position), given=given)
        assert (status, said) == (0, "2\n3\n4\n")
        status, _, said = _run(
            program, daemon.endpoint, "own", JOB, str(position), given=_lines(event(JOB, 5))
        )
        assert status == 1
        assert said.startswith("CONFLICT expect ")
        assert len(client.get_event_contents(JOB, RUN)) == 4
