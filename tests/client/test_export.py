"""Export as OTLP: a receiver gets each run as a trace, once, whatever happens in between."""

import io
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from perstack_storage._otlp import protobuf
from perstack_storage._otlp.delivery import checked_url, headers_of
from perstack_storage._otlp.state import State
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import COMMAND
from tests.helpers.raw_client import setting
from tests.inspector import runs
from tests.inspector.storing import store

START = 1_795_000_000_000


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the fields of a message in protobuf."""
    reader = io.BytesIO(data)
    while key := reader.read(1):
        number, kind = varint(key, reader) >> 3, key[0] & 7
        if kind == 0:
            yield number, varint(reader.read(1), reader)
        else:
            yield number, reader.read(8 if kind == 1 else varint(reader.read(1), reader))


def varint(first: bytes, reader: io.BytesIO) -> int:
    number, shift, byte = first[0] & 0x7F, 7, first[0]
    while byte & 0x80:
        byte = reader.read(1)[0]
        number |= (byte & 0x7F) << shift
        shift += 7
    return number


def within(data: bytes, *path: int) -> list[Any]:
    """The values of the fields along a path."""
    found: list[Any] = [data]
    for number in path:
        found = [value for message in found for field, value in fields(message) if field == number]
    return found


def spans_of(body: bytes) -> list[dict[str, Any]]:
    """The spans of a request, as OTLP's JSON names their fields."""
    return [span_of(span) for span in within(body, 1, 2, 2)]


def span_of(message: bytes) -> dict[str, Any]:
    got = dict(fields(message))
    values = {}
    for attribute in within(message, 9):
        ((kind, value),) = fields(within(attribute, 2)[0])
        values[within(attribute, 1)[0].decode()] = value.decode() if kind == 1 else value
    span = {
        "traceId": got[1].hex(), "spanId": got[2].hex(), "name": got[5].decode(), "kind": got[6],
        "start": int.from_bytes(got[7], "little"), "end": int.from_bytes(got[8], "little"),
        "attributes": values, "code": within(got[15], 3)[0],
        "message": b"".join(within(got[15], 2)).decode(),
    }  # fmt: skip
    return span | ({"parentSpanId": got[4].hex()} if 4 in got else {})


class FakeReceiver:
    """A receiver of OTLP over HTTP: keeps spans by their ids, refuses what a test asks for."""

    def __init__(self) -> None:
        self.spans: dict[tuple[str, str], Any] = {}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.bad_names: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, answer = receiver.take(self.path, dict(self.headers), body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        self.requests.append((path, headers, body))
        if self.answers:
            return self.answers.pop(0)
        found = spans_of(body)
        if any(span["name"] in self.bad_names for span in found):
            return 400, {}
        self.spans |= {(span["traceId"], span["spanId"]): span for span in found}
        return 200, {}

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def named(self, name: str) -> list[Any]:
        """The spans of a name."""
        return [span for span in self.spans.values() if span["name"] == name]


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    receiver = FakeReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("export") / "base") as daemon:
        secret = setting("run-1", jobId="job-delegated", model="model-1", env={"KEY": "sk-secret"})
        store(
            daemon.endpoint,
            [("storeRunSetting", {**secret, "providerConfig": {"providerName": "anthropic"}})],
        )
        for _, calls in runs.every(START):
            store(daemon.endpoint, calls)
        yield daemon


def run(daemon: RunningDaemon, receiver: FakeReceiver, *more: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, "export", "--endpoint", daemon.endpoint, "--otlp", receiver.url, "--once", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_job_is_a_trace_of_runs_steps_and_tools(daemon: RunningDaemon, receiver: FakeReceiver) -> None:
    done = run(daemon, receiver)
    assert done.returncode == 0, done.stderr
    assert {path for path, _, _ in receiver.requests} == {"/v1/traces"}
    (asked,) = [
        span for span in receiver.named("invoke_agent @acme/release-manager@2.0.0")
        if span["attributes"]["perstack.run.id"] == "run-1"
    ]  # fmt: skip
    children = receiver.named("invoke_agent @acme/researcher@1.0.0") + receiver.named(
        "invoke_agent @acme/reviewer@1.0.0"
    )
    assert [span["parentSpanId"] for span in children] == [asked["spanId"]] * 2
    assert {span["traceId"] for span in children} == {asked["traceId"]}
    assert "parentSpanId" not in asked
    assert len({trace for trace, _ in receiver.spans}) == 6
    of_child = [span for span in receiver.spans.values() if span.get("parentSpanId") == children[0]["spanId"]]
    assert sorted(span["name"] for span in of_child) == [
        "chat", "chat", "chat", "execute_tool attemptCompletion", "execute_tool readTextFile",
        "execute_tool searchFiles",
    ]  # fmt: skip
    for span in receiver.spans.values():
        assert span["start"] <= span["end"]
        assert (len(span["traceId"]), len(span["spanId"])) == (32, 16)
    (chat, *_) = receiver.named("chat model-1")
    assert chat["attributes"]["gen_ai.usage.input_tokens"] == 1800
    assert chat["attributes"]["gen_ai.provider.name"] == "anthropic"
    (failed,) = receiver.named("execute_tool exec")
    assert failed["code"] == 2
    (stopped,) = receiver.named("invoke_agent @acme/importer@0.9.1")
    assert stopped["message"] == "AI_APICallError"
    assert not receiver.named("invoke_agent @acme/summarizer@1.0.0")  # it has not ended


def test_sending_again_gives_the_same_spans(daemon: RunningDaemon, receiver: FakeReceiver) -> None:
    run(daemon, receiver)
    first = dict(receiver.spans)
    run(daemon, receiver)
    assert receiver.spans == first


def test_texts_go_along_only_where_they_are_asked_for(daemon: RunningDaemon, receiver: FakeReceiver) -> None:
    run(daemon, receiver)
    sent = b"".join(body for _, _, body in receiver.requests)
    for text in (runs.QUERY, "make docs", "Changelog", "The report is ready", "Overloaded", "sk-secret"):
        assert text.encode() not in sent
    receiver.requests.clear()
    run(daemon, receiver, "--content")
    sent = b"".join(body for _, _, body in receiver.requests)
    assert b"sk-secret" not in sent
    for text in (runs.QUERY, "make docs", "Changelog", "The report is ready", "Overloaded"):
        assert text.encode() in sent


def test_one_bad_span_takes_no_other_along(daemon: RunningDaemon, receiver: FakeReceiver) -> None:
    run(daemon, receiver)
    whole = len(receiver.spans)
    receiver.spans.clear()
    receiver.bad_names = {"execute_tool exec"}
    done = run(daemon, receiver)
    assert done.returncode == 1
    assert "refuses span" in done.stderr
    assert len(receiver.spans) == whole - 1


def test_a_receiver_that_is_away_is_waited_for(daemon: RunningDaemon, receiver: FakeReceiver) -> None:
    receiver.answers = [(503, {}), (429, {})]
    done = run(daemon, receiver)
    assert done.returncode == 0
    assert "trying again" in done.stderr
    assert receiver.spans


def test_what_a_receiver_says_of_its_refusals_is_passed_on(
    daemon: RunningDaemon, receiver: FakeReceiver
) -> None:
    receiver.answers = [(200, {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old"}})]
    done = run(daemon, receiver)
    assert done.returncode == 1
    assert "refuses 3 spans: too old" in done.stderr
    for status in (401, 415):
        receiver.answers = [(status, {})]
        done = run(daemon, receiver)
        assert done.returncode == 1
        assert f"answers {status}" in done.stderr


def test_an_answer_in_protobuf_is_understood() -> None:
    partial = b"\x08\x03\x12\x07too old"
    assert protobuf.rejected(b"\x0a" + bytes([len(partial)]) + partial) == (3, "too old")
    for other in (b"", b"\x0a\x00", b"<html>", bytes(range(256)), b"\xff" * 100):
        assert protobuf.rejected(other)[0] >= 0


def test_it_goes_on_where_it_was(tmp_path: Path, receiver: FakeReceiver) -> None:
    """A run that was open at the restart is sent whole, from the state that was kept."""
    state = str(tmp_path / "state.json")
    with running_daemon(tmp_path / "base") as daemon:
        calls = runs.completed("job-1", START)
        middle = len(calls) // 2
        store(daemon.endpoint, calls[:middle])
        assert run(daemon, receiver, "--state", state).returncode == 0
        assert not receiver.named("invoke_agent @acme/report-writer@1.2.0")
        store(daemon.endpoint, calls[middle:])
        assert run(daemon, receiver, "--state", state).returncode == 0
        (whole,) = receiver.named("invoke_agent @acme/report-writer@1.2.0")
        assert whole["start"] == (START + 12) * 1_000_000
        parts = [span for span in receiver.spans.values() if span.get("parentSpanId") == whole["spanId"]]
        assert len(parts) == 10
        receiver.requests.clear()
        assert run(daemon, receiver, "--state", state).returncode == 0
        assert receiver.requests == []
    kept = State(state).read()
    assert kept is not None
    with running_daemon(tmp_path / "other") as daemon:
        store(daemon.endpoint, runs.failed("job-2", START))
        done = run(daemon, receiver, "--state", state)
        assert "another one than before" in done.stderr
        assert receiver.named("invoke_agent @acme/importer@0.9.1")


def test_only_new_ones(tmp_path: Path, receiver: FakeReceiver) -> None:
    with running_daemon(tmp_path / "base") as daemon:
        store(daemon.endpoint, runs.completed("job-1", START))
        assert run(daemon, receiver, "--new").returncode == 0
    assert receiver.requests == []


def test_headers_come_from_the_environment_and_addresses_are_checked() -> None:
    assert headers_of("Authorization=Basic%20abc, x-project=p") == {
        "Authorization": "Basic abc",
        "x-project": "p",
    }
    for text in ("nothing", "a=%0d%0ab"):
        with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_HEADERS"):
            headers_of(text)
    for url in ("ftp://x", "http://user:pw@x", "x", "file:///etc/passwd"):
        with pytest.raises(ValueError, match="not http"):
            checked_url(url)
