"""Who may ask the gateway, and the program that serves it: its start, its words, its end."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage._inspect import program
from perstack_storage._inspect.log_lines import BURST_LINES, LINE_SECONDS, BoundedLines
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import COMMAND, Inspector, running_inspector, stream, token_file


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("access") / "base") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def inspector(daemon: RunningDaemon) -> Iterator[Inspector]:
    with running_inspector(daemon) as inspector:
        yield inspector


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "localhost.evil.example:{port}", "127.0.0.1:1"]
)
def test_another_name_of_the_host_is_refused(inspector: Inspector, host: str) -> None:
    """DNS rebinding: a foreign name that leads here."""
    answer = inspector.ask("/api/jobs", {"host": host.format(port=inspector.port)})
    assert (answer.status, answer.error["field"]) == (403, "host")


def test_another_page_may_not_ask(inspector: Inspector) -> None:
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ):
        assert inspector.ask("/api/jobs", headers).status == 403
    own = f"http://localhost:{inspector.port}"
    answer = inspector.ask("/api/jobs", {"host": own.removeprefix("http://"), "origin": own})
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_nothing_is_answered_without_the_token(inspector: Inspector) -> None:
    cookie = f"perstack-inspect-{inspector.port}=x"
    for path in ("/", "/page.js", "/api/jobs", "/api/openapi.json", "/api/stream", "/api/nothing"):
        for wrong in (None, {"authorization": "Bearer wrong"}, {"cookie": cookie}):
            answer = inspector.ask(path, wrong, token=False)
            assert answer.status == 401
            assert inspector.token.encode() not in answer.body


def test_the_token_goes_from_the_address_into_a_cookie(inspector: Inspector) -> None:
    answer = inspector.ask(f"/jobs/a%20b?token={inspector.token}&tab=usage", token=False)
    cookie = answer.headers["set-cookie"]
    assert (answer.status, answer.headers["location"]) == (303, "/jobs/a%20b?tab=usage")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert inspector.ask("/api/jobs", {"cookie": cookie.partition(";")[0]}, token=False).status == 200
    assert inspector.ask(f"/api/jobs?limit=1&token={inspector.token}", token=False).status == 200
    others = 'theme={"dark": true}; ][; '  # of other programs on this host, as a browser sends them
    assert (
        inspector.ask("/api/jobs", {"cookie": others + cookie.partition(";")[0]}, token=False).status == 200
    )
    for elsewhere in ("//evil.example/", "/\\evil.example/"):
        answer = inspector.ask(f"{elsewhere}?token={inspector.token}", token=False)
        assert answer.headers["location"] == "/evil.example/"


def test_each_answer_forbids_scripts_frames_and_sniffing(inspector: Inspector) -> None:
    for answer in (
        inspector.ask("/"), inspector.ask("/api/jobs"), inspector.ask("/api/nothing"),
        inspector.ask("/api/jobs", token=False), inspector.ask("/", {"host": "evil.example"}),
    ):  # fmt: skip
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert not {"unsafe-inline", "unsafe-eval", "*", "data:"} & set(policy.replace("'", "").split())
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in policy


def run_command(*arguments: str, code: str = "") -> "subprocess.CompletedProcess[str]":
    start = f"{code}\nimport runpy; runpy.run_module('perstack_storage', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_missing_extra_is_named(daemon: RunningDaemon) -> None:
    done = run_command(
        "inspect", "--endpoint", daemon.endpoint, code="import sys; sys.modules['uvicorn'] = None"
    )
    assert done.returncode == 1
    assert "with its extra 'inspect'" in done.stderr


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    done = run_command("inspect", "--base-path", str(tmp_path))
    assert done.returncode == 3
    assert "perstack-stored serve" in done.stderr


@pytest.mark.parametrize(
    ("token", "mode", "reason"),
    [
        ("a-token-of-sixteen-characters", 0o644, "others may read"),
        ("short", 0o600, "16 to 200"),
        (None, 0, "can't be read"),
    ],
)
def test_a_token_that_others_may_read_or_guess_is_refused(
    daemon: RunningDaemon, tmp_path: Path, token: str | None, mode: int, reason: str
) -> None:
    path = tmp_path / "missing" if token is None else token_file(tmp_path, token, mode)
    done = run_command("inspect", "--endpoint", daemon.endpoint, "--token-file", str(path))
    assert done.returncode == 1
    assert reason in done.stderr


def test_small_answers_are_sent_at_once() -> None:
    """They do not wait 40 ms for the acknowledgement of what was sent before."""

    async def options() -> int:
        accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        listener = program._listener(0)
        async with await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=listener):
            _, client = await asyncio.open_connection(*listener.getsockname())
            server = await accepted
            sent_at_once = server.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for writer in (client, server):
                writer.close()
                await writer.wait_closed()
        return int(sent_at_once)

    assert asyncio.run(options())


def test_a_port_that_is_taken_is_named(daemon: RunningDaemon, inspector: Inspector) -> None:
    done = run_command("inspect", "--endpoint", daemon.endpoint, "--port", str(inspector.port))
    assert done.returncode == 1
    assert f"port {inspector.port} can't be served" in done.stderr


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_ends_it_without_a_word(daemon: RunningDaemon, *, again: bool) -> None:
    """From the moment when the address stands there, and also where a person presses it again."""
    command = [*COMMAND, "inspect", "--endpoint", daemon.endpoint, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        while again and process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        _, said = process.communicate(timeout=60)
    assert process.returncode in ((130, -signal.SIGINT) if again else (130,))
    assert said == ""


def test_a_proxy_s_name_is_served_where_it_is_allowed_and_a_stop_ends_it(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    path = token_file(tmp_path)
    arguments = ("--token-file", str(path), "--allow-host", "inspect.example")
    with running_inspector(daemon, *arguments) as inspector:
        assert inspector.token == path.read_text().strip()
        for headers in (
            {"host": "inspect.example", "origin": "https://inspect.example"},
            {"host": "INSPECT.example"},
        ):
            assert inspector.ask("/api/hello", headers).status == 200
        with stream(inspector) as events:  # one that listens does not hold up the stop
            os.kill(inspector.process.pid, 15)
            codes = [one.data["error"]["code"] for one in events if one.kind == "trouble"]
            assert codes == ["STOPPING"]
        assert inspector.process.wait(timeout=60) == 0


def test_invalid_requests_print_a_bounded_number_of_lines(daemon: RunningDaemon) -> None:
    """They need no token; the server goes on answering."""
    command = [*COMMAND, "inspect", "--endpoint", daemon.endpoint, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline()
        where = ("127.0.0.1", int(address.partition("127.0.0.1:")[2].partition("/")[0]))
        for _ in range(300):
            with socket.create_connection(where, timeout=60) as connection:
                connection.sendall(b"this is no HTTP\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert 0 < said.count("Invalid HTTP request") < 100, said


def test_a_line_that_passes_has_the_count_of_those_left_out() -> None:
    """For each place in the code by itself."""
    now = 0.0
    bounded = BoundedLines(lambda: now)

    def line(number: int) -> logging.LogRecord:
        return logging.LogRecord("uvicorn.error", logging.WARNING, "a.py", number, "wrong: %s", ("x",), None)

    assert [bounded.filter(line(1)) for _ in range(BURST_LINES + 3)] == [True] * BURST_LINES + [False] * 3
    assert bounded.filter(line(2))
    now += LINE_SECONDS
    last = line(1)
    assert bounded.filter(last)
    assert last.getMessage() == "wrong: x (3 more like it)"
    assert not bounded.filter(line(1))
