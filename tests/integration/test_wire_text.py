"""What `proto/wire.md` says is what the daemon does: its tables, dialogues and examples."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from perstack_storage._core.errors import RETRYABLE
from perstack_stored.protocol import frames
from perstack_stored.read.arguments import ARGUMENTS
from tests.helpers.daemon import RunningDaemon, running_daemon

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "proto" / "wire.md").read_text()
NODE_MODULES = ROOT / "client" / "typescript" / "node_modules"
ANSWER_MS = 10_000
EVENT = (
    '{"type":"startRun","id":"%s","expertKey":"me","timestamp":1717171717200,'
    '"jobId":"j1","runId":"r1","stepNumber":0}'
)


def section(number: int) -> str:
    """The text of a section."""
    return TEXT.partition(f"\n## {number}. ")[2].partition("\n## ")[0]


# --- tables ----------------------------------------------------------------------------------------


def _first_cells(text: str) -> list[str]:
    """What stands in code style in the first cell of each row of the tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_the_table_of_errors_is_complete() -> None:
    """Each code stands in section 5, with the right word in the column `retryable`."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (yes|no) \|", section(5), re.MULTILINE)
    assert {code: word == "yes" for code, word in rows} == {str(c): again for c, again in RETRYABLE.items()}
    assert len(rows) == len(RETRYABLE)


def test_every_operation_argument_and_header_field_is_described() -> None:
    """Those of sections 2 and 4 are those that the daemon knows."""
    first, _, answer = section(2).partition("### 2.2")
    assert _first_cells(first.partition("### 2.1")[2]) == list(frames.RequestHeader.__struct_fields__)
    assert {"v", "id", "ok", "position", "error"} <= set(_first_cells(answer))
    operations = [name for name in _first_cells(section(4)) if name not in ARGUMENTS["readAll"]]
    assert sorted(operations) == sorted([*frames.STORE_KINDS, *ARGUMENTS, "hello", "ping", "stats"])
    assert "`op` is `store`" in section(4)
    arguments = {name for checks in ARGUMENTS.values() for name in checks}
    assert arguments <= set(re.findall(r"`(\w+)\??`", section(4)))


def test_the_hello_that_is_printed_has_the_defaults(tmp_path: Path) -> None:
    """Section 4.5, against a daemon without any setting."""
    body = re.search(r"S: .*␊\n(( {8}.*\n)+)", section(4).partition("### 4.5")[2])
    assert body is not None
    printed = json.loads(body.group(1).replace("5f0c…", "5f0c"))
    with running_daemon(tmp_path / "base") as daemon:
        told = json.loads(_hello(daemon.endpoint, "8f" * 16))
    assert set(told) | {"epoch"} == set(printed)  # which an empty base has none of
    for name in ("window", "limits", "features"):
        assert told[name] == printed[name]


def _hello(endpoint: str, session: str) -> bytes:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.send(b'{"v":1,"op":"hello","id":1,"session":"%b"}' % session.encode())
        assert socket.poll(ANSWER_MS)
        return socket.recv().partition(b"\n")[2]


# --- dialogues -------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The side that speaks, and its text: C, D, S, or -- for an event."""
    for line in text.splitlines():
        if match := re.match(r"     (C|D|S|--):? (.*)", line):
            yield match.group(1), match.group(2)


def _event(match: re.Match[str]) -> str:
    text = EVENT % match.group(1)
    if match.group(2) is None:
        return text
    part, parts = int(match.group(2)), int(match.group(3))
    size = -(-len(text) // parts)
    return text[part * size : (part + 1) * size]


def _frames(line: str) -> list[bytes]:
    """The frames that a line stands for."""
    line = line.replace("8f…", "8f" * 16).replace("07…", "07" * 16).replace("␊", "\n")
    line = re.sub(r"⟨(\w+)(?: part (\d+) of (\d+))?⟩", _event, line)
    if line.startswith("["):
        return [frame.strip().encode() for frame in re.findall(r"\[(.*?)\](?= \[|$)", line, re.DOTALL)]
    return [line.encode()]


def _without_message(frame: bytes) -> bytes:
    return re.sub(rb'"message":(?:"(?:[^"\\]|\\.)*"|\xe2\x80\xa6)', b'"message":*', frame)


class _Conversation:
    """Two connections to a daemon, and the one that awaits an answer."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._daemon = daemon
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._asker = ""

    def close(self) -> None:
        self._context.destroy(linger=0)

    def take(self, who: str, what: str) -> None:
        """Do what a line says, or compare with it."""
        if who == "--":
            self._happen(what)
        elif who == "S":
            socket = self._sockets[self._asker]
            assert socket.poll(ANSWER_MS), what
            expected = [_without_message(frame) for frame in _frames(what)]
            assert [_without_message(frame) for frame in socket.recv_multipart()] == expected
        else:
            self._asker = who
            if who not in self._sockets:
                self._connect(who)
            self._sockets[who].send_multipart(_frames(what))

    def _connect(self, name: str) -> None:
        self._sockets[name] = self._context.socket(zmq.DEALER)
        self._sockets[name].connect(self._daemon.endpoint)

    def _happen(self, what: str) -> None:
        if what == "C connects anew":
            self._sockets["C"].close(linger=0)
            self._connect("C")
        else:
            assert what == "the daemon is killed and started"
            self._daemon.kill()
            self._daemon.start()


def test_the_dialogues_are_what_happens(tmp_path: Path) -> None:
    """Every line of section 9, on one daemon, byte for byte but for the messages."""
    lines = list(_lines(section(9)))
    assert len(lines) > 50
    with running_daemon(tmp_path / "base") as daemon:
        conversation = _Conversation(daemon)
        try:
            for who, what in lines:
                conversation.take(who, what)
        finally:
            conversation.close()


# --- examples --------------------------------------------------------------------------------------


def _example(language: str, endpoint: str) -> str:
    """The program of section 7, for another endpoint; ten lines."""
    found = re.search(rf"\n{language} with .*\n\n((?:    .*\n)+)", section(7))
    assert found is not None
    program = found.group(1).replace("\n    ", "\n")[4:]
    assert program.count("\n") == 10
    assert len(re.findall(r'"ipc://[^"]*"', program)) == 1
    return re.sub(r'"ipc://[^"]*"', json.dumps(endpoint), program)


def _check_output(output: str) -> None:
    first, second = output.splitlines()
    assert first == '{"v":1,"id":1,"ok":true,"position":1}'
    (found,) = json.loads(second)
    assert found == {
        "type": "startRun",
        "id": "e1",
        "expertKey": "me",
        "timestamp": 1717171717200,
        "jobId": "j1",
        "runId": "r1",
        "stepNumber": 0,
    }


def test_the_python_example_runs_as_it_is_printed(tmp_path: Path) -> None:
    """With the endpoint replaced, and nothing of ours."""
    with running_daemon(tmp_path / "base") as daemon:
        program = _example("Python", daemon.endpoint)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
        )
    _check_output(done.stdout)


def test_the_node_example_runs_as_it_is_printed(tmp_path: Path) -> None:
    """With the endpoint replaced, npm's zeromq, and nothing of ours."""
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "zeromq").is_dir():
        assert "CI" not in os.environ, "node, and zeromq in client/typescript/node_modules, must be there"
        pytest.skip("needs node, and `npm ci` in client/typescript")
    with running_daemon(tmp_path / "base") as daemon:
        (tmp_path / "node_modules").symlink_to(NODE_MODULES)
        (tmp_path / "example.mjs").write_text(_example("Node", daemon.endpoint))
        done = subprocess.run(
            [node, "example.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
        )
    _check_output(done.stdout)
