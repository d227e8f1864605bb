"""The protocol of wire.md, spoken to a real daemon through bare sockets."""

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from perstack_storage import Client
from perstack_stored.protocol.limits import FEATURES
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import (
    MIB,
    VALUES,
    Answer,
    Raw,
    batch,
    checkpoint,
    event,
    job,
    session,
    setting,
)

_EVENT = json.dumps(event()).encode()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that soon loses patience; each test uses jobs and sessions of its own."""
    base = tmp_path_factory.mktemp("protocol") / "base"
    with running_daemon(base, "--parts-seconds", "1", "--read-seconds", "1") as running:
        yield running


@pytest.fixture
def raw(daemon: RunningDaemon) -> Iterator[Raw]:
    with Raw(daemon.endpoint) as connected:
        yield connected


# --- transport -------------------------------------------------------------------------------------


def test_a_dealer_and_a_req_are_answered_in_their_own_form(daemon: RunningDaemon) -> None:
    """The delimiter of REQ comes back; a DEALER that sends none gets none, one that does gets it."""
    request = b'{"v":1,"op":"ping","id":1}\n{}'
    with Raw(daemon.endpoint, zmq.REQ) as req:
        for _ in range(3):
            assert req.frames(request).value == {}
    with Raw(daemon.endpoint) as dealer:
        for frames in ([request], [b"", request]):
            dealer.socket.send_multipart(frames)
            assert dealer.socket.recv_multipart()[:-1] == frames[:-1]


def test_unknown_header_fields_and_an_empty_body_are_taken(raw: Raw) -> None:
    """What a newer client says beyond us is ignored, and no body stands for {}."""
    assert raw.ask("ping", hint={"a": [1, None]}, priority=7).value == {}
    runs = raw.ask("getAllRuns").value
    for frame in (b'{"v":1,"op":"getAllRuns","id":5}', b'{"v":1,"op":"getAllRuns","id":5}\n'):
        assert raw.frames(frame).value == runs


def test_hello_has_the_settings(tmp_path: Path) -> None:
    """Each bound that hello grants is the one that the daemon was started with."""
    flags = {
        "--frame-bytes-max": 200_000,
        "--value-bytes-max": 300_000,
        "--answer-bytes": 70_000,
        "--batch-items-max": 9,
        "--session-seconds": 11,
        "--parts-seconds": 12,
        "--read-seconds": 13,
        "--window-records": 14,
        "--window-bytes": 2_000_000,
    }
    arguments = [str(part) for pair in flags.items() for part in pair]
    with running_daemon(tmp_path / "base", *arguments) as daemon, Raw(daemon.endpoint) as raw:
        hello = raw.ask("hello").value
        with Client(daemon.endpoint) as client:
            assert client.hello() == hello
        daemon.stop()
        again = RunningDaemon(daemon.base).start()
        store = raw.ask("hello").value["store"]
        again.stop()
    assert hello.pop("store") == store
    assert re.fullmatch("[0-9a-f]{32}", store)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", hello.pop("version"))
    assert hello == {
        "server": "perstack-stored",
        "versions": [1],
        "base": str(daemon.base),
        "access": "read-write",
        "mayDelete": True,
        "features": list(FEATURES),
        "window": {"records": 14, "bytes": 2_000_000},
        "limits": {
            "frameBytes": 200_000,
            "valueBytes": 300_000,
            "answerBytes": 70_000,
            "batchItems": 9,
            "headerBytes": 65_536,
            "readAllRecords": 10_000,
            "sessionSeconds": 11,
            "partsSeconds": 12,
            "readSeconds": 13,
        },
    }


# --- sessions --------------------------------------------------------------------------------------


def test_a_repeated_number_gets_its_first_position(raw: Raw) -> None:
    """Whatever bytes come with it, and nothing is stored again."""
    name = session()
    first = raw.store("storeEvent", event("a"), session=name, seq=1)
    assert raw.store("storeEvent", event("b"), session=name, seq=2) == first + 1
    for _ in range(3):
        assert raw.store("storeEvent", event("a"), session=name, seq=1) == first
        assert raw.store("storeJob", job("other"), session=name, seq=2) == first + 1
    assert raw.ask("ping").header["position"] == first + 1
    assert raw.ask("retrieveJob", {"jobId": "other"}).value is None


def test_a_burst_of_repeats_is_answered_though_nothing_is_written(raw: Raw) -> None:
    """Stores that are all sent again at once get their positions, whether or not another store follows."""
    key = session()
    count = 200
    for _ in range(3):
        for seq in range(1, count + 1):
            raw.send("storeEvent", event(f"burst-{seq}"), session=key, seq=seq)
        positions = [raw.receive().position for _ in range(count)]
        assert positions == list(range(positions[0], positions[0] + count))


def test_a_gap_is_refused_unless_the_numbers_between_are_settled(raw: Raw) -> None:
    """SEQUENCE_GAP is retryable, and stores nothing; the same number is taken later."""
    name = session()
    gap = raw.ask("storeEvent", event("gap"), session=name, seq=3)
    assert gap.code == "SEQUENCE_GAP"
    assert gap.error["retryable"] is True
    assert raw.ask("hello", session=name).value["session"] == {"last": 0}
    assert raw.ask("storeEvent", event("gap"), session=name, seq=3, settled=1).code == "SEQUENCE_GAP"
    position = raw.store("storeEvent", event("gap"), session=name, seq=3, settled=2)
    assert raw.ask("hello", session=name).value["session"] == {"last": 3}
    assert raw.store("storeEvent", event("gap"), session=name, seq=3, settled=2) == position
    items, body = batch([("storeEvent", _EVENT)] * 2)
    assert raw.ask("store", body, items=items, session=name, seq=5, settled=3).code == "SEQUENCE_GAP"


def test_a_number_that_was_settled_is_old(raw: Raw) -> None:
    """SEQUENCE_OLD: a retry that comes late never overwrites what is newer."""
    name = session()
    raw.store("storeJob", job("old", totalSteps=1), session=name, seq=1)
    raw.store("storeJob", job("old", totalSteps=2), session=name, seq=2, settled=1)
    late = raw.ask("storeJob", job("old", totalSteps=1), session=name, seq=1)
    assert late.code == "SEQUENCE_OLD"
    assert late.error["retryable"] is False
    skipped = raw.store("storeJob", job("old", totalSteps=3), session=name, seq=9, settled=8)
    assert (
        raw.ask("storeJob", job("old", totalSteps=9), session=name, seq=5, settled=8).code == "SEQUENCE_OLD"
    )
    assert raw.ask("retrieveJob", {"jobId": "old"}).value["totalSteps"] == 3
    assert raw.ask("ping").header["position"] == skipped


def test_a_refused_number_is_used_up_and_refused_again(raw: Raw) -> None:
    """The next number continues after it, and a repeat gets the same reason."""
    name = session()
    for _ in range(2):
        refused = raw.ask("storeEvent", event(stepNumber=-1), session=name, seq=1)
        assert (refused.code, refused.error["field"]) == ("BAD_VALUE", "stepNumber")
    raw.store("storeEvent", event("next"), session=name, seq=2)
    assert raw.ask("storeEvent", event(stepNumber=-1), session=name, seq=1).code == "BAD_VALUE"


def test_a_batch_has_a_result_for_each_item_if_some_are_refused(raw: Raw) -> None:
    """Positions run on over the refusals in between; a repeat of the frame gives the same results."""
    name = session()
    good = [json.dumps(event(f"batch-{n}")).encode() for n in range(6)]
    bad = json.dumps(event("a/b")).encode()
    values = [good[0], bad, good[1], good[2], b"{", b"", good[3], bad]
    items, body = batch([("storeEvent", value) for value in values])
    before = raw.ask("ping").header["position"]
    results = raw.ask("store", body, items=items, session=name, seq=1).header["results"]
    assert [r if isinstance(r, int) else (r["code"], r.get("field")) for r in results] == [
        before + 1,
        ("BAD_VALUE", "id"),
        before + 2,
        before + 3,
        ("BAD_JSON", None),
        ("BAD_JSON", None),
        before + 4,
        ("BAD_VALUE", "id"),
    ]
    again = raw.ask("store", body, items=items, session=name, seq=1).header
    assert again["results"] == results
    assert "position" not in again
    # Half of it known, half of it new: 5 to 8 were seen, 9 and 10 follow.
    items, body = batch([("storeEvent", value) for value in [*values[4:], good[4], good[5]]])
    mixed = raw.ask("store", body, items=items, session=name, seq=5).header["results"]
    assert mixed[:4] == results[4:]
    assert mixed[4:] == [before + 5, before + 6]
    whole, body = batch([("storeEvent", value) for value in good[:3]])
    header = raw.ask("store", body, items=whole, session=name, seq=11).header
    assert (header["position"], header["count"], "results" in header) == (before + 7, 3, False)


def test_two_sessions_on_one_connection_keep_apart(raw: Raw) -> None:
    """Numbers and orders don't mix, even in one commit."""
    names = [session(), session()]
    ids = {}
    for seq in range(1, 41):
        for name in names:
            ids[raw.send("storeEvent", event(f"{name}-{seq}"), session=name, seq=seq)] = (name, seq)
    got = {}
    for _ in ids:
        answer = raw.receive()
        got[ids[answer.header["id"]]] = answer.position
    for name in names:
        positions = [got[name, seq] for seq in range(1, 41)]
        assert positions == sorted(set(positions))
    assert len(set(got.values())) == 80


@pytest.mark.parametrize("clean", [False, True], ids=["SIGKILL", "clean stop"])
def test_a_session_outlives_the_daemon(tmp_path: Path, *, clean: bool) -> None:
    """Repeats after a restart get the positions from before, and nothing is stored twice."""
    name, other = session(), session()
    items, body = batch([("storeEvent", json.dumps(event(f"b{n}")).encode()) for n in range(3)])
    bad_items, bad_body = batch([("storeEvent", b"{}"), ("storeEvent", _EVENT), ("storeEvent", b"{}")])
    requests: list[tuple[str, Any, dict[str, Any]]] = [
        ("storeEvent", event("a"), {"session": name, "seq": 1}),
        ("store", body, {"items": items, "session": name, "seq": 2}),
        ("storeJob", job("x"), {"session": other, "seq": 1}),
        ("storeJob", b"{}", {"session": name, "seq": 5}),
        ("store", bad_body, {"items": bad_items, "session": name, "seq": 6}),
        ("storeJob", job("y"), {"session": name, "seq": 9}),
    ]
    with running_daemon(tmp_path / "base") as daemon:
        with Raw(daemon.endpoint) as raw:
            before = [_result(raw.ask(op, body, **header)) for op, body, header in requests]
        for _ in range(2):
            if clean:
                assert daemon.stop() == 0
            else:
                daemon.kill()
            daemon.start()
            with Raw(daemon.endpoint) as raw:
                assert [_result(raw.ask(op, body, **header)) for op, body, header in requests] == before
                assert raw.ask("hello", session=name).value["session"] == {"last": 9}
                assert raw.ask("ping").header["position"] == 7
                assert len(raw.read_all()) == 7
        with Raw(daemon.endpoint) as raw:
            assert raw.ask("storeJob", job("z"), session=name, seq=11).code == "SEQUENCE_GAP"
            assert raw.store("storeJob", job("z"), session=name, seq=10) == 8
            assert raw.ask("storeEvent", event("a"), session=name, seq=1, settled=10).code == "SEQUENCE_OLD"


def _result(answer: Answer) -> dict[str, Any]:
    """What an answer says of the stores: for each of them a position or an error."""
    header = {key: value for key, value in answer.header.items() if key != "id"}
    if "count" in header:
        first = header.pop("position")
        header["results"] = list(range(first, first + header.pop("count")))
    return header


def test_an_unused_session_makes_room_for_another(tmp_path: Path) -> None:
    """The oldest of the client with most; a store sent again there is old, and is not stored again."""
    limits = ("--sessions-max", "2", "--session-seconds", "600")
    with running_daemon(tmp_path / "base", *limits) as daemon, Raw(daemon.endpoint) as raw:
        names = [session() for _ in range(5)]
        for name in names[:4]:
            raw.store("storeEvent", event(name), session=name, seq=1)
        assert raw.ask("storeEvent", event("x"), session=names[4], seq=1).code == "BUSY"
        raw.store("storeEvent", event("without a session"))
        for _ in range(2):
            assert raw.ask("storeEvent", event(names[1]), session=names[1], seq=1).code == "SEQUENCE_OLD"
            assert raw.ask("hello", session=names[1]).value["session"] == {"last": 1}
        raw.store("storeEvent", event("goes on"), session=names[1], seq=2, settled=1)
        assert len(raw.read_all()) == 6


def test_the_place_of_a_session_is_free_when_its_time_is_up(tmp_path: Path) -> None:
    """A client that has begun more than are kept gets BUSY until the oldest has expired."""
    limits = ("--sessions-max", "1", "--session-seconds", "1")
    with running_daemon(tmp_path / "base", *limits) as daemon, Raw(daemon.endpoint) as raw:
        for n in range(12):
            name = session()
            eventually(
                lambda n=n, name=name: bool(  # type: ignore[misc]
                    raw.ask("storeEvent", event(f"e{n}"), session=name, seq=1).header["ok"]
                ),
                "there is a place",
            )
        assert len(raw.read_all()) == 12


# --- large answers ---------------------------------------------------------------------------------


def test_two_large_answers_are_pulled_side_by_side(tmp_path: Path) -> None:
    """Each is of one moment: what is stored while it is pulled is not in it."""
    with (
        running_daemon(tmp_path / "base", "--answer-bytes", "65536") as daemon,
        Raw(daemon.endpoint) as raw,
        Raw(daemon.endpoint) as other,
    ):
        for n in range(300):
            raw.send("storeEvent", event(f"e{n}", text="x" * 2000, timestamp=n))
        for _ in range(300):
            assert raw.receive().header["ok"]
        expected = [event(f"e{n}", text="x" * 2000, timestamp=n) for n in range(300)]
        run = {"jobId": "j1", "runId": "r1"}
        bodies: list[list[bytes]] = [[], []]
        answers = [raw.ask("getEventContents", run), raw.ask("readAll")]
        raw.store("storeEvent", event("late", timestamp=0))
        foreign = other.ask("readPart", answers[0].header["more"])
        assert foreign.code == "READ_GONE"
        while any("more" in answer.header for answer in answers):
            for n, answer in enumerate(answers):
                if "more" in answer.header:
                    bodies[n].append(answer.body)
                    assert len(answer.body) == 65536
                    answers[n] = raw.ask("readPart", answer.header["more"])
        contents, records = (
            json.loads(b"".join([*pieces, answer.body]))
            for pieces, answer in zip(bodies, answers, strict=True)
        )
        assert contents == expected
        assert [record["value"] for record in records] == expected
        assert raw.ask("readPart", {"read": "r1", "part": 99}).code == "READ_GONE"


def test_the_rest_of_a_large_answer_is_kept_for_a_while_only(raw: Raw) -> None:
    """READ_GONE, retryable, after limits.readSeconds of silence, 1 here, and for a part that was pulled."""
    for n in range(5):
        raw.store("storeEvent", event(f"gone{n}", jobId="gone", text="x" * 2 * MIB))
    run = {"jobId": "gone", "runId": "r1"}
    first = raw.ask("getEventContents", run)
    second = raw.ask("readPart", first.header["more"])
    assert second.header["ok"]
    repeated = raw.ask("readPart", first.header["more"])
    assert (repeated.code, repeated.error["retryable"]) == ("READ_GONE", True)
    pulled = time.monotonic()
    assert len(json.loads(raw.whole("getEventContents", run)[0])) == 5
    eventually(lambda: time.monotonic() > pulled + 1.1, "a second has passed")
    assert raw.ask("readPart", second.header["more"]).code == "READ_GONE"


# --- listings --------------------------------------------------------------------------------------


def _paged(raw: Raw, op: str, arguments: dict[str, Any], limit: int) -> list[Any]:
    """All of a listing, page by page."""
    items: list[Any] = []
    given = {**arguments, "limit": limit}
    while True:
        answer = raw.ask(op, given)
        assert len(answer.value) <= limit
        items += answer.value
        if "next" not in answer.header:
            return items
        assert len(answer.value) == limit
        given["after"] = answer.header["next"]


def test_every_listing_can_be_read_in_pages(tmp_path: Path) -> None:
    """For each page size the pages joined are the listing; ties don't fall between two pages."""
    rng = random.Random(7)
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(24):
            tied = rng.randrange(4)
            raw.store("storeJob", job(f"job{n}", startedAt=1000 + tied / 2))
            raw.store("storeRunSetting", setting(f"run{n}", jobId=f"j{tied}", updatedAt=1000 + tied / 2))
            raw.store("storeCheckpoint", checkpoint(f"c{n}", jobId="j", stepNumber=tied))
            timestamp = 2000 + tied / 4
            raw.store("storeEvent", event(f"e{n}", jobId="j", timestamp=timestamp, stepNumber=n % 3))
        run = {"jobId": "j", "runId": "r1"}
        for op, arguments in (
            ("getAllJobs", {}),
            ("getAllRuns", {}),
            ("getCheckpointsByJobId", {"jobId": "j"}),
            ("getEventsByRun", run),
            ("getEventContents", run),
            ("getEventContents", {**run, "maxStep": 1}),
        ):
            whole = raw.ask(op, arguments)
            assert "next" not in whole.header
            assert len(whole.value) == (16 if "maxStep" in arguments else 24)
            for limit in (1, 2, 3, 5, 8, 23, 24, 25, 10**9):
                assert _paged(raw, op, arguments, limit) == whole.value, (op, limit)
        contents = raw.ask("getEventContents", run).value
        assert contents == sorted(contents, key=lambda found: found["timestamp"])
        stored = {
            record["value"]["id"]: record["position"] for record in raw.read_all() if "id" in record["value"]
        }
        order = [(found["timestamp"], stored[found["id"]]) for found in contents]
        assert order == sorted(order)


def test_read_all_goes_on_from_any_position(tmp_path: Path) -> None:
    """From the middle of a batch too, without events that repeat an earlier one; `next` is always there."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        for n in range(10):
            values = [
                ("storeEvent", json.dumps(event(f"e{n}")).encode()),
                ("storeEvent", json.dumps(event("again")).encode()),
                ("storeJob", json.dumps(job("same")).encode()),
                ("storeEvent", json.dumps(event(f"e{n}")).encode()),
            ]
            items, body = batch(values)
            raw.ask("store", body, items=items)
        everything = raw.ask("readAll").value
        # Of each four the last repeats the first; "again" is new once; jobs are all kept.
        assert [r["position"] for r in everything] == sorted(
            [1 + 4 * n for n in range(10)] + [2] + [3 + 4 * n for n in range(10)]
        )
        assert [r["op"] for r in everything[:3]] == ["storeEvent", "storeEvent", "storeJob"]
        times = [r["time"] for r in everything]
        assert times == sorted(times)
        for after in range(41):
            answer = raw.ask("readAll", {"after": after})
            assert answer.value == [r for r in everything if r["position"] > after]
            assert answer.header["next"] == 40
        for limit in (1, 2, 3, 7, 40, 50):
            after, found = 0, []
            while after < 40:
                answer = raw.ask("readAll", {"after": after, "limit": limit})
                found += answer.value
                assert answer.header["next"] == min(after + limit, 40)
                after = answer.header["next"]
            assert found == everything


# --- promises --------------------------------------------------------------------------------------


def test_a_deadline_is_for_reads_only(raw: Raw) -> None:
    """With no time left a read is DEADLINE, retryable; a store has no deadline; 1 ms is one or the other."""
    refused = raw.ask("getAllJobs", timeoutMs=0)
    assert (refused.code, refused.error["retryable"]) == ("DEADLINE", True)
    assert raw.store("storeEvent", event("deadline"), timeoutMs=0)
    for _ in range(20):
        answer = raw.ask("getAllJobs", timeoutMs=1)
        assert answer.header["ok"] or answer.code == "DEADLINE"
    assert raw.ask("getAllJobs", timeoutMs=2**53 - 1).header["ok"]
    assert raw.ask("ping", timeoutMs=0).header["ok"]


def test_a_read_waits_for_the_position_that_its_client_has_seen(raw: Raw, daemon: RunningDaemon) -> None:
    """Nothing else waits for it: no later read of the connection, and no store."""
    run = {"jobId": "ahead", "runId": "r1"}
    next_position = raw.ask("ping").header["position"] + 1
    reads = [raw.send(op, run, atLeast=next_position) for op in ("getEventsByRun", "retrieveJob", "readAll")]
    assert raw.ask("getEventsByRun", run).value == []
    assert raw.ask("getEventsByRun", run, atLeast=next_position - 1).value == []
    assert raw.ask("stats").value["reads"]["waiting"] == 3
    with Raw(daemon.endpoint) as other:
        other.store("storeEvent", event("ahead", jobId="ahead"))
    answers = {answer.header["id"]: answer for answer in (raw.receive() for _ in range(3))}
    assert all(answers[read].header["position"] >= next_position for read in reads)
    assert len(answers[reads[0]].value) == 1
    assert raw.ask("getEventsByRun", run, atLeast=2**53 - 1, timeoutMs=50).code == "DEADLINE"
    assert raw.ask("stats").value["reads"]["waiting"] == 0


def test_every_store_is_seen_by_every_client_at_once(raw: Raw, daemon: RunningDaemon) -> None:
    """Five hundred times: one client stores, another one on its own connection reads it, of each kind."""
    readers = [Raw(daemon.endpoint) for _ in range(8)]
    latencies = []
    try:
        for n in range(500):
            op = list(VALUES)[n % 4]
            id = f"seen{n}"
            changes = {"jobId": id} if op != "storeJob" else {}
            name = "r1" if op == "storeRunSetting" else id
            position = raw.store(op, VALUES[op](name, **changes))
            start = time.perf_counter()
            found = _look_for(readers[n % 8], op, id)
            latencies.append(time.perf_counter() - start)
            assert found.header["position"] >= position
    finally:
        for reader in readers:
            reader.close()
    latencies.sort()
    print(f"read after write: p50 {latencies[250] * 1e3:.1f} ms, p99 {latencies[494] * 1e3:.1f} ms")  # noqa: T201


def _look_for(reader: Raw, op: str, id: str) -> Answer:
    if op == "storeJob":
        answer = reader.ask("retrieveJob", {"jobId": id})
        assert answer.value["id"] == id
    elif op == "storeCheckpoint":
        answer = reader.ask("retrieveCheckpoint", {"jobId": id, "checkpointId": id})
        assert answer.value["id"] == id
    elif op == "storeEvent":
        answer = reader.ask("getEventsByRun", {"jobId": id, "runId": "r1"})
        assert len(answer.value) == 1
    else:
        answer = reader.ask("getAllRuns")
        assert id in {found["jobId"] for found in answer.value}
    return answer
