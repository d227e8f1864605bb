"""`dump` gives the records as they were stored, and no secrets."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.helpers.daemon import running_daemon
from tests.offline.bases import SECRETS, event, make_base, one_of_each, run, segments, store


def dumped(base: Path, *arguments: str) -> list[dict[str, Any]]:
    result = run("dump", base, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.split("\n")[:-1]]


def positions(base: Path, *arguments: str) -> list[int]:
    return [record["position"] for record in dumped(base, *arguments)]


def test_records_come_in_order_as_they_were_stored(base: Path) -> None:
    records = dumped(base, "--show-secrets")
    assert [record["position"] for record in records] == list(range(1, 21))
    assert [(record["op"], record["value"]) for record in records] == [
        (op, json.loads(value)) for op, value in one_of_each()
    ]
    times = [record["time"] for record in records]
    assert times == sorted(times)
    assert set(records[0]) == {"position", "time", "op", "value"}


def test_a_value_keeps_its_tokens(base: Path) -> None:
    text = run("dump", base).stdout
    assert '"big": 1e400, "lone": "\\ud800"' in text
    assert '"id": "spaced" , \t"status"' in text
    assert one_of_each()[2][1].decode() in text


def test_a_value_with_line_breaks_is_one_line(base: Path) -> None:
    (record,) = dumped(base, "--job", "spaced")
    assert record["value"]["id"] == "spaced"


def test_segments_are_dumped_one_after_the_other(base_of_segments: Path) -> None:
    assert positions(base_of_segments) == list(range(1, 21))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--after", "17"], [18, 19, 20]),
        (["--after", "0", "--limit", "2"], [1, 2]),
        (["--limit", "1"], [1]),
        (["--after", "20"], []),
        (["--after", "99"], []),
        (["--job", "jöb 🚀"], [14, 15, 16, 17]),
        (["--job", "jöb 🚀", "--after", "14", "--limit", "2"], [15, 16]),
        (["--job", "nobody"], []),
    ],
)
def test_what_is_asked_for_is_dumped(base: Path, arguments: list[str], expected: list[int]) -> None:
    assert positions(base, *arguments) == expected


def test_secrets_are_hidden_unless_asked_for(base: Path) -> None:
    text = run("dump", base).stdout
    assert not [secret for secret in SECRETS if secret in text]
    text = run("dump", base, "--show-secrets").stdout
    assert all(secret in text for secret in SECRETS)


def test_what_was_imported_says_so(base: Path) -> None:
    shutil.rmtree(base / ".stored")
    with running_daemon(base) as daemon:
        daemon.stop()
    records = dumped(base)
    assert len(records) == 16
    assert all(record["imported"] is True for record in records)


def test_a_session_is_shown_with_the_number_of_each_store(tmp_path: Path) -> None:
    base = tmp_path / "base"
    values = [event("a")[1], event("b", stepNumber=3)[1]]
    with running_daemon(base) as daemon:
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.connect(daemon.endpoint)
            header = {"v": 1, "op": "store", "id": 1, "session": "ab" * 16, "seq": 1}
            header["items"] = [["storeEvent", len(value)] for value in values]
            socket.send(json.dumps(header).encode() + b"\n" + b"".join(values))
            assert json.loads(socket.recv())["count"] == 2
        daemon.stop()
    assert [(record["session"], record["seq"]) for record in dumped(base)] == [("ab" * 16, 1), ("ab" * 16, 2)]


def test_nothing_is_touched(base: Path) -> None:
    def contents() -> dict[Path, tuple[int, bytes]]:
        paths = (path for path in base.rglob("*") if path.is_file() and path.name != "lock")
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    before = contents()
    dumped(base)
    assert contents() == before


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_base(base, [event(f"e{i}", stepNumber=i, text="x" * 5000) for i in range(200)])
    process = subprocess.Popen(
        [sys.executable, "-m", "perstack_stored", "dump", "--base-path", str(base)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["position"] == 1
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=120) == 0


@pytest.mark.parametrize(
    ("segment", "text", "last"), [(0, b"sk-provider", 0), (1, b"proceeding", 8), (3, b"1e400", 17)]
)
def test_records_before_a_damage_are_dumped(
    base_of_segments: Path, segment: int, text: bytes, last: int
) -> None:
    path = segments(base_of_segments)[segment]
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, bytes(len(text))))
    result = run("dump", base_of_segments)
    assert result.returncode == 1
    assert "damage in journal segment" in result.stderr
    assert "Traceback" not in result.stderr
    assert [json.loads(line)["position"] for line in result.stdout.splitlines()] == list(range(1, last + 1))


def test_a_torn_tail_is_not_dumped(base: Path) -> None:
    path = segments(base)[0]
    os.truncate(path, path.read_bytes().rindex(b"PSE1") - 8)
    assert positions(base)[-1] == 19


def test_a_dump_after_a_kill_holds_all_that_was_acknowledged(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with running_daemon(base) as daemon:
        acknowledged = store(daemon.endpoint, one_of_each())
        daemon.kill()
    assert positions(base) == acknowledged
