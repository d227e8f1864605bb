"""The C client when answers are lost, late or hostile, and when it is stopped itself."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import zmq

from perstack_storage import Client
from perstack_storage._core.errors import ErrorCode
from tests.client.behaviour.values import event
from tests.client.c.program import JOB, RUN, Interactive, lines, numbers, run_program
from tests.client.fake_daemon import FakeDaemon, frame
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon
from tests.vectors.vectors import exchanges


def test_a_restart_in_between_is_ridden_out(program: str, daemon: RunningDaemon) -> None:
    """Nothing is lost, and nothing is stored twice."""
    client = Interactive(program, daemon.endpoint)
    for number in range(6):
        if number % 2:
            daemon.kill()
            client.send(event(JOB, number))
            daemon.start()
        else:
            client.send(event(JOB, number))
        assert client.position() == number + 1
    assert client.end() == ""
    assert numbers(daemon) == list(range(6))


def test_a_store_without_an_answer_is_sent_again_and_stored_once(program: str, daemon: RunningDaemon) -> None:
    """The daemon is stopped for longer than the client's patience: it finds the store on both connections."""
    client = Interactive(program, daemon.endpoint)
    client.send(event(JOB, 0))
    assert client.position() == 1
    signals.stop(daemon.pid)
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
    client = Interactive(program, daemon.endpoint, timeout_ms=500)
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
    assert numbers(daemon) == [0, 2]


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
        client = Interactive(program, endpoint, timeout_ms=400)
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
        status, _, complaints = run_program(program, endpoint, "events", JOB, RUN, timeout_ms=1000)
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
            answers.wait(60)
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
        process.stdin.write(lines(event(JOB, 1)))
        process.stdin.flush()
        assert asked.wait(60)
        signals.stop(process.pid)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        answers.set()
        output, complaints = process.communicate(timeout=120)
    assert (process.returncode, output.split(), complaints) == (0, ["1"], "")
