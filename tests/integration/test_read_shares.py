"""One client can't take from the others what all of them need to read."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import Raw, event, job

RUN = {"jobId": "j1", "runId": "r1"}


@contextmanager
def holder(
    daemon: RunningDaemon, op: str, arguments: dict[str, Any], count: int, answers: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has sent a request a number of times, and had a number of answers."""
    request = [daemon.endpoint, op, json.dumps(arguments), str(count), str(answers)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.holder", *request],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_large_answers_that_one_client_leaves_keep_out_nobody(tmp_path: Path) -> None:
    """It begins as many as are kept and pulls none: others read theirs, one by one and side by side."""
    with running_daemon(
        tmp_path / "base", "--open-reads-max", "4", "--answer-bytes", "65536"
    ) as daemon, Raw(daemon.endpoint) as raw:  # fmt: skip
        stored = [event(f"e{n}", text="x" * 50_000) for n in range(4)]
        for value in stored:
            raw.store("storeEvent", value)
        with holder(daemon, "getEventContents", RUN, 10, 10):
            body, parts = raw.whole("getEventContents", RUN)
            assert json.loads(body) == stored
            assert parts > 2
            begun = [raw.ask("getEventContents", RUN) for _ in range(2)]
            with Raw(daemon.endpoint) as other:
                assert other.ask("getEventContents", RUN).code == "BUSY"  # of this process: it holds its half
            for answer in begun:
                assert raw.ask("readPart", answer.header["more"]).header["ok"]


def test_reads_that_one_client_lets_wait_keep_out_nobody(tmp_path: Path) -> None:
    """It waits for new records in all the places there are; others get one, and its places go with it."""
    with running_daemon(tmp_path / "base", "--follows-max", "8") as daemon, Raw(daemon.endpoint) as raw:
        position = raw.store("storeJob", job())
        wait = {"after": position, "waitMs": 60_000}

        def following() -> int:
            return int(raw.ask("stats").value["reads"]["following"])

        with holder(daemon, "readAll", wait, 20, 12) as process:
            assert following() == 8
            with Raw(daemon.endpoint) as mine:
                sent = [mine.send("readAll", wait) for _ in range(3)]
                eventually(lambda: raw.ask("ping").header["ok"] and following() == 8, "mine wait, too")
                process.kill()
                eventually(lambda: following() == 3, "what it held is free")
                raw.store("storeEvent", event())
                answers = [mine.receive() for _ in sent]
                assert {answer.header["id"] for answer in answers} == set(sent)
                assert all(answer.value[0]["position"] == position + 1 for answer in answers)


def test_a_crowd_of_reads_of_one_client_keeps_out_nobody(tmp_path: Path) -> None:
    """It asks for listing upon listing: another one's read is the next but one, and is not refused."""
    with running_daemon(tmp_path / "base", "--reads-max", "100") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(10):
            raw.store("storeEvent", event(f"e{n}", text="x" * 40_000))
        with holder(daemon, "getEventContents", RUN, 3000):
            for _ in range(20):
                assert len(raw.ask("getEventsByRun", RUN).value) == 10
                assert raw.ask("retrieveJob", {"jobId": "j1"}).value is None


@pytest.mark.parametrize("op", ["getEventContents", "readAll"])
def test_large_answers_go_with_their_connection(tmp_path: Path, op: str) -> None:
    """Their places are free at once, not after `read-seconds`."""
    with running_daemon(
        tmp_path / "base", "--open-reads-max", "1", "--answer-bytes", "65536", "--read-seconds", "3600"
    ) as daemon, Raw(daemon.endpoint) as raw:  # fmt: skip
        raw.store("storeEvent", event(text="x" * 200_000))
        arguments = RUN if op == "getEventContents" else {}
        with contextlib.closing(Raw(daemon.endpoint)) as first:
            assert "more" in first.ask(op, arguments).header
            assert raw.ask(op, arguments).code == "BUSY"
        eventually(lambda: bool(raw.ask(op, arguments).header["ok"]), "there is room")
