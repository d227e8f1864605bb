"""Values that are sent in parts, over a real socket."""

import json
from pathlib import Path

from perstack_storage import Client
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import (
    MIB,
    Raw,
    event,
    session,
)


def _large(id: str, size: int) -> bytes:
    return json.dumps(event(id, jobId=f"job-{id}", text="x" * size)).encode()


def _parts(value: bytes, size: int) -> list[tuple[bytes, dict[str, int]]]:
    count = -(-len(value) // size)
    return [
        (value[n * size : (n + 1) * size], {"part": n, "parts": count, "bytes": len(value)})
        for n in range(count)
    ]


def test_an_event_of_40_mib_goes_in_parts_and_comes_back_in_parts(tmp_path: Path) -> None:
    """Sent without waiting, stored once, and the same bytes are read; a repeat gets the same position."""
    value = _large("forty", 40 * MIB)
    name = session()
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        parts = _parts(value, 4 * MIB)
        for _ in range(2):
            for body, header in parts:
                raw.send("storeEvent", body, session=name, seq=1, **header)
            answers = [raw.receive() for _ in parts]
            assert [a.header["part"] for a in answers[:-1]] == list(range(len(parts) - 1))
            assert answers[-1].position == 1
        body, pieces = raw.whole("getEventContents", {"jobId": "job-forty", "runId": "r1"})
        assert body == b"[" + value + b"]"
        assert pieces >= 10
        assert raw.ask("stats").value["partsBytes"] == 0
        with Client(daemon.endpoint) as client:
            mine = {**event("client"), "text": "y" * 40 * MIB}
            assert client.store_event(mine) == 2
            assert client.read_all(after=1)[0]["value"] == mine


def test_a_part_out_of_order_is_refused_and_the_whole_is_forgotten(raw: Raw) -> None:
    """Then it begins again with part 0, on the same number."""
    name = session()
    parts = _parts(_large("order", 3000), 1000)
    for wrong in ([0, 2], [0, 1, 1], [1], [0, 0, 2]):
        answers = [raw.ask("storeEvent", parts[n][0], session=name, seq=1, **parts[n][1]) for n in wrong]
        assert answers[-1].code == ("SEQUENCE_GAP" if wrong == [1] else "BAD_REQUEST")
        assert answers[-1].error["field"] == "part"
        assert raw.ask("stats").value["partsBytes"] == 0
    # Another number or count in the middle is another value.
    raw.ask("storeEvent", parts[0][0], session=name, seq=1, **parts[0][1])
    assert raw.ask("storeEvent", parts[1][0], session=name, seq=2, **parts[1][1]).code == "BAD_REQUEST"
    answers = [raw.ask("storeEvent", body, session=name, seq=1, **header) for body, header in parts]
    assert answers[-1].position
    assert len(raw.ask("getEventContents", {"jobId": "job-order", "runId": "r1"}).value) == 1


def test_parts_may_begin_again(raw: Raw) -> None:
    """After a retryable error, or when an answer was lost, all parts are sent again from 0."""
    name = session()
    parts = _parts(_large("anew", 3000), 1000)
    raw.ask("storeEvent", parts[0][0], session=name, seq=1, **parts[0][1])
    raw.ask("storeEvent", parts[1][0], session=name, seq=1, **parts[1][1])
    answers = [raw.ask("storeEvent", body, session=name, seq=1, **header) for body, header in parts]
    assert answers[-1].position


def test_a_value_in_parts_is_forgotten_when_its_sender_falls_silent(raw: Raw) -> None:
    """After limits.partsSeconds, 1 here; reads and pings are no sign of life of a value."""
    parts = _parts(_large("silent", 3000), 1000)
    raw.ask("storeEvent", parts[0][0], **parts[0][1])
    assert raw.ask("stats").value["partsBytes"] == 1000
    eventually(lambda: raw.ask("stats").value["partsBytes"] == 0, "it is forgotten")
    assert raw.ask("storeEvent", parts[1][0], **parts[1][1]).code == "SEQUENCE_GAP"


def test_a_value_beyond_the_limit_is_refused_with_its_first_part(raw: Raw) -> None:
    """TOO_LARGE names limits.valueBytes; no memory is taken."""
    header = {"part": 0, "parts": 100, "bytes": 256 * MIB + 1}
    refused = raw.ask("storeEvent", b"{", **header)
    assert (refused.code, refused.error["field"]) == ("TOO_LARGE", "bytes")
    assert "limits.valueBytes" in refused.error["message"]
    assert raw.ask("stats").value["partsBytes"] == 0


def test_values_in_parts_share_a_budget(tmp_path: Path) -> None:
    """What exceeds it is BUSY; when the first one is complete, the other can come."""
    limits = ("--parts-bytes-max", str(2 * MIB))
    with (
        running_daemon(tmp_path / "base", *limits) as daemon,
        Raw(daemon.endpoint) as one,
        Raw(daemon.endpoint) as two,
    ):
        parts = _parts(_large("budget", MIB + MIB // 2), MIB + MIB // 4)
        assert one.ask("storeEvent", parts[0][0], **parts[0][1]).header["part"] == 0
        assert two.ask("storeEvent", parts[0][0], **parts[0][1]).code == "BUSY"
        assert one.ask("storeEvent", parts[1][0], **parts[1][1]).position == 1
        assert two.ask("storeEvent", parts[0][0], **parts[0][1]).header["part"] == 0


def test_values_in_parts_that_were_announced_keep_nobody_out(tmp_path: Path) -> None:
    """One that has sent a few bytes of much, on many connections, and one whose connection has ended."""
    limits = ("--parts-bytes-max", str(2 * MIB), "--value-bytes-max", str(2 * MIB))
    with running_daemon(tmp_path / "base", *limits) as daemon, Raw(daemon.endpoint) as mine:
        hogs = [Raw(daemon.endpoint) for _ in range(4)]
        for hog in hogs:
            assert hog.ask("storeEvent", b"{", part=0, parts=2, bytes=2 * MIB).header["part"] == 0
        parts = _parts(_large("announced", MIB + MIB // 2), MIB)
        for _ in range(2):
            answers = [mine.ask("storeEvent", body, **header) for body, header in parts]
            assert answers[-1].header["ok"]
        assert mine.ask("stats").value["partsBytes"] == len(hogs)
        for hog in hogs:
            hog.close()
        eventually(lambda: mine.ask("stats").value["partsBytes"] == 0, "what they sent is freed with them")
